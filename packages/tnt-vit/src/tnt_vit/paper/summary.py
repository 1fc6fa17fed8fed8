"""What each variant costs, beside what the paper prints: the tables of ``tnt-vit summary``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from effkit.arguments import check_arguments
from effkit.cost import measure_image
from effkit.errors import UserError, choose
from effkit.report import Report, Table
from tnt_vit.checkpoints.pyramids import PYRAMIDS
from tnt_vit.checkpoints.zoo import VARIANTS, create_model, full_name, list_models
from tnt_vit.commands.options import options
from tnt_vit.paper import figures
from tnt_vit.paper.closed_forms import Sizes, dead_params, macs, params
from tnt_vit.paper.cost import pyramid_cost

__all__ = ["run", "summary_report"]

COUNTS = (
    "MACs: multiply-adds of convolutions, linear maps and attention products for one picture. Printed parameters "
    "include a table of the official code that nothing reads, given in the column 'unused'."
)


def _printed() -> dict[str, tuple[float | None, float]]:
    """Millions of parameters and GMACs as the paper prints them, per variant."""
    printed: dict[str, tuple[float | None, float]] = {h.variant: (None, h.macs) for h in figures.HYBRIDS.values()}
    printed |= {w.variant: (w.params, w.macs) for w in figures.WORDS}
    return printed | {t.variant: (t.params, t.macs) for t in figures.IMAGENET.values()}


def _full_name(field: str, name: str) -> str:
    full = full_name(name)
    return full if full in list_models() else choose(field, name, list_models())


def _share(part: int, whole: int) -> float:
    return round(100 * part / whole, 1)


def _variant_table(names: Sequence[str]) -> Table:
    columns = ["variant", "in the paper", "pixels", "params", "unused", "printed, M", "MACs", "printed, G"]
    printed = _printed()
    rows: list[list[Any]] = []
    for name in names:
        sizes = Sizes.from_args(VARIANTS[name].args)
        millions, giga = printed.get(name, (None, None))
        counts = [sum(params(sizes).values()), dead_params(sizes), millions, sum(macs(sizes).values()), giga]
        rows.append([name, VARIANTS[name].table or "no", sizes.img_size, *counts])
    return Table("Variants", columns, rows, COUNTS)


def _pyramid_table(names: Sequence[str]) -> Table:
    columns = ["variant", "pixels", "params", "readme, M", "MACs", "readme, G"]
    printed = {p.variant: (p.params, p.macs) for p in figures.PYRAMIDS.values()}
    rows: list[list[Any]] = []
    for name in names:
        cost, (millions, giga) = pyramid_cost(name), printed[name]
        rows.append([name, PYRAMIDS[name].args["img_size"], cost.params, millions, cost.macs, giga])
    return Table("PyramidTNT", columns, rows, "Counted in the networks; beside them the readme of the official code.")


def _split_table(names: Sequence[str]) -> Table:
    parts = list(macs(Sizes()))
    rows: list[list[Any]] = []
    for name in names:
        split = macs(Sizes.from_args(VARIANTS[name].args))
        rows.append([name, *(_share(split[part], sum(split.values())) for part in parts)])
    return Table("Where the MACs go, % of the variant's", ["variant", *parts], rows)


def _parts_table(name: str) -> Table:
    sizes = Sizes.from_args(VARIANTS[name].args)
    rows: list[list[Any]] = []
    for what, split in (("MACs", macs(sizes)), ("params", params(sizes))):
        rows += [[what, part, count, _share(count, sum(split.values()))] for part, count in split.items() if count]
    return Table(f"{name}: parts, by the closed forms", ["what", "part", "count", "share %"], rows)


def summary_report(variants: Sequence[str] | None = None, *, layers_of: str | None = None, depth: int = 2) -> Report:
    """Parameters and MACs of the variants, and where they are spent.

    Args:
        variants: Names of :func:`~tnt_vit.checkpoints.zoo.list_models` (``tnt_s`` is short for
            ``tnt_s_patch16_224``); all if not given.
        layers_of: A variant to show layer by layer as well.
        depth: How deep that table goes: 1 for the model's direct children, 2 for the blocks one by one, 3 for what is
            in them.

    Returns:
        Tables "Variants" (beside the paper's figures), "Where the MACs go" and "PyramidTNT"; with ``layers_of`` also
        its parts (of a TNT) and its layers.

    Raises:
        ValueError: If a variant is unknown or ``depth`` is negative.

    Example:
        >>> summary_report(["tnt_s"]).tables[0].rows[0][3]
        23768584
    """
    if isinstance(variants, str):
        raise UserError(f"variants={variants!r} must be a list of names; give variants=[{variants}]")
    names = list_models() if variants is None else [_full_name("variants", name) for name in variants]
    if not names:
        raise UserError(f"variants is an empty list; name one of {', '.join(list_models())}, or leave it out for all")
    pyramids = [name for name in names if name in PYRAMIDS]
    flat = [name for name in names if name in VARIANTS]
    tables = [_variant_table(flat), _split_table(flat)] if flat else []
    if pyramids:
        tables.append(_pyramid_table(pyramids))
    if layers_of is not None and (name := _full_name("layers_of", layers_of)) in PYRAMIDS:
        tables.append(pyramid_cost(name).table(depth, title=f"{name}: layers"))
    elif layers_of is not None:
        with torch.device("meta"):
            # The reference path: the paper's arithmetic, not the folded stem, which spends more MACs to be faster.
            model = create_model(name, backend="reference")
        cost = measure_image(model, model.img_size, model.in_chans)
        tables += [_parts_table(name), cost.table(depth, title=f"{name}: layers")]
    return Report("TNT: parameters and MACs", tables)


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit summary`` does.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If a variant is unknown or ``depth`` is negative.
    """
    given = options(cfg, "variants", "layers_of", "depth")
    check_arguments(summary_report, given)
    return summary_report(**given)
