"""What a method costs and what it gives: points of time and PSNR, bars of variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png

__all__ = ["Point", "draw_ablation", "draw_tradeoff"]


@dataclass(frozen=True)
class Point:
    """One method.

    Attributes:
        name: Its name.
        psnr: dB.
        milliseconds: Median for one picture.
        spread: 20 and 80 % quantiles of these.
    """

    name: str
    psnr: float
    milliseconds: float
    spread: tuple[float, float] | None = None


def draw_tradeoff(points: Sequence[Point], path: Path, title: str, *, gain: bool = False) -> Path:
    """Draw PSNR against time; further to the upper left is better.

    Args:
        points: The methods.
        path: PNG file to write.
        title: Of the picture.
        gain: The dB are those over cubic interpolation.
    """
    with figure(6.4, 4.0) as fig:
        ax = fig.subplots()
        for number, point in enumerate(points):
            colour = PLOT_COLOURS[number % len(PLOT_COLOURS)]
            if point.spread is not None:
                ax.plot(point.spread, [point.psnr] * 2, color=colour, linewidth=1.2, alpha=0.6)
            ax.plot(point.milliseconds, point.psnr, "o", color=colour, markersize=8)
            last = point.milliseconds == max(p.milliseconds for p in points)
            ax.annotate(
                point.name,
                (point.milliseconds, point.psnr),
                xytext=(-8 if last else 8, 7 if number % 2 == 0 else -15),  # names of equal height must not meet
                textcoords="offset points",
                ha="right" if last else "left",
                fontsize=9,
                color=colour,
            )
        ax.margins(x=0.15, y=0.2)
        ax.set_xlim(left=0)
        ax.set_xlabel("milliseconds a picture (line: 20 to 80 % of the rounds)")
        ax.set_ylabel("dB over cubic interpolation" if gain else "PSNR of the luma, dB")
        ax.set_title(title)
        parts = [f"{p.name} {p.psnr:.2f} dB in {p.milliseconds:.3g} ms" for p in points]
        what = "the gain over cubic interpolation" if gain else "PSNR"
        describe(fig, f"Points of {what} against the time for one picture: {joined(parts, most=8)}.")
        return save_png(fig, path)


def draw_ablation(
    gains: Mapping[str, Sequence[float]], path: Path, title: str, *, floor: tuple[str, float] | None = None
) -> Path:
    """Draw what variants gain over cubic interpolation, a bar each, a point a seed.

    Args:
        gains: dB over cubic interpolation, one a seed, by the variant's name.
        path: PNG file to write.
        title: Of the picture.
        floor: A line to compare with, its name and height.
    """
    with figure(1.6 + 1.05 * len(gains), 3.8) as fig:
        ax = fig.subplots()
        means = {name: sum(values) / len(values) for name, values in gains.items()}
        for number, (name, values) in enumerate(gains.items()):
            ax.bar(number, means[name], width=0.65, color=PLOT_COLOURS[number % len(PLOT_COLOURS)], alpha=0.85)
            ax.annotate(
                f"{means[name]:+.2f}", (number, max(0.0, *values)), xytext=(0, 4), textcoords="offset points",
                ha="center", fontsize=9,
            )  # fmt: skip
            if len(values) > 1:
                ax.plot([number] * len(values), values, "o", color="black", markersize=3)
        if floor is not None:
            ax.axhline(floor[1], color="black", linewidth=1.0, linestyle="--", label=floor[0])
            fig.legend(loc="outside lower center", fontsize=9)
        ax.set_xticks(range(len(gains)), [name.replace(" ", "\n", 1) for name in gains], fontsize=9)
        ax.grid(False, axis="x")
        ax.margins(y=0.12)
        ax.set_ylabel("dB over cubic interpolation")
        ax.set_title(title)
        parts = [f"{name} {mean:+.2f} dB" for name, mean in means.items()]
        describe(fig, f"Bars of what variants gain over cubic interpolation: {joined(parts, most=8)}.")
        return save_png(fig, path)
