"""Rows of parameters and MACs: counted here and now, on the meta device, without downloads or memory.

Models are built with ``backend="reference"``, whose arithmetic is the paper's (the 7x7 convolution inside each patch).
Where the paper counted something else than live parameters or single rounding, the metric's name says what is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from effkit.cost import Cost, measure_image, on_meta
from effkit.rows import Row, Tolerance, counted_network
from tnt_vit.checkpoints.zoo import create_model
from tnt_vit.model import TNT
from tnt_vit.paper import figures
from tnt_vit.paper.closed_forms import Sizes, dead_params, estimated_block_macs

__all__ = [
    "complexity_rows",
    "context_cost_rows",
    "cost_rows",
    "pyramid_cost",
    "pyramid_cost_rows",
    "timm_cost",
    "variant_cost",
]

COUNTED = "structural count of the official design"
README = "readme of the official code"
ROUND = Tolerance("rounds_to")
DEAD_TABLE = "; includes outer_tokens, a table of the official code that nothing reads"


@cache
def variant_cost(variant: str, **overrides: Any) -> tuple[Sizes, Cost]:
    """Sizes and cost of a variant for one picture of its own size.

    Args:
        variant: One of :func:`~tnt_vit.checkpoints.zoo.list_models`.
        **overrides: Arguments of :class:`~tnt_vit.model.TNT`; hashable.
    """
    model = on_meta(lambda: create_model(variant, backend="reference", **overrides))
    assert isinstance(model, TNT)
    return Sizes.of(model), measure_image(model, model.img_size, model.in_chans)


@cache
def pyramid_cost(variant: str) -> Cost:
    """Cost of a PyramidTNT for one picture of its own size."""
    model = on_meta(lambda: create_model(variant))
    return measure_image(model, model.img_size, model.in_chans)


@cache
def timm_cost(name: str, img_size: int) -> tuple[Cost, int]:
    """Cost of a timm model for one picture, and how many of its parameters are position tables and tokens."""
    import timm

    model = on_meta(lambda: timm.create_model(name))
    loose = sum(p.numel() for p in model.parameters(recurse=False))
    return measure_image(model, img_size), loose


def _row(table: str, name: str, metric: str, figure: float | None, compute: Callable[[], float], **more: Any) -> Row:
    defaults = {"unit": "", "source": f"Table {table}", "evidence": "printed", "tolerance": ROUND}
    return Row(table=table, name=name, metric=metric, paper=figure, compute=compute, **{**defaults, **more})


def _exact(table: str, name: str, variant: str) -> list[Row]:
    """Whole counts of a variant: against a count made in the official design where there is one."""
    known: tuple[float | None, float | None] = figures.EXACT.get(variant) or (None, None)

    def count(which: str) -> int:
        cost = variant_cost(variant)[1]
        return {"params": cost.params, "macs": cost.macs}[which]

    return counted_network(table, name, known, count, source=COUNTED, tolerance=Tolerance("exact"))


def _printed_params(table: str, name: str, variant: str, figure: float) -> Row:
    def count() -> float:
        sizes, cost = variant_cost(variant)
        return (cost.params + dead_params(sizes)) / 1e6

    source = f"Table {table}{DEAD_TABLE}"
    return _row(table, name, "params with unused table", figure, count, unit="M", source=source)


def _printed_macs(table: str, name: str, variant: str, figure: float) -> Row:
    def count() -> float:
        return variant_cost(variant)[1].macs / 1e9

    if variant == "tnt_b_patch16_224":
        source = f"Table {table}; 14.049 rounds to 14.0, and the printed 14.1 is 14.05 rounded once more"
        return _row(table, name, "MACs in two decimals", figure, lambda: round(count(), 2), unit="G", source=source)
    return _row(table, name, "MACs", figure, count, unit="G")


def cost_rows() -> list[Row]:
    """Sizes of TNT itself: Tables 1, 4, 5, 8, 9, 12 and the legacy variant."""
    rows: list[Row] = []
    for name, trained in figures.IMAGENET.items():
        for table in ["12"] if "SE" in name else ["1", "4"]:
            rows.append(_printed_params(table, name, trained.variant, trained.params))
            rows.append(_printed_macs(table, name, trained.variant, trained.macs))
        rows += _exact("12" if "SE" in name else "1", name, trained.variant)
    for name, hybrid in figures.HYBRIDS.items():
        if hybrid.variant:
            rows.append(_printed_macs("5", name, hybrid.variant, hybrid.macs))
            rows += _exact("5", name, hybrid.variant)
    for kind in figures.WORDS:
        name = f"{kind.words} words of width {kind.width}"
        rows.append(_printed_params("8", name, kind.variant, kind.params))
        rows.append(_printed_macs("8", name, kind.variant, kind.macs))
        rows += _exact("8", name, kind.variant)
    for name in ("TNT-S@384", "TNT-B@384"):
        rows += _exact("9", name, f"tnt_{name[4].lower()}_patch16_384")
    return [*rows, *_exact("legacy", "TNT-S legacy", "tnt_s_legacy_patch16_224")]


def pyramid_cost_rows() -> list[Row]:
    """Sizes of PyramidTNT, beside the readme of the official code and exact counts made in that code."""
    rows: list[Row] = []
    for name, pyramid in figures.PYRAMIDS.items():
        rows += _pyramid_rows(name, pyramid)
    return rows


def _pyramid_rows(name: str, pyramid: figures.Pyramid) -> list[Row]:
    def millions() -> float:
        return pyramid_cost(pyramid.variant).params / 1e6

    def giga() -> float:
        return pyramid_cost(pyramid.variant).macs / 1e9

    found = {"source": README, "evidence": "found"}
    first = _row("pyramid", name, "params", pyramid.params, millions, unit="M", **found)
    if pyramid.variant == "pyramid_tnt_m":
        found["source"] += "; 84.94 rounds to 84.9, and 85.0 is the whole number of millions"
        first = _row(
            "pyramid", name, "params, whole", pyramid.params, lambda: float(round(millions())), unit="M", **found
        )
    known = figures.EXACT.get(pyramid.variant)
    same = {"source": COUNTED, "evidence": "computed", "tolerance": Tolerance("exact")}
    return [
        first,
        _row("pyramid", name, "MACs", pyramid.macs, giga, unit="G", source=README, evidence="found"),
        _row(
            "pyramid", name, "params, all", known and known.params, lambda: pyramid_cost(pyramid.variant).params, **same
        ),
        _row("pyramid", name, "MACs, all", known and known.macs, lambda: pyramid_cost(pyramid.variant).macs, **same),
    ]


def _peer(table: str, name: str, metric: str, figure: float, model: str, img_size: int) -> Row:
    def params() -> float:
        return timm_cost(model, img_size)[0].params / 1e6

    def layers_only() -> float:
        cost, loose = timm_cost(model, img_size)
        return (cost.params - loose) / 1e6

    def macs() -> float:
        return timm_cost(model, img_size)[0].macs / 1e9

    source = f"Table {table}, counted in timm's {model}"
    if metric == "MACs":
        return _row(table, name, metric, figure, macs, unit="G", source=source)
    if name == "DeiT-B":
        metric = "params without class token and positions"
        source += "; 86.57 with them, 86.4 without"
        return _row(table, name, metric, figure, layers_only, unit="M", source=source)
    return _row(table, name, metric, figure, params, unit="M", source=source)


def context_cost_rows() -> list[Row]:
    """Sizes of the models that Table 4 puts beside TNT, and DeiT-S in Table 5, where timm has them."""
    rows: list[Row] = []
    for name, model in figures.CONTEXT.items():
        for metric, figure, unit in (("params", model.params, "M"), ("MACs", model.macs, "G")):
            reason = ""
            if not model.timm:
                reason = "timm does not have this model (PVT v2 and Twins are others)"
            elif (name, metric) == ("EfficientNet-B4", "MACs"):
                reason = (
                    "convolutions and linear maps of timm's tf_efficientnet_b4 at 380x380 are 4.39 G; the paper quotes "
                    "that model's own 4.2, whose way of counting is not stated"
                )
            if reason:
                rows.append(Row("4", name, metric, figure, unit, "Table 4", "printed", not_measured=reason))
            else:
                rows.append(_peer("4", name, metric, figure, model.timm, model.img_size))
    deit = "deit_small_patch16_224"
    same = {"source": "structural count of timm's deit_small_patch16_224", "evidence": "computed"}
    return [
        *rows,
        _peer("5", "DeiT-S", "MACs", figures.HYBRIDS["DeiT-S"].macs, deit, 224),
        _row("5", "DeiT-S", "params", 22_050_664, lambda: timm_cost(deit, 224)[0].params, **same),
        _row("5", "DeiT-S", "MACs", 4_599, lambda: timm_cost(deit, 224)[0].macs / 1e6, unit="M", **same),
    ]


def complexity_rows() -> list[Row]:
    """The estimate of section 2.2 for one block of TNT-S, which leaves out class token, norms and biases."""
    sizes = Sizes()
    c, d, m = sizes.inner_dim, sizes.embed_dim, sizes.words

    def weights_ratio() -> float:
        ratio = (12 * c * c + m * c * d + 12 * d * d) / (12 * d * d)
        return int(100 * ratio) / 100

    def ratio() -> float:
        return estimated_block_macs(sizes) / estimated_block_macs(sizes, inner=False)

    same = {"source": "section 2.2"}
    cut = {"source": "section 2.2; 1.087 rounds to 1.09, the text says 1.08"}
    return [
        _row(
            "complexity",
            "plain block",
            "MACs",
            376,
            lambda: estimated_block_macs(sizes, inner=False) / 1e6,
            unit="M",
            **same,
        ),
        _row("complexity", "TNT block", "MACs", 429, lambda: estimated_block_macs(sizes) / 1e6, unit="M", **same),
        _row("complexity", "TNT over plain block", "MACs, ratio", 1.14, ratio, **same),
        _row("complexity", "TNT over plain block", "weights, ratio, cut to two decimals", 1.08, weights_ratio, **cut),
    ]
