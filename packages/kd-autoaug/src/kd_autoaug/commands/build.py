"""From a composed config to data, networks, augmentation, loss, teacher and cache, each for itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effkit.arguments import check_arguments, named_below, named_path
from effkit.device import resolve_device, seed_everything, set_threads
from effkit.errors import UserError, choose
from effkit.lightning.optim import plain_options
from kd_autoaug import networks
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.commands.trained import show_as_trained, teacher_options, with_file
from kd_autoaug.distillation.loss import TopKDistillationLoss
from kd_autoaug.training.caching import open_cache
from kd_autoaug.training.data import ViewData

__all__ = [
    "build_augment",
    "build_cache",
    "build_data",
    "build_loss",
    "build_student",
    "build_teacher",
    "chosen_policy",
    "set_up",
]

_VIEW_KEYS = {
    "crop", "padding", "hflip", "cutout", "cutout_fill", "num_views", "scale", "ratio", "interpolation", "in_memory",
    "backend",
}  # fmt: skip


def set_up(cfg: Any) -> torch.device:
    """Set threads and seed of a command, and find its device."""
    set_threads(cfg.get("threads"))
    seed_everything(cfg.get("seed") or 0)
    return resolve_device(cfg.get("device") or "auto")


def build_data(cfg: Mapping[str, Any], *, fixed: bool = False) -> ViewData:
    """Build the data of the groups ``data`` and ``view``, shown as the run behind ``model.weights`` did.

    Args:
        cfg: Composed config.
        fixed: The network is not trained any more, see :func:`show_as_trained`.

    Raises:
        UserError: If a key or a value does not fit, or files are missing.
    """
    data = ViewData.from_config(plain_options(cfg["data"]), _view(cfg))
    show_as_trained(cfg, data, fixed=fixed)
    return data


def _view(cfg: Mapping[str, Any]) -> dict[str, Any]:
    view = dict(plain_options(cfg.get("view") or {}))
    for key in view:
        choose("view key", key, sorted(_VIEW_KEYS))
    for kinds in (BatchAugment, ViewData):
        check_arguments(kinds, view, "view.", also=view)
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
    with named_below("view.", options):
        return BatchAugment(chosen, cfg.get("seed") or 0, **options)


def chosen_policy(cfg: Mapping[str, Any]) -> Any:
    """The policy of the group ``policy`` by itself, to be drawn or measured as it is; ``None`` for none.

    Raises:
        UserError: If a key or a value does not fit.
    """
    options = plain_options(cfg.get("policy") or {})
    return None if options.get("name") in (None, "none", "identity") else Policy.from_config(options)


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
    return networks.build_network(with_file("model", cfg["model"]), **_facts(data))


def build_teacher(cfg: Mapping[str, Any], data: ViewData) -> Any:
    """Build the teacher of the group ``teacher``: its network with weights, its normalisation, size and dtype.

    What the group leaves open is what the run behind its weights says, else the data.

    Returns:
        A ``Teacher``; ``None`` without a name (``teacher=none``), or where it has no weights but a cache to read
        has its answers.

    Raises:
        UserError: If it has no weights, or was trained on other classes or channels than the data's.
    """
    options, known = teacher_options(cfg, data)
    if not options.get("name"):
        return None
    cache = cfg.get("cache") or {}
    untrained = not options.get("weights") and not options.get("pretrained")
    if untrained and cache.get("path") and (cache.get("mode") or "read") == "read":
        return None
    teacher = networks.build_teacher(options, mean=data.mean, std=data.std, **_facts(data))
    if known is not None:
        data.core.check_classes(known, "the teacher")
    return teacher


def build_cache(cfg: Mapping[str, Any], data: ViewData, augment: Any, teacher: Any, loss: TopKDistillationLoss) -> Any:
    """Open or begin the cache of the group ``cache``; see :func:`kd_autoaug.training.caching.open_cache`.

    Returns:
        A ``LogitCache``; ``None`` without ``cache.path``, or without distillation.

    Raises:
        UserError: If the cache was made of something else, or lacks records that nobody can fill.
    """
    options = plain_options(cfg.get("cache") or {})
    path = cache_path(cfg)
    if path is None or loss.weight == 0:
        return None
    check_arguments(open_cache, {k: options[k] for k in ("mode", "k", "dtype") if k in options}, "cache.", also=options)
    mode, dtype = options.get("mode") or "read", options.get("dtype") or "float16"
    return open_cache(path, data, augment, teacher, loss, mode=mode, k=options.get("k"), dtype=dtype)


def cache_path(cfg: Mapping[str, Any]) -> Path | None:
    """The folder of the group ``cache``; ``None`` if it names none."""
    path = plain_options(cfg.get("cache") or {}).get("path")
    return None if path is None else Path(named_path("cache.path", path)).expanduser()


def _facts(data: ViewData) -> dict[str, int]:
    return {"num_classes": data.num_classes, "in_chans": data.in_chans, "image_size": data.image_size}
