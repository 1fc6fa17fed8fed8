"""Picture of networks below the roof that the machine's products and its memory make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png
from tnt_vit.plots.survey import plain_log

__all__ = ["draw_roofline"]

_MOST_NAMES = 14  # beside points; of more, those highest and lowest below their roof are named


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
    xs = [x for points in networks.values() for x, _ in points]
    low, high = min(*xs, ridge) / 2, max(*xs, ridge) * 2
    colours = dict(zip(dict.fromkeys(groups.values()), PLOT_COLOURS, strict=False))
    with figure(width=7.5, height=4.8) as fig:
        axes = fig.subplots()
        axes.plot([low, ridge, high], [low * rate, peak, peak], color="#555555", linewidth=1.6)
        axes.text(high, peak, f"{peak:,.0f} GFLOP/s, large product", ha="right", va="bottom", fontsize=7.5)
        axes.text(
            low, low * rate, f"  {rate:,.1f} GB/s, large copy", ha="left", va="bottom", fontsize=7.5, rotation=0,
        )  # fmt: skip
        shares = {name: points[-1][1] / 1e9 / min(peak, points[-1][0] * rate) for name, points in networks.items()}
        ranked = sorted(shares, key=lambda name: -shares[name])
        named = ranked if len(ranked) <= _MOST_NAMES else ranked[: _MOST_NAMES // 2] + ranked[-_MOST_NAMES // 2 :]
        for number, (name, points) in enumerate(sorted(networks.items(), key=lambda item: item[1][-1])):
            x, y = np.array(points).T
            colour = colours[groups[name]]
            axes.plot(x, y / 1e9, color=colour, linewidth=1)
            axes.scatter(x[:-1], y[:-1] / 1e9, s=30, facecolors="white", edgecolors=colour, zorder=3)
            axes.scatter(x[-1], y[-1] / 1e9, s=34, color=colour, zorder=3)
            if name in named:  # neighbours one above and one below their points
                beside = {"xytext": (4, (4, -10)[number % 2]), "textcoords": "offset points"}
                axes.annotate(name, (x[-1], y[-1] / 1e9), fontsize=7, **beside)
        for group, colour in colours.items():
            axes.scatter([], [], s=34, color=colour, label=group)
        axes.scatter([], [], s=30, facecolors="white", edgecolors="#555555", label="hollow: smallest batch")
        axes.set(title=title, xlabel="FLOP for each byte moved", ylabel="GFLOP/s reached", xscale="log", yscale="log")
        axes.margins(y=0.1)
        plain_log(axes.xaxis, axes.yaxis)
        axes.legend(fontsize=8, loc="lower right")
        said = joined([f"{name} {100 * shares[name]:.0f} %" for name in ranked], most=5)
        describe(
            fig,
            f"Roofline plot of {len(networks)} networks below {peak:,.0f} GFLOP/s and {rate:,.1f} GB/s, with the share "
            f"of the roof that each reaches at its best batch: {said}.",
        )
        return save_png(fig, path)
