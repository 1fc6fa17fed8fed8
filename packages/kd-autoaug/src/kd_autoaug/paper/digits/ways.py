"""The ways of training that the claim compares, as words of the command line."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONTROLS", "METHODS", "MILD", "STRENGTHS", "STRONG", "TEACHER_STRENGTH", "WAYS", "Way"]

STRENGTHS = (0.3, 1.0, 2.0)
"""Magnitudes of the augmentation in units of the usual range."""

MILD, STRONG = 0.3, 2.0
TEACHER_STRENGTH = 0.3


@dataclass(frozen=True)
class Way:
    """A way of training as words of the command line.

    Attributes:
        command: ``train`` or ``distill``.
        experiment: The experiment file.
        overrides: What differs from it.
    """

    command: str
    experiment: str
    overrides: tuple[str, ...] = ()


METHODS = {
    "CE": Way("train", "digits_ce"),
    "label smoothing": Way("train", "digits_ls"),
    "KD": Way("distill", "digits_kd"),
}
"""The ways that the claim compares."""

CONTROLS = {
    "KD, teacher sees the clean picture": Way("distill", "digits_kd", ("teacher_view=clean",)),
    "KD, teacher sees another view": Way("distill", "digits_kd", ("teacher_view=independent",)),
    "KD without labels": Way("distill", "digits_kd", ("loss.ce_weight=0",)),
    "CE, policy off for the last quarter": Way("train", "digits_ce", ("policy_until=0.75",)),
    "CE, every operator at full strength": Way("train", "digits_ce", ("policy.mstd=0",)),
    "KD, every operator at full strength": Way("distill", "digits_kd", ("policy.mstd=0",)),
}
"""Further ways, under strong augmentation only."""

WAYS = METHODS | CONTROLS
