"""Picture of networks below the roof that the machine's products and its memory make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png
from tnt_vit.plots.survey import plain_log

__all__ = ["draw_roofline"]

_MOST_NAMES = 14  # beside points; of more, those highest and lowest below their roof are named
_WIDE, _HIGH = 430, 260  # of the axes, in the points of a letter's size
_BESIDE = ((5, 3, "left"), (5, -9, "left"), (-5, 3, "right"), (-5, -9, "right"), (5, 13, "left"), (5, -19, "left"))


def draw_roofline(
    networks: Mapping[str, Sequence[tuple[float, float]]],
    floor: Mapping[str, float],
    path: Path,
    *,
    groups: Mapping[str, str],
    title: str,
) -> Path:
    """FLOP/s against FLOP a byte, a line a network from its first to its last point, below the roof.

    Args:
        networks: Name to (FLOP/byte, FLOP/s) at the smallest and at the best batch size; one point if they are one.
        floor: ``flops_per_second`` and ``bytes_per_second`` of the machine.
        path: The PNG.
        groups: Name to group, a colour each.
        title: Of the picture.
    """
    peak, rate = floor["flops_per_second"] / 1e9, floor["bytes_per_second"] / 1e9
    ridge = peak / rate
    places = {name: np.array(points, dtype=float) / [1, 1e9] for name, points in networks.items()}
    every = np.concatenate([*places.values(), [[ridge, peak]]])
    (low, least), (high, most) = every.min(axis=0) / [2, 1.5], every.max(axis=0) * [2, 1.4]
    shares = {name: float(at[-1, 1] / min(peak, at[-1, 0] * rate)) for name, at in places.items()}
    ranked = sorted(shares, key=lambda name: -shares[name])
    named = ranked if len(ranked) <= _MOST_NAMES else ranked[: _MOST_NAMES // 2] + ranked[-_MOST_NAMES // 2 :]
    colours = dict(zip(dict.fromkeys(groups.values()), PLOT_COLOURS, strict=False))
    with figure(width=7.5, height=4.8) as fig:
        axes = fig.subplots()
        ends = max(low, least / rate)
        axes.plot([ends, ridge, high], [ends * rate, peak, peak], color="#555555", linewidth=1.6)
        axes.text(high, peak, f"{peak:,.0f} GFLOP/s, large product ", ha="right", va="bottom", fontsize=7.5)
        axes.text(1.15 * ends, ends * rate, f"{rate:,.1f} GB/s, large copy", ha="left", va="center", fontsize=7.5)
        for name, at in places.items():
            colour = colours[groups[name]]
            axes.plot(at[:, 0], at[:, 1], color=colour, linewidth=1)
            axes.scatter(at[:-1, 0], at[:-1, 1], s=30, facecolors="white", edgecolors=colour, zorder=3)
            axes.scatter(at[-1, 0], at[-1, 1], s=34, color=colour, zorder=3)
        scale = np.array([_WIDE, _HIGH]) / np.log([high / low, most / least])
        spots = {name: np.log(at / [low, least]) * scale for name, at in places.items()}
        for name, (right, up, align) in _names_apart(spots, named).items():
            x, y = places[name][-1].tolist()
            axes.annotate(name, (x, y), xytext=(right, up), textcoords="offset points", fontsize=7, ha=align)
        for group, colour in colours.items():
            axes.scatter([], [], s=34, color=colour, label=group)
        axes.scatter([], [], s=30, facecolors="white", edgecolors="#555555", label="hollow: smallest batch")
        axes.set(title=title, xlabel="FLOP for each byte moved", ylabel="GFLOP/s reached", xscale="log", yscale="log")
        axes.set(xlim=(low, high), ylim=(least, most))
        plain_log(axes.xaxis, axes.yaxis)
        axes.legend(fontsize=8, loc="lower right")
        said = joined([f"{name} {100 * shares[name]:.0f} %" for name in ranked], most=5)
        describe(
            fig,
            f"Roofline plot of {len(networks)} networks below {peak:,.0f} GFLOP/s and {rate:,.1f} GB/s, with the share "
            f"of the roof that each reaches at its best batch: {said}.",
        )
        return save_png(fig, path)


def _names_apart(spots: Mapping[str, np.ndarray], named: Sequence[str]) -> dict[str, tuple[int, int, str]]:
    """Where each name stands beside its last point, so that few meet points or other names.

    Args:
        spots: Name to points ``(n, 2)``, in points of a letter's size.
        named: Which have a name.
    """
    taken = [(x - 3, y - 3, x + 3, y + 3) for at in spots.values() for x, y in at]
    found = {}
    for name in sorted(named, key=lambda name: -spots[name][-1, 1]):
        x, y = spots[name][-1]
        boxes = []
        for right, up, align in _BESIDE:
            left = x + right - (4 * len(name) if align == "right" else 0)
            boxes.append((left, y + up, left + 4 * len(name), y + up + 7))
        met = [sum(a < z and c > x and b < w and d > y for x, y, z, w in taken) for a, b, c, d in boxes]
        best = met.index(min(met))
        taken.append(boxes[best])
        found[name] = _BESIDE[best]
    return found
