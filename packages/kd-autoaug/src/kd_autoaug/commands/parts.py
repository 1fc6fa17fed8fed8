"""From a composed config to all parts of a training run at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from effkit.errors import UserError
from effkit.lightning.optim import plain_options
from kd_autoaug.commands.build import (
    build_augment,
    build_cache,
    build_data,
    build_loss,
    build_student,
    build_teacher,
    cache_path,
)
from kd_autoaug.training.data import ViewData
from kd_autoaug.training.module import DistillationModule, check_combination
from kd_autoaug.training.views import BatchViews

__all__ = ["Parts", "build_everything"]


@dataclass
class Parts:
    """What a training run is made of.

    Attributes:
        data: Pictures with sample and view numbers.
        student: The network to train.
        module: The Lightning module around it.
        teacher: What answers beside it, or ``None``.
        cache: Where its answers are kept, or ``None``.
    """

    data: ViewData
    student: nn.Module
    module: DistillationModule
    teacher: Any = None
    cache: Any = None


def build_everything(cfg: Mapping[str, Any], teacher: Any = None) -> Parts:
    """Build all parts of a training run.

    Args:
        cfg: Composed config of ``train`` or ``distill``.
        teacher: A ``Teacher`` in place of the one that the group ``teacher`` describes.

    Raises:
        UserError: If a value does not fit; nothing has been trained then.
    """
    if cfg.get("label_smoothing"):
        raise UserError(
            f"label_smoothing={cfg['label_smoothing']} is read from the loss here: loss.label_smoothing=..."
        )
    data, loss = build_data(cfg), build_loss(cfg)
    student = build_student(cfg, data)
    augment, plain = build_augment(cfg), build_augment(cfg, plain=True)
    if loss.weight == 0:
        teacher = None
    elif teacher is None:
        teacher = build_teacher(cfg, data)
    cache_mode = (plain_options(cfg.get("cache") or {})).get("mode") or "read"
    if loss.weight > 0:  # before a cache is begun
        check_combination(
            loss.weight, teacher=teacher is not None, cache=cache_path(cfg) is not None, cache_mode=cache_mode,
            mixed=_mixes(cfg), teacher_view=cfg.get("teacher_view") or "same",
        )  # fmt: skip
    cache = build_cache(cfg, data, augment, teacher, loss)
    module = DistillationModule(
        student,
        data.num_classes,
        loss=loss,
        preprocessing=data.preprocessing,
        views=BatchViews(augment, plain, cfg.get("teacher_view") or "same"),
        teacher=teacher,
        cache=cache,
        cache_mode=cache_mode,
        policy_until=_until(cfg),
        recipe=_recipe(cfg, data, augment, teacher),
        **{k: cfg.get(k) for k in ("optimizer", "scheduler", "mixup", "ema")},
    )
    return Parts(data, student, module, teacher, cache)


def _mixes(cfg: Mapping[str, Any]) -> bool:
    options = plain_options(cfg.get("mixup") or {})
    alphas = [options.get(name) for name in ("mixup_alpha", "cutmix_alpha")]
    return bool(options.get("cutmix_minmax")) or any(isinstance(a, int | float) and a > 0 for a in alphas)


def _until(cfg: Mapping[str, Any]) -> float:
    until = cfg.get("policy_until")
    return 1.0 if until is None else until


def _recipe(cfg: Mapping[str, Any], data: ViewData, augment: Any, teacher: Any) -> dict[str, Any]:
    """What an interrupted run and its continuation must agree in, as plain values."""
    return {
        "loss": {k: v for k, v in plain_options(cfg.get("loss") or {}).items() if k != "name"},
        "augment": "none" if augment is None else augment.fingerprint(),
        "views": data.num_views,
        "teacher": "none" if teacher is None else teacher.fingerprint(),
        "teacher_view": cfg.get("teacher_view") or "same",
        "policy_until": _until(cfg),
    }
