"""Figures of a training: accuracy by epoch, and a gallery of answers with the mistakes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.plots import PLOT_COLOURS, describe, figure, joined, save_png

__all__ = ["draw_curves", "draw_gallery"]

_ROWS = 3


def draw_curves(curves: Mapping[str, Sequence[float]], floor: float, path: Path, *, title: str) -> Path:
    """Draw accuracies by epoch, in percent.

    Args:
        curves: Network to accuracy after each epoch.
        floor: Accuracy that a claim asks for.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=7, height=3.6) as fig:
        axes = fig.subplots()
        for name, curve in curves.items():
            axes.plot(range(1, len(curve) + 1), curve, label=f"{name}: {curve[-1]:.1f} % at the end")
        axes.axhline(floor, color=PLOT_COLOURS[-1], linestyle="--", linewidth=1, label=f"floor of the claim: {floor} %")
        axes.set(title=title, xlabel="epoch", ylabel="%", ylim=(0, 101))
        axes.legend(loc="lower right")
        epochs = max(len(curve) for curve in curves.values())
        ends = joined([f"{name} goes from {curve[0]:.1f} to {curve[-1]:.1f} %" for name, curve in curves.items()])
        describe(
            fig,
            f"Line chart of accuracy by epoch, {epochs} epochs: {ends}; a dashed line marks the {floor} % "
            "that the claim asks for.",
        )
        return save_png(fig, path)


def draw_gallery(pictures: Sequence[Any], answers: Sequence[tuple[int, int]], path: Path, *, title: str) -> Path:
    """Draw grey pictures with what was answered and what they are.

    Args:
        pictures: ``(H, W)`` each, dark where the number is small.
        answers: Guess and label of each.
        path: The PNG.
        title: Of the picture.
    """
    with figure(width=8, height=4.2) as fig:
        shown = zip(fig.subplots(_ROWS, -(-len(answers) // _ROWS)).flat, pictures, answers, strict=False)
        for axes, picture, (guess, label) in shown:
            axes.imshow(picture, cmap="gray_r")
            axes.set_axis_off()
            right = guess == label
            axes.set_title(str(guess) if right else f"{guess}, is {label}", color="black" if right else PLOT_COLOURS[1])
        fig.suptitle(title)
        wrong = [f"a {label} taken for a {guess}" for guess, label in answers if guess != label]
        mistakes = f"{len(wrong)} mistakes, {joined(wrong)}" if wrong else "all of them right"
        describe(fig, f"Gallery of {len(answers)} test pictures with the network's answers above them: {mistakes}.")
        return save_png(fig, path)
