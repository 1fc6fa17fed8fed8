"""Augmentation of training pictures, built by timm: what happens between the reader and the batch of bytes.

Crop, flip, then RandAugment (or colour jitter, which timm switches off under RandAugment) on the PIL picture; random
erasing is drawn here and done after normalisation, see ``effkit.data.erasing``. What evaluation does instead is
``effkit.data.Preprocessing.picture``.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effkit.data.erasing import RandomErasing
from effkit.data.preprocessing import INTERPOLATIONS, Preprocessing
from effkit.errors import UserError, choose

__all__ = ["AUGMENTS", "TENSOR_AUGMENTS", "resolve_augment", "shift", "train_transform"]

AUGMENTS: dict[str, dict[str, Any]] = {
    # Training sees exactly what evaluation sees: for overfitting on purpose, and for features that are stored.
    "none": {"crop": "center"},
    # Inception-style crop and flip, nothing else: the ResNet-50 recipe.
    "light": {"crop": "rrc"},
    # Zero-padded shift and flip: customary on CIFAR's 32 x 32.
    "pad": {"crop": "pad"},
    # DeiT's recipe, which TNT and most ViT-type papers follow.
    "deit": {
        "crop": "rrc",
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "color_jitter": 0.4,
        "interpolation": "random",
        "re_prob": 0.25,
        "re_mode": "pixel",
    },
}
"""Named presets for ``augment``: keyword arguments of :func:`train_transform`."""


def _check_unit(field: str, value: float) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{field}={value!r} must be in 0..1")
    return value


def _check_range(field: str, values: Sequence[float], top: float) -> tuple[float, float]:
    numbers = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
    if not numbers or len(values) != 2 or not 0 < values[0] <= values[1] <= top:
        raise UserError(f"{field}={values!r} must be two rising numbers above 0 and at most {top:g}")
    return values[0], values[1]


def _check_auto_augment(spec: str | None) -> str | None:
    if spec and spec.split("-")[0] not in ("rand", "augmix", "original", "originalr", "v0", "v0r", "3a"):
        raise UserError(
            f"data.augment.auto_augment={spec!r} is not known to timm: start it with rand, augmix, original, "
            "originalr, v0, v0r or 3a, e.g. rand-m9-mstd0.5-inc1"
        )
    return spec or None


def _posterize(image: Any, bits_to_keep: int, **_: Any) -> Any:
    """timm's, which at full strength asks for no bit at all; Pillow made that a black picture, and now an error."""
    from timm.data import auto_augment

    return auto_augment.posterize(image, bits_to_keep) if bits_to_keep > 0 else image.point(lambda _: 0)


def _mended(steps: Sequence[Any]) -> list[Any]:
    """Put :func:`_posterize` in the place of timm's, wherever a policy holds it."""
    from timm.data import auto_augment

    for step in steps:
        groups = getattr(step, "policy", None) or [getattr(step, "ops", None) or []]
        for operation in (operation for group in groups for operation in group):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = _posterize
    return list(steps)


def _to_bytes(image: Any) -> Tensor:
    pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def train_transform(
    preprocessing: Preprocessing,
    *,
    crop: str = "rrc",
    crop_pct: float | None = None,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    hflip: float = 0.5,
    auto_augment: str | None = None,
    color_jitter: float | None = None,
    interpolation: str | None = None,
    re_prob: float = 0.0,
    re_mode: str = "pixel",
) -> Callable[[Any], Any]:
    """Build the training transform, from a PIL image to bytes: uint8 ``(C, H, W)``.

    Args:
        preprocessing: Of evaluation: it gives the size, and the mean colour that fills what RandAugment leaves empty.
        crop: ``"rrc"`` random resized crop, ``"pad"`` pad by an eighth and crop at random, ``"center"`` no randomness
            (what evaluation does; everything below but ``crop_pct`` and ``interpolation`` is then ignored).
        crop_pct: Only for ``crop="center"``: another than evaluation's.
        scale: Area of the random resized crop as a fraction of the picture, (smallest, largest).
        ratio: Its aspect ratio, (smallest, largest).
        hflip: Probability of a horizontal flip.
        auto_augment: timm's policy string such as ``"rand-m9-mstd0.5-inc1"``, or ``None``.
        color_jitter: Strength of brightness, contrast and saturation jitter; timm drops it under RandAugment.
        interpolation: ``"bicubic"``, ``"bilinear"``, ..., or ``"random"`` (bilinear or bicubic per picture); ``None``
            for evaluation's.
        re_prob: Probability of random erasing. Above 0 the result is an ``effkit.data.erasing.ErasedPicture``.
        re_mode: What is written there: ``"pixel"`` noise, ``"rand"`` one colour, ``"const"`` zero.

    Raises:
        UserError: If a value is not allowed.
    """
    from timm.data import create_transform
    from torchvision import transforms

    interpolation = interpolation or preprocessing.interpolation
    choose("data.augment.interpolation", interpolation, [*INTERPOLATIONS, "random"])
    fixed = "bicubic" if interpolation == "random" else interpolation
    if choose("data.augment.crop", crop, ["rrc", "pad", "center"]) == "center":
        pct = preprocessing.crop_pct if crop_pct is None else crop_pct
        return dataclasses.replace(preprocessing, crop_pct=pct, interpolation=fixed).picture
    smallest, largest = _check_range("data.augment.scale", scale, 1.0)
    narrowest, widest = _check_range("data.augment.ratio", ratio, float("inf"))
    primary, secondary, _ = create_transform(
        preprocessing.size,
        is_training=True,
        separate=True,
        scale=(smallest, largest),
        ratio=(narrowest, widest),
        hflip=_check_unit("data.augment.hflip", hflip),
        color_jitter=color_jitter or 0.0,
        auto_augment=_check_auto_augment(auto_augment),
        interpolation=interpolation,
        mean=preprocessing.mean,
    )
    if crop == "pad":
        resize = getattr(transforms.InterpolationMode, fixed.upper())
        primary = transforms.Compose(
            [
                transforms.Resize(preprocessing.size, interpolation=resize),
                transforms.RandomCrop(preprocessing.size, padding=preprocessing.size[0] // 8),
                transforms.RandomHorizontalFlip(hflip),
            ]
        )
    _check_unit("data.augment.re_prob", re_prob)
    choose("data.augment.re_mode", re_mode, ["pixel", "rand", "const"])
    erasing = [RandomErasing(re_prob, re_mode)] if re_prob > 0 else []
    return transforms.Compose([*primary.transforms, *_mended(secondary.transforms), _to_bytes, *erasing])


def resolve_augment(augment: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Turn a preset's name or a mapping into keyword arguments of :func:`train_transform`.

    A mapping may name a preset under ``preset`` and change parts of it: ``{"preset": "deit", "re_prob": 0}``.

    Raises:
        UserError: If the preset or a key is not known.
    """
    if augment is None or isinstance(augment, str):
        return dict(AUGMENTS[choose("data.augment", augment or "none", AUGMENTS)])
    options = dict(augment)
    known = set(inspect.signature(train_transform).parameters) - {"preprocessing"}
    preset = options.pop("preset", None)
    for key in options:
        choose("data.augment key", key, sorted(known | {"preset"}))
    return {**(AUGMENTS[choose("data.augment.preset", preset, AUGMENTS)] if preset else {}), **options}


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image of a batch by up to an eighth of its side, repeating the border pixels.

    Args:
        images: ``(B, C, H, W)``.
        generator: Source of the offsets.

    Returns:
        Images of the same shape.
    """
    count, _, height, width = images.shape
    reach = max(1, height // 8)
    offsets = torch.randint(0, 2 * reach + 1, (count, 2), generator=generator) - reach
    rows = (offsets[:, :1] + torch.arange(height)).clamp(0, height - 1)
    columns = (offsets[:, 1:] + torch.arange(width)).clamp(0, width - 1)
    picture = torch.arange(count)[:, None, None]
    return images[picture, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


TENSOR_AUGMENTS: dict[str, Callable[[Tensor, torch.Generator], Tensor] | None] = {"none": None, "shift": shift}
"""Named presets for data sets that are kept as tensors."""
