"""Real data by name, as Lightning data modules: embedded sets that need no download, and the usual folders.

>>> from effkit.data import create_data
>>> data = create_data("digits", batch_size=64)
>>> data.num_classes, data.image_size, data.in_chans
(10, 32, 3)
"""

from __future__ import annotations

import inspect
from typing import Any

from effkit.data.base import DataModule, MemoryDataModule
from effkit.data.digits import Digits, load_digits
from effkit.data.folders import ImageFolder
from effkit.data.photos import PhotoCrops
from effkit.data.torchvision_sets import CIFAR10, CIFAR100, ImageNet
from effkit.errors import choose

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DATASETS",
    "DataModule",
    "Digits",
    "ImageFolder",
    "ImageNet",
    "MemoryDataModule",
    "PhotoCrops",
    "create_data",
    "load_digits",
]

DATASETS: dict[str, type[DataModule]] = {
    "digits": Digits,
    "photos": PhotoCrops,
    "imagefolder": ImageFolder,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet": ImageNet,
}
"""Every data set by the name that ``data=NAME`` and ``data.name=NAME`` take."""


def _arguments(cls: type) -> set[str]:
    """Return the argument names of a data module, through ``**kwargs`` up to its parents."""
    names: set[str] = set()
    for parent in cls.__mro__:
        if parent is DataModule or "__init__" not in parent.__dict__:
            continue
        parameters = inspect.signature(parent.__dict__["__init__"]).parameters
        names |= {n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names - {"self", "name"}


def create_data(name: str, **kwargs: Any) -> DataModule:
    """Build a data module by name.

    Args:
        name: One of ``DATASETS``.
        **kwargs: Its arguments (``batch_size``, ``image_size``, ``root``, ...).

    Returns:
        The data module, with ``num_classes``, ``image_size``, ``in_chans``, ``mean``, ``std`` and ``class_names``.

    Raises:
        UserError: If the name or an argument is not known, or a folder is missing.
    """
    cls = DATASETS[choose("data.name", name, DATASETS)]
    for key in kwargs:
        choose("data argument", key, sorted(_arguments(cls)))
    return cls(**kwargs)
