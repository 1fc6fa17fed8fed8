"""Measure what every operator does to a teacher's answers, magnitude by magnitude.

Each operator is applied alone, to the same pictures with the same random numbers at every magnitude (draws are keyed by
picture and view), so that cells differ by the operator and its magnitude only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.progress import report_progress
from kd_autoaug.analysis.result import CLEAN, POLICY, AnalysisResult, Cell
from kd_autoaug.analysis.statistics import label_entropy
from kd_autoaug.analysis.study import Predictor, ProbeFactory, Study
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.distillation.chance import accuracy_of
from kd_autoaug.ops.operators import ARGUMENTS, operator

_log = logging.getLogger(__name__)

__all__ = ["analyze"]


def analyze(
    teacher: Predictor,
    images: Tensor,
    labels: Tensor,
    *,
    operators: Sequence[str],
    magnitudes: Sequence[float],
    space: str,
    draws: int = 4,
    seed: int = 0,
    probe: ProbeFactory | None = None,
    confirm: ProbeFactory | None = None,
    batch_size: int = 256,
    policy_layers: int = 2,
    policies: Sequence[Policy] = (),
    extrapolate: bool = False,
    class_names: Sequence[str] | None = None,
    index: Tensor | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    worst: int = 2,
) -> AnalysisResult:
    """Measure operators and magnitudes.

    Args:
        teacher: The frozen classifier.
        images: uint8 ``(n, C, H, W)``, pictures that it was not trained on.
        labels: int64 ``(n,)``.
        operators: Names such as ``"shear_x"``.
        magnitudes: In the units of the space.
        space: What a magnitude means: ``"tf_tpu"``, ``"timm"``, ``"linear"`` ...
        draws: Views of each picture in each cell.
        seed: Of the views, of the intervals and of the folds of the calibration.
        probe: Also train a probe in every cell and report what it says, in columns of its own.
        confirm: Trains the probe again, longer, in cells where the first one found little: a cell is flagged only if
            that one fails too.
        batch_size: Pictures asked about at once.
        policy_layers: Also measure this many of the operators one after the other, drawn with replacement; 0 does not.
        policies: Further policies, each measured as it is, without a magnitude.
        extrapolate: Allow magnitudes outside the space, as TensorFlow's code does.
        class_names: By label; numbers if not given.
        index: Keys of the pictures, int64 ``(n,)``; 0..n-1 if not given.
        resamples: Of the bootstrap.
        level: Of the intervals.
        worst: Pictures per cell to keep for the gallery.

    Returns:
        The grid.

    Raises:
        UserError: If an argument is out of range, or an operator or magnitude is not in the space.
    """
    _check(images, labels, operators, magnitudes, draws, batch_size, policy_layers)
    index = torch.arange(len(images), device=images.device) if index is None else index
    plan = _plan(operators, sorted(set(map(float, magnitudes))), space, policy_layers, policies, extrapolate)
    study = Study(
        teacher,
        probe,
        images,
        labels,
        index,
        confirm=confirm,
        draws=draws,
        batch_size=batch_size,
        seed=seed,
        worst=worst,
    )
    classes = study.clean.shape[-1]
    names = [str(c) for c in (range(classes) if class_names is None else class_names)]
    if len(names) != classes:
        raise UserError(f"class_names holds {len(names)} names, but the teacher knows {classes} classes")
    _log.info(str(accuracy_of(study.clean, labels)))
    clean = study.measure(CLEAN, None, None)
    measured: dict[tuple[str, float | None], Cell] = {}
    keys = [_key(name, magnitude) for name, magnitude, _ in plan]
    for number, (key, (name, magnitude, policy)) in enumerate(zip(keys, plan, strict=True)):
        report_progress(Cell(name, magnitude).name, (number + 1) / (len(plan) + 1))
        if key not in measured:
            measured[key] = study.measure(name, magnitude, policy)
    study.intervals(resamples, level)
    cells = [replace(measured[key], magnitude=magnitude) for key, (_, magnitude, _) in zip(keys, plan, strict=True)]
    settings = {
        "pictures": len(images),
        "draws": draws,
        "space": space,
        "extrapolate": extrapolate,
        "policy_layers": policy_layers,
        "seed": seed,
        "resamples": resamples,
        "level": level,
        "batch_size": batch_size,
        "probe": probe is not None,
    }
    return AnalysisResult(cells, clean, names, label_entropy(study.labels, classes), settings)


def _key(name: str, magnitude: float | None) -> tuple[str, float | None]:
    """Operators without an argument make the same views at every magnitude: they are measured once."""
    if magnitude is not None and name != POLICY and ARGUMENTS[operator(name)] == "none":
        return name, None
    return name, magnitude


def _check(
    images: Tensor,
    labels: Tensor,
    operators: Sequence[str],
    magnitudes: Sequence[float],
    draws: int,
    batch_size: int,
    layers: int,
) -> None:
    if images.ndim != 4 or images.dtype != torch.uint8 or len(images) < 1:
        raise UserError(f"images must be uint8 (n, C, H, W) with n >= 1, got {images.dtype} {tuple(images.shape)}")
    if labels.shape != (len(images),):
        raise UserError(f"labels must be ({len(images)},), one per picture; got {tuple(labels.shape)}")
    if isinstance(operators, str) or not operators or len(set(operators)) != len(operators):
        raise UserError(f"operators={operators!r} must be a list that names each operator once")
    if not magnitudes:
        raise UserError("magnitudes is empty: give at least one, in the units of the space")
    for name, value, least in (("draws", draws, 1), ("batch_size", batch_size, 1), ("policy_layers", layers, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{name}={value!r} must be a whole number of at least {least}")
    for name in operators:
        operator(name)


def _plan(
    operators: Sequence[str],
    magnitudes: Sequence[float],
    space: str,
    layers: int,
    policies: Sequence[Policy],
    extrapolate: bool,
) -> list[tuple[str, float | None, Policy]]:
    """Build every policy before anything is measured: a magnitude that the space lacks is refused at once."""

    def one(ops: Sequence[str], n: int, m: float) -> Policy:
        return Policy.random(ops=list(ops), n=n, m=m, space=space, prob=1.0, extrapolate=extrapolate)

    plan: list[tuple[str, float | None, Policy]] = [(o, m, one([o], 1, m)) for o in operators for m in magnitudes]
    if layers:
        plan += [(POLICY, m, one(operators, layers, m)) for m in magnitudes]
    return plan + [(p.name, None, p) for p in policies]
