"""From the ``model`` and ``teacher`` groups of a config to networks with weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.weights import load_weights
from kd_autoaug.networks.factory import create_network

__all__ = ["build_network", "build_teacher"]

TEACHER_KEYS = ("name", "weights", "pretrained", "mean", "std", "size", "dtype", "interpolation", "options")


def build_network(
    cfg: Mapping[str, Any], *, num_classes: int, in_chans: int = 3, image_size: int | None = None
) -> nn.Module:
    """Build the network of a ``model`` group.

    Args:
        cfg: ``name``; ``weights``: a file or null for random ones; everything else is an option of the network, null
            meaning "as it has it".
        num_classes: Classes of the data.
        in_chans: Channels of the data.
        image_size: Side of the pictures.

    Raises:
        UserError: If a value is not allowed, or the weights do not fit.
    """
    options = {k: v for k, v in cfg.items() if v is not None}
    name, weights = options.pop("name", None), options.pop("weights", None)
    if not name:
        raise UserError("model.name is not set: give the name of a network")
    model = create_network(name, num_classes, in_chans, image_size, **options)
    if weights is not None:
        load_weights(model, weights, num_classes)
    return model


def _more_of_a_teacher(name: str, weights: str | Path, pretrained: bool, options: Mapping[str, Any]) -> None:
    """What a ``teacher`` group holds beside the arguments of `Teacher`."""


def build_teacher(
    cfg: Mapping[str, Any],
    *,
    num_classes: int,
    in_chans: int = 3,
    image_size: int | None = None,
    mean: float | Sequence[float],
    std: float | Sequence[float],
) -> Teacher:
    """Build the teacher of a ``teacher`` group.

    Args:
        cfg: ``name``; ``weights``: a file; ``pretrained``: true for timm's published weights instead; ``mean`` and
            ``std``: null for those of the data; ``size``, ``dtype``, ``interpolation``: as of :class:`Teacher`;
            ``options``: of the network.
        num_classes: Classes of the data: the teacher must have as many.
        in_chans: Channels of the data.
        image_size: Side of the pictures, which is also the teacher's where ``size`` is null.
        mean: The data's mean.
        std: The data's standard deviation.

    Raises:
        UserError: If a value is not allowed, the weights do not fit, or there are none.
    """
    for key in cfg:
        choose("teacher key", key, TEACHER_KEYS)
    values = {k: v for k, v in cfg.items() if v is not None}
    check_arguments(Teacher, values, "teacher.")
    check_arguments(_more_of_a_teacher, values, "teacher.")
    name, weights = values.get("name"), values.get("weights")
    if not name:
        raise UserError("teacher.name is not set: give the name of a network")
    options = dict(values.get("options", {}))
    if values.get("pretrained"):
        options["pretrained"] = True
    elif weights is None:
        raise UserError(f"teacher.weights is not set, and a {name} with random weights teaches nothing: give a file")
    size = values.get("size", image_size)
    side = size if isinstance(size, int) else None
    model = create_network(name, num_classes, in_chans, side, **options)
    if weights is not None:
        load_weights(model, weights, num_classes)
    return Teacher(
        model,
        values.get("mean", mean),
        values.get("std", std),
        size=values.get("size"),
        dtype=values.get("dtype"),
        interpolation=values.get("interpolation", "bilinear"),
    )
