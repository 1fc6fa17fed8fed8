"""Measure a subject: the sweep over operators and magnitudes with the subject's own teacher, pictures and probes."""

from __future__ import annotations

from collections.abc import Sequence

from effkit.errors import UserError
from kd_autoaug.analysis.result import AnalysisResult
from kd_autoaug.analysis.subject import Subject
from kd_autoaug.analysis.sweep import analyze
from kd_autoaug.augmentation.policies.policy import Policy

__all__ = ["LONGER", "measure"]

LONGER = 4  # times the epochs of a probe that found little, before its cell is flagged


def measure(
    subject: Subject,
    *,
    operators: Sequence[str] | None = None,
    magnitudes: Sequence[float],
    space: str,
    extrapolate: bool = False,
    draws: int = 4,
    seed: int = 0,
    probe: bool = False,
    probe_epochs: int = 40,
    policies: Sequence[Policy] = (),
    policy_layers: int = 2,
    batch_size: int = 256,
    resamples: int = 1000,
    level: float = 0.95,
) -> AnalysisResult:
    """Run ``analyze`` on a subject; ``operators`` of ``None`` are those of the space.

    Raises:
        UserError: As ``analyze``.
    """
    if not magnitudes:
        raise UserError("magnitudes is empty: give at least one, in the units of the space")
    if operators is None:
        operators = Policy.random(n=1, m=float(magnitudes[0]), space=space, extrapolate=extrapolate).operators()
    result = analyze(
        subject.teacher,
        subject.images,
        subject.labels,
        operators=list(operators),
        magnitudes=list(magnitudes),
        space=space,
        extrapolate=extrapolate,
        draws=draws,
        seed=seed,
        probe=subject.probe(probe_epochs, seed) if probe else None,
        confirm=subject.probe(LONGER * probe_epochs, seed) if probe else None,
        policies=policies,
        policy_layers=policy_layers,
        batch_size=batch_size,
        class_names=subject.class_names,
        index=subject.index,
        resamples=resamples,
        level=level,
    )
    result.settings |= {"data": subject.name, "teacher": subject.teacher_name}
    if probe:
        result.settings |= {"probe_epochs": probe_epochs, "probe_pictures": len(subject.train_images)}
    return result
