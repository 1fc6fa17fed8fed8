"""Data sets by the name that ``data=NAME`` takes."""

from __future__ import annotations

import inspect
from typing import Any

from effkit.arguments import check_arguments
from effkit.data.base import OPTIONS, DataModule
from effkit.data.digits import Digits
from effkit.data.folders import ImageFolder
from effkit.data.photos import PhotoCrops
from effkit.data.textures import Textures
from effkit.data.torchvision_sets import CIFAR10, CIFAR100, ImageNet
from effkit.errors import choose

__all__ = ["DATASETS", "create_data", "data_arguments"]

DATASETS: dict[str, type[DataModule]] = {
    "digits": Digits,
    "photos": PhotoCrops,
    "textures": Textures,
    "imagefolder": ImageFolder,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet": ImageNet,
}
"""Every data set by the name that ``data=NAME`` and ``data.name=NAME`` take."""


def data_arguments(cls: type[DataModule]) -> dict[str, Any]:
    """Return the arguments of a data module with their defaults, through ``**kwargs`` up to its parents."""
    found: dict[str, Any] = {}
    for parent in cls.__mro__:
        if "__init__" not in parent.__dict__:
            continue
        parameters = inspect.signature(parent.__dict__["__init__"]).parameters
        own = {n: p.default for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
        if parent is DataModule:  # the others are what its subclasses tell it
            own = {n: own[n] for n in OPTIONS}
        found = {**own, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return {n: default for n, default in found.items() if n not in ("self", "name")}


def create_data(name: str, **kwargs: Any) -> DataModule:
    """Build a data module by name.

    Args:
        name: One of ``DATASETS``.
        **kwargs: Its arguments (``batch_size``, ``image_size``, ``root``, ...).

    Returns:
        The data module, with its ``preprocessing`` (and from it ``num_classes``, ``image_size``, ``in_chans``,
        ``mean``, ``std`` and ``class_names``).

    Raises:
        UserError: If the name or an argument is not known, or a folder is missing.
    """
    cls = DATASETS[choose("data.name", name, DATASETS)]
    for key in kwargs:
        choose("data argument", key, sorted(data_arguments(cls)))
    check_arguments(cls, kwargs, "data.")
    return cls(**kwargs)
