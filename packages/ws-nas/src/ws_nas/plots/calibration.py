"""Raw and calibrated rank correlations, draw by draw."""

from __future__ import annotations

from pathlib import Path

from effkit.plots import PLOT_COLOURS, describe, figure, save_png
from ws_nas.meters.repair import Repair

__all__ = ["draw_repair"]


def draw_repair(found: Repair, path: Path, title: str) -> Path:
    """A line a draw, from the raw tau to the calibrated one; short bars at the means.

    Args:
        found: What calibration gained.
        path: PNG file to write.
        title: Of the picture.
    """
    with figure(4.6, 3.6) as fig:
        ax = fig.subplots()
        for a, b in zip(found.raw, found.calibrated, strict=True):
            ax.plot([0, 1], [a, b], "o-", color=PLOT_COLOURS[7], markersize=4, linewidth=1)
        for place, mean, colour in ((0, found.raw_mean, 1), (1, found.calibrated_mean, 0)):
            ax.plot([place - 0.12, place + 0.12], [mean, mean], color=PLOT_COLOURS[colour], linewidth=4)
        ax.set_xlim(-0.4, 1.4)
        ax.set_xticks([0, 1], ["raw score", f"calibrated with {found.known} results"])
        ax.set_ylabel("tau-b on the other architectures")
        ax.set_title(title)
        low, high = found.gain_interval
        describe(
            fig,
            f"Lines of {len(found.raw)} draws from raw to calibrated tau-b: means {found.raw_mean:.3f} and "
            f"{found.calibrated_mean:.3f}, gain {found.gain:+.3f} with 95 % interval {low:+.3f} to {high:+.3f}.",
        )
        return save_png(fig, path)
