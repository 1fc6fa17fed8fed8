"""Image transforms, built by timm: what training and evaluation do between the file and the network.

Training: crop, flip, then RandAugment (or colour jitter, which timm switches off under RandAugment), normalise, random
erasing. Evaluation: resize so that the crop is ``crop_pct`` of the shorter side, centre crop, normalise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effkit.errors import UserError, choose

__all__ = ["AUGMENTS", "TENSOR_AUGMENTS", "eval_transform", "resolve_augment", "shift", "train_transform"]

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

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")


def _check_unit(field: str, value: float, *, zero: bool) -> float:
    if not isinstance(value, int | float) or not (0 <= value <= 1 if zero else 0 < value <= 1):
        raise UserError(f"{field}={value!r} must be in {'0..1' if zero else '(0, 1]'}")
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


def train_transform(
    image_size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    crop: str = "rrc",
    crop_pct: float = 0.875,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    hflip: float = 0.5,
    auto_augment: str | None = None,
    color_jitter: float | None = None,
    interpolation: str = "bicubic",
    re_prob: float = 0.0,
    re_mode: str = "pixel",
) -> Callable[[Any], Tensor]:
    """Build the training transform, from a PIL image to a normalised ``(C, H, W)`` tensor.

    Args:
        image_size: Side of the square result in pixels.
        mean: Per-channel mean to subtract, pixels being 0..1.
        std: Per-channel standard deviation to divide by.
        crop: ``"rrc"`` random resized crop, ``"pad"`` pad by an eighth and crop at random, ``"center"`` no randomness
            (the evaluation transform; everything below is then ignored).
        crop_pct: Only for ``crop="center"``, see :func:`eval_transform`.
        scale: Area of the random resized crop as a fraction of the picture, (smallest, largest).
        ratio: Its aspect ratio, (smallest, largest).
        hflip: Probability of a horizontal flip.
        auto_augment: timm's policy string such as ``"rand-m9-mstd0.5-inc1"``, or ``None``.
        color_jitter: Strength of brightness, contrast and saturation jitter; timm drops it under RandAugment.
        interpolation: ``"bicubic"``, ``"bilinear"``, ..., or ``"random"`` (bilinear or bicubic per picture).
        re_prob: Probability of random erasing.
        re_mode: What is written there: ``"pixel"`` noise, ``"rand"`` one colour, ``"const"`` zero.

    Raises:
        UserError: If a value is not allowed.
    """
    from timm.data import create_transform
    from torchvision import transforms

    if choose("data.augment.crop", crop, ["rrc", "pad", "center"]) == "center":
        fixed = "bicubic" if interpolation == "random" else interpolation
        return eval_transform(image_size, mean=mean, std=std, crop_pct=crop_pct, interpolation=fixed)
    smallest, largest = _check_range("data.augment.scale", scale, 1.0)
    narrowest, widest = _check_range("data.augment.ratio", ratio, float("inf"))
    primary, secondary, final = create_transform(
        image_size,
        is_training=True,
        separate=True,
        scale=(smallest, largest),
        ratio=(narrowest, widest),
        hflip=_check_unit("data.augment.hflip", hflip, zero=True),
        color_jitter=color_jitter or 0.0,
        auto_augment=_check_auto_augment(auto_augment),
        interpolation=choose("data.augment.interpolation", interpolation, [*INTERPOLATIONS, "random"]),
        mean=tuple(mean),
        std=tuple(std),
        re_prob=_check_unit("data.augment.re_prob", re_prob, zero=True),
        re_mode=choose("data.augment.re_mode", re_mode, ["pixel", "rand", "const"]),
    )
    if crop == "pad":
        resize = getattr(
            transforms.InterpolationMode, ("bicubic" if interpolation == "random" else interpolation).upper()
        )
        primary = transforms.Compose(
            [
                transforms.Resize((image_size, image_size), interpolation=resize),
                transforms.RandomCrop(image_size, padding=image_size // 8),
                transforms.RandomHorizontalFlip(hflip),
            ]
        )
    return transforms.Compose([*primary.transforms, *secondary.transforms, *final.transforms])


def eval_transform(
    image_size: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    crop_pct: float = 0.875,
    interpolation: str = "bicubic",
) -> Callable[[Any], Tensor]:
    """Build the evaluation transform, from a PIL image to a normalised ``(C, H, W)`` tensor.

    Args:
        image_size: Side of the square result in pixels.
        mean: Per-channel mean to subtract, pixels being 0..1.
        std: Per-channel standard deviation to divide by.
        crop_pct: The shorter side is resized to ``floor(image_size / crop_pct)`` before the centre crop.
        interpolation: ``"bicubic"``, ``"bilinear"``, ``"nearest"`` or ``"lanczos"``.

    Raises:
        UserError: If a value is not allowed.
    """
    from timm.data import create_transform

    return create_transform(
        image_size,
        is_training=False,
        mean=tuple(mean),
        std=tuple(std),
        crop_pct=_check_unit("data.crop_pct", crop_pct, zero=False),
        interpolation=choose("data.interpolation", interpolation, INTERPOLATIONS),
    )


def resolve_augment(augment: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Turn a preset's name or a mapping into keyword arguments of :func:`train_transform`.

    A mapping may name a preset under ``preset`` and change parts of it: ``{"preset": "deit", "re_prob": 0}``.

    Raises:
        UserError: If the preset or a key is not known.
    """
    if augment is None or isinstance(augment, str):
        return dict(AUGMENTS[choose("data.augment", augment or "none", AUGMENTS)])
    options = dict(augment)
    known = set(inspect.signature(train_transform).parameters) - {"image_size", "mean", "std"}
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
    height, width = images.shape[-2:]
    reach = max(1, height // 8)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    offsets = torch.randint(0, 2 * reach + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([p[:, y : y + height, x : x + width] for p, (y, x) in zip(padded, offsets, strict=True)])


TENSOR_AUGMENTS: dict[str, Callable[[Tensor, torch.Generator], Tensor] | None] = {"none": None, "shift": shift}
"""Named presets for data sets that are kept as tensors."""
