"""Parameters and MACs of a network's forms."""

from __future__ import annotations

from typing import Any

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose
from effkit.report import Report, Table
from shiftghost_sr.commands.parts import plain, size_of
from shiftghost_sr.compression.count import Count, count, frame_of
from shiftghost_sr.compression.forms import DIRECTIONS
from shiftghost_sr.layers.config import read_ghost
from shiftghost_sr.models.zoo import MODELS

__all__ = ["count_report", "run"]

_NOTE = "MACs: multiply-adds of convolutions for the HR frame; a deployed network's border lines are their own column."
_CHALLENGE = "Memory: tensors alive at once in float32, weights not included; body: all before the upsampler."


def count_report(
    model: str, scale: int, ghost: Any, hr: tuple[int, int], direction: str, diagonal: str, size: dict[str, Any]
) -> Report:
    """Count a network's three forms.

    Args:
        model: Name of the network.
        scale: Of the network.
        ghost: Kind of ghosts.
        hr: Height and width of the frame that comes out.
        direction: Where the deployed form's shifts point: ``stay``, ``axis`` or ``diagonal``.
        diagonal: ``taps``, ``box`` or ``auto``: how a diagonal one is convolved.
        size: Other sizes than the model's own.

    Raises:
        UserError: If a value is not allowed.
    """
    found = count(model, scale, ghost, hr=hr, direction=direction, diagonal=diagonal, size=size)
    dense = found["dense"]
    rows, challenge = [], []
    for form, one in found.items():
        saved = [round(100 * (1 - part / whole), 2) for part, whole in _shares(one, dense)]
        rows.append([form, one.params, saved[0], one.macs, saved[1], one.border_macs, one.logits])
        at = one.challenge
        memory = [round(n / 2**20, 1) for n in (at.peak, at.body_peak)]
        challenge.append([form, one.challenge_macs, at.activations, at.convolutions, *memory])
    columns = ["form", "params", "saved %", "MACs", "saved %", "border MACs", "logits"]
    title = f"{model} x{scale}, HR frame {hr[0]} x {hr[1]}, shifts: {direction}"
    columns2 = ["form", "MACs", "activations", "convolutions", "peak MiB", "body peak MiB"]
    tables = [Table(title, columns, rows, _NOTE)]
    tables.append(Table("As challenges count, LR 256 x 256", columns2, challenge, _CHALLENGE))
    data = {form: one.to_dict() for form, one in found.items()}
    return Report("shiftghost-sr count", tables, data=data)


def _shares(one: Count, dense: Count) -> list[tuple[int, int]]:
    return [(one.params, dense.params), (one.macs, dense.macs)]


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr count`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value is not allowed.
    """
    options = plain(cfg)
    choose("model", options["model"], MODELS)
    check_arguments(count_report, {"scale": options["scale"]})
    choose("direction", options["direction"], DIRECTIONS)
    choose("diagonal", options["diagonal"], ("auto", "box", "taps"))
    if read_ghost(options["ghost"]) is None:
        raise UserError("ghost=null leaves nothing to compare; name a kind, e.g. ghost=default")
    size = size_of(cfg)
    keys = ("model", "scale", "ghost", "direction", "diagonal")
    return count_report(**{k: options[k] for k in keys}, hr=frame_of(options["hr"]), size=size)
