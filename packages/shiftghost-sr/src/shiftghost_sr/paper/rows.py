"""Every published figure as a row that is checked, or that says why it cannot be here."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from functools import partial
from typing import Any

from effkit.papers import Paper, collect_rows
from effkit.rows import Row, Tolerance, counted_row
from shiftghost_sr.paper import figures

__all__ = ["ORDER", "PAPER", "paper_rows"]

ORDER = ["abstract", "models", "ratios", "deployed", "accuracy"]

_FRAME = "structural count of the network, HR frame 1280 x 720"


@functools.lru_cache(maxsize=64)
def _counted(name: str, scale: int, form: str, direction: str | None = None, intrinsic: float = 0.5) -> Any:
    from shiftghost_sr.compression.count import count_module
    from shiftghost_sr.compression.forms import build_form

    ghost = {"preset": "official", "ghost_ratio": 1 - intrinsic}
    model = build_form(name, scale, ghost, form, direction, diagonal="taps")
    return count_module(model, challenge=False)


def _params(*which: Any) -> float:
    return _counted(*which).params


def _logits(*which: Any) -> float:
    return _counted(*which).logits


def _giga(*which: Any) -> float:
    return round(_counted(*which).macs / 1e9, 1)


_row = partial(counted_row, source=_FRAME)


def _saved(what: str) -> float:
    dense, ghost = _counted("edsr", 2, "dense"), _counted("edsr", 2, "ghost", "stay")
    return round(100 * (1 - getattr(ghost, what) / getattr(dense, what)), 2)


def abstract_rows() -> list[Row]:
    """What the paper's abstract says of EDSR x2."""
    rows = []
    for metric, what in (("params", "params"), ("MACs", "macs")):
        rows.append(
            Row(
                "abstract", "EDSR x2", f"{metric} saved", figures.ABSTRACT[metric], "%", "abstract, version 2",
                "printed", partial(_saved, what), Tolerance("abs", 0.5), command="shiftghost-sr count model=edsr",
            )
        )  # fmt: skip
    rows.append(
        Row(
            "abstract", "EDSR x2", "GPU latency saved", figures.ABSTRACT["GPU latency"], "%", "abstract, version 2",
            "printed", not_measured="the GPU that it was measured on is not named",
            command="shiftghost-sr bench model=edsr",
        )
    )  # fmt: skip
    return rows


def model_rows() -> list[Row]:
    """Parameters and MACs of every network, dense and with half of the body's channels as ghosts."""
    rows = []
    for (name, scale), (params, macs, ghost_params, logits, ghost_macs) in figures.MODELS.items():
        title, how = f"{name} x{scale}", {"command": f"shiftghost-sr count model={name} scale={scale} ghost=official"}
        dense, ghost = (name, scale, "dense"), (name, scale, "ghost", "stay")
        rows.append(_row("models", f"{title}, dense", "params", params, partial(_params, *dense), **how))
        rows.append(_row("models", f"{title}, dense", "MACs", macs, partial(_giga, *dense), unit="G", **how))
        rows.append(_row("models", f"{title}, ghost", "params", ghost_params, partial(_params, *ghost), **how))
        rows.append(_row("models", f"{title}, ghost", "logits", logits, partial(_logits, *ghost), **how))
        rows.append(_row("models", f"{title}, ghost", "MACs", ghost_macs, partial(_giga, *ghost), unit="G", **how))
    return rows


def ratio_rows() -> list[Row]:
    """EDSR x2 with other shares of intrinsic maps."""
    rows = []
    for intrinsic, (params, macs) in figures.RATIOS.items():
        which = ("edsr", 2, "ghost", "stay", intrinsic)
        how = {"command": f"shiftghost-sr count ghost={{ghost_ratio:{1 - intrinsic}}}"}
        title = f"edsr x2, {intrinsic:g} intrinsic"
        rows.append(_row("ratios", title, "params", params, partial(_params, *which), **how))
        rows.append(_row("ratios", title, "MACs", macs, partial(_giga, *which), unit="G", **how))
    return rows


def _per_pixel(*which: Any) -> float:
    return _counted(*which).macs / (720 * 1280)


def deployed_rows() -> list[Row]:
    """What is left once shifts are folded away, by where they point; border lines not counted."""
    rows = []
    for name, triple in figures.DEPLOYED.items():
        for direction, figure in zip(("stay", "axis", "diagonal"), triple, strict=True):
            which = (name, 2, "deployed", direction)
            how: dict[str, Any] = {"command": f"shiftghost-sr count model={name} direction={direction}"}
            compute, metric = partial(_giga, *which), "MACs"
            if name == "vdsr":
                compute, metric = partial(_per_pixel, *which), "MACs per HR pixel"
            else:
                how["unit"] = "G"
            rows.append(_row("deployed", f"{name} x2, {direction}", metric, figure, compute, **how))
    return rows


def accuracy_rows() -> list[Row]:
    """What only trained networks can show."""
    rows = []
    for name, figure in figures.OFFICIAL_PSNR.items():
        rows.append(
            Row(
                "accuracy", f"EDSR-GhostSR x2, {name}", "PSNR", figure, "dB",
                source="readme of the official release, self-ensemble", evidence="found",
                not_measured=figures.NOT_AVAILABLE,
            )
        )  # fmt: skip
    return rows


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated.

    Args:
        table: Only these of :data:`ORDER`; all if not given.

    Raises:
        UserError: If there is no such table; names those that are.
    """
    parts = [abstract_rows, model_rows, ratio_rows, deployed_rows, accuracy_rows]
    return collect_rows(parts, ORDER, table)


PAPER = Paper(
    name="shiftghost-sr",
    distribution="shiftghost-sr",
    title="GhostSR: Learning Ghost Features for Efficient Image Super-Resolution",
    reference=(
        "Ying Nie, Kai Han, Zhenhua Liu, Chuanjian Liu, Yunhe Wang: GhostSR: Learning Ghost Features for Efficient "
        "Image Super-Resolution. TMLR (2022)."
    ),
    rows=paper_rows,
    claim="shiftghost_sr.paper.claim:run_claim",
    command="shiftghost-sr reproduce",
)
