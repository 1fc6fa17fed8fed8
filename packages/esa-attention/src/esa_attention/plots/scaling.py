"""Time and bytes of a step against the length of the cache, beside the bound that memory sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from effkit.errors import UserError, choose
from effkit.plots import joined
from esa_attention.plots.canvas import (
    Curves,
    canvas,
    check_curves,
    check_rising,
    colours,
    label,
    label_ends,
    last_point,
    length_axis,
    note,
    save,
)

__all__ = ["bytes_curves", "time_curves"]


class _Kind(NamedTuple):
    """What is drawn: the argument's name, the axis, the word for less of it, units from the largest."""

    field: str
    axis: str
    better: str
    units: tuple[tuple[str, float], ...]


def time_curves(
    lengths: Sequence[int],
    seconds: Curves,
    path: str | os.PathLike[str],
    *,
    bounds: Curves | None = None,
    spread: Mapping[str, tuple[Any, Any]] | None = None,
    baseline: str | None = None,
    title: str = "Time of a decoding step, one layer",
    remark: str = "",
) -> Path:
    """Draw time against length, both logarithmic.

    Args:
        lengths: Tokens in the cache, rising.
        seconds: ``(len(lengths),)`` by method; NaN where not measured.
        path: The PNG.
        bounds: ``(len(lengths),)`` by method: the least time that its bytes or operations allow; dashed, in the colour
            of the method, or grey for names that are no method's.
        spread: Lower and upper quantile by method, shaded.
        baseline: A method that the labels compare the others with, at the longest length.
        title: Of the picture.
        remark: A line above the axes: machine, type, heads.

    Returns:
        The path.

    Raises:
        UserError: If a shape does not fit or a value is not positive.
    """
    kind = _Kind("seconds", "time", "faster", (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)))
    return _scaling(kind, lengths, seconds, path, bounds, spread or {}, baseline, title, remark)


def bytes_curves(
    lengths: Sequence[int],
    read: Curves,
    path: str | os.PathLike[str],
    *,
    bounds: Curves | None = None,
    baseline: str | None = None,
    title: str = "Bytes read by a decoding step, one layer",
    remark: str = "",
) -> Path:
    """Draw bytes against length, both logarithmic; arguments as for :func:`time_curves`.

    Args:
        lengths: Tokens in the cache, rising.
        read: Bytes, ``(len(lengths),)`` by method.
        path: The PNG.
        bounds: Lines that bytes cannot fall below.
        baseline: A method that the labels compare the others with.
        title: Of the picture.
        remark: A line above the axes.

    Returns:
        The path.

    Raises:
        UserError: If a shape does not fit or a value is not positive.
    """
    kind = _Kind("read", "bytes read", "fewer", (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0)))
    return _scaling(kind, lengths, read, path, bounds, {}, baseline, title, remark)


def _scaling(
    kind: _Kind,
    lengths: Sequence[int],
    curves: Curves,
    path: str | os.PathLike[str],
    bounds: Curves | None,
    spread: Mapping[str, tuple[Any, Any]],
    baseline: str | None,
    title: str,
    remark: str,
) -> Path:
    from matplotlib.ticker import LogLocator, NullLocator

    x = check_rising("lengths", lengths, 1)
    checked = _positive(kind.field, curves, len(x))
    limits = {} if bounds is None else _positive("bounds", bounds, len(x))
    if baseline is not None:
        choose("baseline", baseline, list(checked))
    palette = colours(list(checked))
    typical = float(np.exp(np.nanmean([np.log(v) for v in checked.values()])))
    name_of_unit, scale = next((u for u in kind.units if typical >= u[1]), kind.units[-1])
    with canvas(title, 7.6, 4.4) as fig:
        ax = fig.subplots()
        ends = []
        for name, values in checked.items():
            ax.plot(x, values / scale, color=palette[name], marker="o", markersize=4, zorder=3)
            text = label(name) + _compared(checked, name, baseline, kind.better)
            ends.append((*last_point(x, values / scale), text, palette[name]))
        for name, (low, high) in spread.items():
            choose("spread", name, list(checked))
            band = _positive("spread", {"low": low, "high": high}, len(x))
            ax.fill_between(x, band["low"] / scale, band["high"] / scale, color=palette[name], alpha=0.18, linewidth=0)
        for name, values in limits.items():
            colour = palette.get(name, "#8C8C8C")
            ax.plot(x, values / scale, color=colour, linewidth=1.1, linestyle=(0, (4, 3)), zorder=2)
            if name not in palette:
                ends.append((*last_point(x, values / scale), label(name), colour))
        of_method = any(name in palette for name in limits)
        note(ax, "; ".join(filter(None, [remark, "dashed: what bytes and operations allow" if of_method else ""])))
        ax.set_yscale("log")
        length_axis(ax, x)
        ax.margins(x=0.012)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(_plain_number)
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("tokens in the cache")
        ax.set_ylabel(f"{kind.axis}, {name_of_unit}")
        label_ends(ax, ends)
        said = [
            f"{label(name)} {last_point(x, values / scale)[1]:.3g} {name_of_unit}"
            + _compared(checked, name, baseline, kind.better).replace("\n", ", ")
            for name, values in checked.items()
        ]
        reach = f"the longest with {x[-1]:,.0f}"
        seen = f"Line chart of {kind.axis} by tokens in the cache, both logarithmic; {reach}: {joined(said)}."
        return save(fig, path, seen)


def _positive(field: str, curves: Curves, length: int) -> dict[str, Any]:
    checked = check_curves(field, curves, length)
    for name, values in checked.items():
        if bool((values <= 0).any()):
            raise UserError(f"{field}[{name!r}] must be positive, got {np.nanmin(values):g}")
    return checked


def _compared(curves: dict[str, Any], name: str, baseline: str | None, better: str) -> str:
    if baseline is None or name == baseline or np.isnan(curves[name][-1]) or np.isnan(curves[baseline][-1]):
        return ""
    return f"\n{curves[baseline][-1] / curves[name][-1]:.1f}× {better}"


def _plain_number(value: float, _: float) -> str:
    return f"{value:g}"
