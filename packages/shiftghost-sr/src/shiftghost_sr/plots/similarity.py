"""How alike the filters of a layer are: what a ghost has to stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effkit.plots import describe, figure, save_png

__all__ = ["cosines", "draw_similarity"]


def cosines(weight: NDArray) -> NDArray:
    """Cosine of every filter with every other.

    Args:
        weight: ``(c_out, c_in, k, k)``.

    Returns:
        ``(c_out, c_out)``; 0 where a filter is all zeros.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit @ unit.T


def draw_similarity(weight: NDArray, path: Path, title: str) -> Path:
    """Draw the matrix of cosines of a layer's filters, most alike ones beside each other.

    Args:
        weight: ``(c_out, c_in, k, k)``.
        path: PNG file to write.
        title: Of the picture.
    """
    matrix = cosines(weight)
    order = _ordered(matrix)
    matrix = matrix[np.ix_(order, order)]
    others = np.abs(matrix - np.eye(len(matrix)))
    with figure(5.4, 4.6) as fig:
        ax = fig.subplots()
        image = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        ax.grid(False)
        ax.set_xlabel("filter, most alike ones beside each other")
        ax.set_ylabel("filter")
        ax.set_title(title)
        fig.colorbar(image, ax=ax, label="cosine")
        best = others.max(1)
        describe(
            fig,
            f"A matrix of the cosines of {len(matrix)} filters with each other; the one most like a filter has a "
            f"cosine of {np.median(best):.2f} in the median and {best.max():.2f} at most.",
        )
        return save_png(fig, path)


def _ordered(matrix: NDArray) -> list[int]:
    """Start with the filter that is most like others, then always the one most like the last."""
    left = set(range(len(matrix)))
    order = [int(np.abs(matrix).sum(1).argmax())]
    left.remove(order[0])
    while left:
        rest = sorted(left)
        order.append(rest[int(matrix[order[-1]][rest].argmax())])
        left.remove(order[-1])
    return order
