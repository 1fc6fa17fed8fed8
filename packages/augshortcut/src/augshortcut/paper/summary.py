"""What each variant costs, beside what the paper prints: the table of ``augshortcut summary``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augshortcut.commands.build import plain
from augshortcut.models.zoo import OFFICIAL, OWN, list_models
from augshortcut.paper.cost import variant_cost
from augshortcut.paper.figures import TABLE2
from effkit.errors import UserError, choose
from effkit.report import Report, Table

__all__ = ["VARIANTS", "run", "summary_report"]

VARIANTS = (
    *OFFICIAL,
    "aug_deit_tiny_patch16_224",
    "aug_deit_base_patch16_384",
    "aug_pvt_v1_small",
    "aug_pvt_v1_medium",
    "aug_t2t_vit_14",
    "aug_t2t_vit_19",
    "aug_t2t_vit_24",
)

NOTE = (
    "MACs of one picture. executed: ours by default (two splits). dense-equivalent: paths as dense products, which is "
    "what the official code runs. paper-style: FFTs counted as in the paper's column, which no code is known to run."
)


def _printed() -> dict[str, tuple[float, float]]:
    """Millions of parameters and GMACs as Table 2 has them, by our names."""
    found = {}
    for line in TABLE2:
        found[line.base] = (line.params[0], line.macs[0])
        found[f"aug_{line.base}"] = (line.params[1], line.macs[1])
    for name, (base, values) in OFFICIAL.items():
        key = base if values["num_paths"] == 0 else f"aug_{base}"
        if values.get("projection") != "dense" and key in found:
            found[name] = found[key]
    return found


def summary_report(variants: Sequence[str] | None = None) -> Report:
    """Count variants.

    Args:
        variants: Names of :func:`augshortcut.models.zoo.list_models` or bases; those of Table 2 and of the official
            code if not given.

    Returns:
        A table; ``data`` holds ``params``, ``macs_executed``, ``macs_dense_equivalent`` and ``macs_paper`` by variant.

    Raises:
        UserError: If a name is not known.
    """
    if isinstance(variants, str):
        raise UserError(f"variants must be a list of names, got {variants!r}; give variants=[{variants}]")
    names = list(VARIANTS) if variants is None else list(variants)
    if not names:
        raise UserError("variants is an empty list; name some, or leave it out for all")
    known = {*list_models(), *OWN, *(line.base for line in TABLE2)}
    for name in names:
        if name not in known:
            choose("variants", name, sorted(known))
    printed = _printed()
    data, rows = {}, []
    for name in names:
        cost = variant_cost(name)
        data[name] = cost._asdict()
        millions, giga = printed.get(name, (None, None))
        rows.append([name, cost.params, millions, *cost[1:], giga])
    columns = ["variant", "params", "printed, M", "MACs executed", "dense-equivalent", "paper-style", "printed, G"]
    return Report("Augmented shortcuts: parameters and MACs", [Table("Variants", columns, rows, NOTE)], data=data)


def run(cfg: Any) -> Report:
    """Do what ``augshortcut summary`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a name is not known.
    """
    return summary_report(**plain(cfg, "variants"))
