"""What is known about each data set without its files: classes, normalisation, size. The one place that decides.

``mean: null`` and ``std: null`` mean what stands here, in every package; a package whose networks want something else
says so in its configs, in numbers. What was decided is recorded in the run folder (``preprocessing.json``).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from effkit.data.finding import class_folders
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError, choose

__all__ = ["FACTS", "Facts", "known_class_names", "known_preprocessing", "normalization"]


@dataclass(frozen=True)
class Facts:
    """Defaults of a data set.

    Attributes:
        mean: Per channel, or one for all, pixels being 0..1.
        std: Likewise.
        image_size: Side of the pictures in pixels.
        interpolation: Of the evaluation resize.
        crop_pct: Evaluation crop as a fraction of the resized shorter side.
        class_names: One per class; empty where they come with the files.
    """

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    image_size: int = 32
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    class_names: tuple[str, ...] = ()


_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

_TEXTURES = [
    "astronaut",
    "brick",
    "camera",
    "cell",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "ihc",
    "moon",
    "motorcycle_left",
    "page",
    "retina",
    "rocket",
    "text",
]

FACTS: dict[str, Facts] = {
    # Made at their size from 8 x 8 pixels, and from crops of two photographs.
    "digits": Facts(interpolation="bilinear", class_names=tuple("0123456789")),
    "photos": Facts(image_size=64, interpolation="bilinear", class_names=("china", "flower")),
    # Patches standardised one by one, three deviations to either side in the bytes.
    "textures": Facts((0.5,), (1 / 6,), interpolation="bilinear", class_names=tuple(_TEXTURES)),
    # Mean and standard deviation of the 50,000 training pictures.
    "cifar10": Facts((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), class_names=_CIFAR10_CLASSES),
    "cifar100": Facts((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), class_names=tuple(_CIFAR100_CLASSES.split())),
    "imagefolder": Facts(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, image_size=224, crop_pct=0.875),
    "imagenet": Facts(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, image_size=224, crop_pct=0.875),
}
"""Every data set by the name that ``data=NAME`` and ``data.name=NAME`` take."""


def _per_channel(field: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    try:
        values = (float(value),) * channels if isinstance(value, int | float) else tuple(map(float, value))
    except (TypeError, ValueError):
        raise UserError(f"{field}={value!r} must be a number or a list of {channels} numbers") from None
    if len(values) != channels:
        raise UserError(f"{field}={list(values)} has {len(values)} values, but the images have {channels} channels")
    if field == "data.std" and min(values) <= 0:
        raise UserError(f"{field}={list(values)} must be above 0")
    return values


def normalization(
    name: str, channels: int, mean: float | Sequence[float] | None, std: float | Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a data set, one per channel.

    Args:
        name: One of ``FACTS``.
        channels: Channels of the pictures.
        mean: As configured: one number for all channels, one per channel, or ``None`` for the data set's own.
        std: Likewise.

    Raises:
        UserError: If a value is no number, or there are as many as the pictures have no channels.
    """
    facts = FACTS[choose("data.name", name, FACTS)]
    found = []
    for field, value, own in (("data.mean", mean, facts.mean), ("data.std", std, facts.std)):
        if value is None:
            value = own[0] if len(set(own)) == 1 else own
        found.append(_per_channel(field, value, channels))
    return found[0], found[1]


@functools.cache
def _imagenet_names() -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(info.index_to_description(i) for i in range(info.num_classes()))


def known_class_names(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names of a ``data`` config; empty if they are stored with pictures that are not here."""
    name, root = str(data.get("name")), data.get("root")
    if name == "imagenet":
        return _imagenet_names()
    if name == "imagefolder" and root and (Path(root).expanduser() / "train").is_dir():
        return tuple(class_folders(Path(root).expanduser() / "train"))
    return FACTS[name].class_names if name in FACTS else ()


def known_preprocessing(data: Mapping[str, Any]) -> Preprocessing:
    """What a ``data`` config says about its pictures, without the pictures.

    For weights that were not kept with their preprocessing; where it was kept, that is the one to use.

    Args:
        data: The config, with ``name`` and any of the data set's arguments.

    Raises:
        UserError: If the name is not known or a value not allowed.
    """
    name = str(data.get("name"))
    facts = FACTS[choose("data.name", name, FACTS)]
    mean, std = normalization(name, int(data.get("in_chans") or 3), data.get("mean"), data.get("std"))
    size = data.get("image_size") or facts.image_size
    return Preprocessing(
        size=(size, size),
        crop_pct=data.get("crop_pct") or facts.crop_pct,
        interpolation=data.get("interpolation") or facts.interpolation,
        mean=mean,
        std=std,
        class_names=known_class_names(data),
    )
