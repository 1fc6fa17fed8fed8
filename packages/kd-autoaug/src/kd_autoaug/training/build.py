"""From a composed config to data, networks, augmentation, loss and teacher; each part for itself and all at once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effkit.device import resolve_device, seed_everything, set_threads
from effkit.errors import UserError, choose
from effkit.lightning.optim import plain_options
from kd_autoaug.loss import TopKDistillationLoss
from kd_autoaug.training.caching import build_cache
from kd_autoaug.training.data import ViewData
from kd_autoaug.training.module import DistillationModule
from kd_autoaug.training.views import BatchViews

__all__ = [
    "Parts",
    "build_augment",
    "build_data",
    "build_everything",
    "build_loss",
    "build_student",
    "build_teacher",
    "set_up",
]

_VIEW_KEYS = {
    "crop", "padding", "hflip", "cutout", "cutout_fill", "num_views", "scale", "ratio", "interpolation", "in_memory",
    "backend",
}  # fmt: skip


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


def set_up(cfg: Any) -> torch.device:
    """Set threads and seed of a command, and find its device."""
    set_threads(cfg.get("threads"))
    seed_everything(cfg.get("seed") or 0)
    return resolve_device(cfg.get("device") or "auto")


def build_data(cfg: Mapping[str, Any]) -> ViewData:
    """Build the data of the groups ``data`` and ``view``.

    Raises:
        UserError: If a key or a value does not fit, or files are missing.
    """
    view = _view(cfg)
    return ViewData.from_config(plain_options(cfg["data"]), view)


def _view(cfg: Mapping[str, Any]) -> dict[str, Any]:
    view = dict(plain_options(cfg.get("view") or {}))
    for key in view:
        choose("view key", key, sorted(_VIEW_KEYS))
    if view.get("padding") and view.get("crop", "none") != "pad":
        raise UserError(
            f"view.padding={view['padding']} needs view.crop=pad, got view.crop={view.get('crop', 'none')!r}"
        )
    if view.get("crop") == "pad" and not view.get("padding"):
        raise UserError(f"view.crop=pad needs view.padding of at least 1 pixel, got {view.get('padding')!r}")
    return view


def build_augment(cfg: Mapping[str, Any], *, plain: bool = False) -> Any:
    """Build what augments a batch, from the groups ``policy`` and ``view`` and the seed.

    Args:
        cfg: Composed config.
        plain: Crop and flip only, without policy and cutout; its crops and flips are those of the whole.

    Returns:
        ``BatchAugment``; ``None`` if nothing is to be done.

    Raises:
        UserError: If a key or a value does not fit.
    """
    from kd_autoaug.augment import BatchAugment
    from kd_autoaug.policies.policy import Policy

    view = _view(cfg)
    options: dict[str, Any] = {
        "backend": view.get("backend") or "auto",
        "padding": view.get("padding") or 0,
        "hflip": view.get("hflip") or 0.0,
    }
    policy = plain_options(cfg.get("policy") or {"name": "none"})
    chosen = None
    if not plain:
        chosen = None if policy.get("name") in (None, "none") else Policy.from_config(policy)
        options |= {"cutout": view.get("cutout") or 0, "cutout_fill": view.get("cutout_fill")}
    if chosen is None and not options["padding"] and not options["hflip"] and not options.get("cutout"):
        return None
    return BatchAugment(chosen, cfg.get("seed") or 0, **options)


def build_loss(cfg: Mapping[str, Any]) -> TopKDistillationLoss:
    """Build the loss of the group ``loss``.

    Raises:
        UserError: If a key or a value does not fit.
    """
    options = plain_options(cfg.get("loss") or {})
    options.pop("name", None)
    allowed = sorted(set(inspect.signature(TopKDistillationLoss.__init__).parameters) - {"self"})
    for key in options:
        choose("loss key", key, allowed)
    return TopKDistillationLoss(**options)


def build_student(cfg: Mapping[str, Any], data: ViewData) -> nn.Module:
    """Build the network of the group ``model`` for the data's classes, channels and size.

    Raises:
        UserError: If an argument does not fit, or ``model.weights`` has another shape.
    """
    from kd_autoaug.networks import build_network

    return build_network(_with_file("model", cfg["model"]), **_facts(data))


def build_teacher(cfg: Mapping[str, Any], data: ViewData) -> Any:
    """Build the teacher of the group ``teacher``: its network with weights, its normalisation, size and dtype.

    Returns:
        ``kd_autoaug.teacher.Teacher``; ``None`` without a name (``teacher=none``), or where it has no weights
        but a cache to read has its answers.

    Raises:
        UserError: If it has no weights, or other classes or channels than the data.
    """
    from kd_autoaug.networks import build_teacher as build

    options = _with_file("teacher", cfg.get("teacher") or {})
    if not options.get("name"):
        return None
    cache = cfg.get("cache") or {}
    untrained = not options.get("weights") and not options.get("pretrained")
    if untrained and cache.get("path") and (cache.get("mode") or "read") == "read":
        return None
    return build(options, mean=data.mean, std=data.std, **_facts(data))


def _facts(data: ViewData) -> dict[str, int]:
    return {"num_classes": data.num_classes, "in_chans": data.in_chans, "image_size": data.image_size}


def _with_file(group: str, options: Any) -> dict[str, Any]:
    """The group with the file that ``weights`` means: a file, or what a run folder ends with."""
    options = dict(plain_options(options))
    weights = options.get("weights")
    if not weights:
        return options
    path = Path(str(weights)).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            raise UserError(f"{group}.weights={str(weights)!r} is no finished run: it has no model.safetensors")
    elif not path.is_file():
        raise UserError(f"{group}.weights={str(weights)!r} does not exist: give a file of weights or a run folder")
    return {**options, "weights": str(path)}


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
    cache = build_cache(cfg, data, augment, teacher, loss)
    cache_mode = (plain_options(cfg.get("cache") or {})).get("mode") or "read"
    module = DistillationModule(
        student,
        data.num_classes,
        loss=loss,
        mean=data.mean,
        std=data.std,
        views=BatchViews(augment, plain, cfg.get("teacher_view") or "same"),
        teacher=teacher,
        cache=cache,
        cache_mode=cache_mode,
        policy_until=_until(cfg),
        recipe=_recipe(cfg, data, augment, teacher),
        **{k: cfg.get(k) for k in ("optimizer", "scheduler", "mixup", "ema")},
    )
    return Parts(data, student, module, teacher, cache)


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
