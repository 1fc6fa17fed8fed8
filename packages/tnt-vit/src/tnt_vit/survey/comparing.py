"""Two surveys side by side: two machines, or two states of the code on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effkit.errors import UserError
from effkit.intervals import Ratio, ratio_interval
from effkit.report import Table

__all__ = ["compare_rows"]

Row = Mapping[str, Any]
_COUNTS = ("params", "macs")


def compare_rows(a: Sequence[Row], b: Sequence[Row]) -> list[Table]:
    """What differs between two surveys, network by network.

    Args:
        a: Rows of one.
        b: Rows of the other.

    Returns:
        Times with the ratio's 95 % interval (Welch, on logarithms of the rounds' samples) and a verdict; counts that
        differ; what else differs (machine, libraries, settings).

    Raises:
        UserError: If no network is in both.
    """
    one, two = ({row["name"]: row for row in rows} for rows in (a, b))
    both = [name for name in one if name in two]
    if not both:
        raise UserError(f"the two surveys share no network: A has {', '.join(one)}; B has {', '.join(two)}")
    tables = [_times(one, two, both), _counts(one, two, both), _settings(one[both[0]], two[both[0]])]
    return [table for table in tables if table.rows]


def _times(one: Mapping[str, Row], two: Mapping[str, Row], both: Sequence[str]) -> Table:
    columns = ["name", "batch", "A images/s", "B images/s", "B's time / A's", "95 % from", "to", "verdict"]
    table = Table("Speed", columns)
    for name in dict.fromkeys([*one, *two]):
        if name not in both:
            side = "only in A" if name in one else "only in B"
            table.rows.append([name, *[None] * 6, side])
            continue
        cases = [{case["batch"]: case for case in side[name].get("sweep", [])} for side in (one, two)]
        for batch in [b for b in cases[0] if b in cases[1]]:
            x, y = cases[0][batch], cases[1][batch]
            found = ratio_interval(x["samples"], y["samples"])
            rates = [x["images_per_second"], y["images_per_second"]]
            table.rows.append([name, batch, *rates, found.value, found.low, found.high, _verdict(found)])
    table.note = (
        "Faster, slower: B beside A, where the 95 % interval of the ratio of times leaves out 1. It is of geometric "
        "means, from the rounds of each run (Welch); rounds close in time are alike, so that an interval is rather too "
        "narrow, and no run tells what another one would find on the same machine."
    )
    return table


def _verdict(ratio: Ratio) -> str:
    if ratio.differs is None:
        return "no interval"
    return ("slower" if ratio.value > 1 else "faster") if ratio.differs else "alike"


def _counts(one: Mapping[str, Row], two: Mapping[str, Row], both: Sequence[str]) -> Table:
    table = Table("Counts and outcomes that differ", ["name", "what", "A", "B"])
    for name in both:
        x, y = one[name], two[name]
        pairs = [(key, x["counts"].get(key), y["counts"].get(key)) for key in _COUNTS]
        pairs.append(("status", x["status"], y["status"]))
        table.rows += [[name, key, p, q] for key, p, q in pairs if p != q]
    return table


def _settings(x: Row, y: Row) -> Table:
    table = Table("What else differs", ["what", "A", "B"])
    for group in ("settings", "stamp"):
        for key in dict.fromkeys([*x[group], *y[group]]):
            p, q = x[group].get(key), y[group].get(key)
            if p != q and (group, key) != ("stamp", "date"):
                words = [", ".join(map(str, v)) if isinstance(v, list) else v for v in (p, q)]
                if [key, *words] not in table.rows:
                    table.rows.append([key, *words])
    table.note = "As the first network in both was measured."
    return table
