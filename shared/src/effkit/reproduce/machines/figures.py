"""Figures of two sides, pair by pair: equal, within the noise of repeats, or other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.intervals import Ratio, ratio_interval
from effkit.reproduce.machines.reading import Side

__all__ = ["Pair", "claim_pairs", "judged", "outcome_pairs", "paper_names", "seconds_pairs"]


@dataclass(frozen=True)
class Pair:
    """One figure on both sides.

    Attributes:
        paper: Whose.
        where: Table, ``claim``, or the title of a claim's table.
        what: Row and metric with its unit.
        a: Its values on side A, one a repeat; empty if A has none.
        b: On side B.
        paired: The n-th of one belongs to the n-th of the other: the same seed.
        note: Why it is not compared, or what differs beside the figure.
    """

    paper: str
    where: str
    what: str
    a: tuple[float, ...]
    b: tuple[float, ...]
    paired: bool = False
    note: str = ""

    @property
    def ratio(self) -> Ratio | None:
        """B over A with its interval; `None` where a figure is not positive or a side has none."""
        if not self.a or not self.b or min(*self.a, *self.b) <= 0:
            return None
        return ratio_interval(self.a, self.b, paired=self.paired)

    @property
    def verdict(self) -> str:
        """A word: same, alike, more, less, other, no interval, not compared, only in A, only in B."""
        if not self.a or not self.b:
            return "only in A" if self.a else "only in B"
        if self.note:
            return "not compared"
        if set(self.a) == set(self.b) and len(set(self.a)) == 1:
            return "same"
        if self.paired and self.a == self.b:
            return "same"
        ratio = self.ratio
        if ratio is None:
            return "other"
        if ratio.differs is None:
            return "no interval"
        return ("more" if ratio.value > 1 else "less") if ratio.differs else "alike"


def paper_names(a: Side, b: Side) -> list[str]:
    """Papers that both sides have, in A's order."""
    of_b = {paper["name"] for document in b.documents for paper in document["papers"]}
    return [name for name in dict.fromkeys(p["name"] for d in a.documents for p in d["papers"]) if name in of_b]


def _other_form(a: Side, b: Side, name: str) -> str:
    """Why claims cannot be compared: a short form is another experiment than the full one."""
    forms = [sorted({str(p["claim"]["form"]) for p in side.papers(name) if p["claim"]}) for side in (a, b)]
    one, two = (" and ".join(found) for found in forms)
    return f"forms of the claim: A {one}, B {two}" if forms[0] and forms[1] and one != two else ""


def _collected(outcomes: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """Figures by table and what they are of; a thing that a report names twice is told apart by its number."""
    found: dict[tuple[str, str], list[float]] = {}
    times: dict[tuple[str, str], int] = {}
    for o in outcomes:
        unit = f", {o['unit']}" if o["unit"] else ""
        key = (o["table"], f"{o['name']}: {o['metric']}{unit}")
        times[key] = times.get(key, 0) + 1
        if times[key] > 1:
            key = (key[0], f"{key[1]} ({times[key]})")
        if o["ours"] is not None:
            found.setdefault(key, []).append(float(o["ours"]))
    return found


def _merged(papers: Sequence[Mapping[str, Any]], part: str) -> dict[tuple[str, str], list[float]]:
    merged: dict[tuple[str, str], list[float]] = {}
    for paper in papers:
        outcomes = paper["outcomes"] if part == "rows" else (paper["claim"] or {"outcomes": []})["outcomes"]
        for key, values in _collected(outcomes).items():
            merged.setdefault(key, []).extend(values)
    return merged


def outcome_pairs(a: Side, b: Side, name: str) -> list[Pair]:
    """Every figure of a paper's rows and claim, that at least one side has."""
    pairs = []
    for part in ("rows", "claim"):
        one, two = (_merged(side.papers(name), part) for side in (a, b))
        note = _other_form(a, b, name) if part == "claim" else ""
        for key in dict.fromkeys([*one, *two]):
            pairs.append(Pair(name, *key, tuple(one.get(key, ())), tuple(two.get(key, ())), note=note))
    return pairs


def _seeded(papers: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[float, float]]:
    """Numeric columns of claims' tables that have a column of seeds: (table, row and column) to values by seed."""
    found: dict[tuple[str, str], dict[float, float]] = {}
    for number, paper in enumerate(papers):
        for table in (paper["claim"] or {"tables": []})["tables"]:
            columns = table["columns"]
            if "seed" not in columns:
                continue
            at = columns.index("seed")
            words = [i for i in range(at) if any(isinstance(row[i], str) for row in table["rows"])]
            for row in table["rows"]:
                label = ", ".join(str(row[i]) for i in words)
                for i, column in enumerate(columns):
                    value = row[i]
                    if i == at or i in words or isinstance(value, bool) or not isinstance(value, int | float):
                        continue
                    key = (table["title"], f"{label}: {column}" if label else column)
                    # Repeats of a whole report have the same seeds once more.
                    found.setdefault(key, {})[number * 1e9 + float(row[at])] = float(value)
    return found


def claim_pairs(a: Side, b: Side, name: str) -> list[Pair]:
    """Figures of a paper's claim that were measured with several seeds, seed by seed."""
    one, two = (_seeded(side.papers(name)) for side in (a, b))
    note = _other_form(a, b, name)
    pairs = []
    for key in [k for k in one if k in two]:
        seeds = [seed for seed in one[key] if seed in two[key]]
        if len(seeds) > 1:
            x, y = (tuple(side[key][seed] for seed in seeds) for side in (one, two))
            pairs.append(Pair(name, key[0], key[1], x, y, paired=True, note=note))
    return pairs


def seconds_pairs(a: Side, b: Side, name: str) -> list[Pair]:
    """What a paper and its claim took."""
    pairs = []
    for what in ("rows and claim", "claim"):
        values = []
        for side in (a, b):
            papers = side.papers(name)
            took = [p["seconds"] if what != "claim" else (p["claim"] or {}).get("seconds") for p in papers]
            values.append(tuple(float(t) for t in took if t is not None and math.isfinite(t)))
        if values[0] or values[1]:
            pairs.append(Pair(name, "seconds", what, values[0], values[1], note=_other_form(a, b, name)))
    return pairs


def judged(pairs: Sequence[Pair]) -> dict[str, int]:
    """How many pairs have each verdict."""
    counts: dict[str, int] = {}
    for pair in pairs:
        counts[pair.verdict] = counts.get(pair.verdict, 0) + 1
    return counts
