"""Real data by name, as Lightning data modules: embedded sets that need no download, and the usual folders.

Pictures are bytes until they are on the device that computes; ``Preprocessing`` says how they get their size and how
bytes become numbers, and travels with the network that was trained on them.

>>> from effkit.data import create_data
>>> data = create_data("digits", batch_size=64)
>>> data.num_classes, data.image_size, data.in_chans
(10, 32, 3)
"""

from __future__ import annotations

import inspect
from typing import Any

from effkit.data.base import OPTIONS, DataModule
from effkit.data.classes import class_names
from effkit.data.digits import Digits, load_digits
from effkit.data.files import PictureDataModule
from effkit.data.finding import class_folders, find_pictures
from effkit.data.folders import ImageFolder
from effkit.data.memory import MemoryDataModule
from effkit.data.photos import PhotoCrops
from effkit.data.pictures import BUNDLED, load_picture
from effkit.data.preprocessing import Normalize, Preprocessing
from effkit.data.torchvision_sets import CIFAR10, CIFAR100, ImageNet
from effkit.errors import choose

__all__ = [
    "BUNDLED",
    "CIFAR10",
    "CIFAR100",
    "DATASETS",
    "DataModule",
    "Digits",
    "ImageFolder",
    "ImageNet",
    "MemoryDataModule",
    "Normalize",
    "PhotoCrops",
    "PictureDataModule",
    "Preprocessing",
    "class_folders",
    "class_names",
    "create_data",
    "data_arguments",
    "find_pictures",
    "load_digits",
    "load_picture",
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
    return cls(**kwargs)
