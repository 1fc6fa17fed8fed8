"""What a network expects of a picture, as one small object that travels with its weights.

A picture becomes bytes on the CPU (read, resized, cut: what PIL does well), and numbers on the device that computes: a
quarter of the memory traffic, and one place that normalises. Whoever trained a network keeps its `Preprocessing` beside
the weights (run folder, checkpoint, safetensors, exported file); whoever uses the network takes it from there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effkit.data.pictures import Source, load_picture
from effkit.errors import UserError, choose

__all__ = ["CROP_MODES", "INTERPOLATIONS", "METADATA_KEY", "Normalize", "Preprocessing", "check_unit", "scaled"]

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
CROP_MODES = ("center", "squash", "border")
METADATA_KEY = "effkit.preprocessing"
"""Key of the JSON text in the metadata of safetensors and ONNX files, and name of the extra file in torch.export's."""

_VERSION = 1
_LARGEST = 2.0  # of a mean or deviation of pixels 0..1, some room included


def scaled(images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes to ``(x / 255 - mean) / std``, computed in at least float32, step by step as torchvision does it.

    Args:
        images: uint8 ``(..., C, H, W)``.
        mean: ``(C, 1, 1)``, pixels being 0..1.
        std: Likewise.
        dtype: Of the result.

    Raises:
        UserError: If the pictures are not bytes, or have another number of channels.
    """
    if images.dtype != torch.uint8:
        raise UserError(f"images.dtype={images.dtype} must be torch.uint8: normalisation starts from bytes")
    if images.shape[-3] != len(mean):
        raise UserError(f"images have {images.shape[-3]} channels, but data.mean has {len(mean)}")
    return images.to(mean.dtype).div(255).sub(mean).div(std).to(dtype)


class Normalize(nn.Module):
    """uint8 ``(B, C, H, W)`` to ``(x / 255 - mean) / std`` in float32: for networks that are to take bytes themselves.

    Its buffers are not saved: they belong to the data, not to the network.

    Args:
        mean: Per channel, pixels being 0..1.
        std: Per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise.

        Raises:
            UserError: If the pictures are not bytes, or have another number of channels.
        """
        return scaled(images, self.mean, self.std)


@functools.lru_cache(maxsize=64)
def _steps(size: tuple[int, int], pct: float, mode: str, interpolation: str, mean: tuple[float, ...]) -> tuple:
    """Timm's evaluation steps that take a PIL picture and give one."""
    from timm.data import create_transform
    from timm.data.transforms import MaybePILToTensor

    options: dict[str, Any] = {"crop_pct": pct, "crop_mode": mode, "interpolation": interpolation, "mean": mean}
    steps: Any = create_transform((len(mean), *size), is_training=False, normalize=False, **options)
    return tuple(step for step in steps.transforms if not isinstance(step, MaybePILToTensor))


def check_unit(field: str, values: Sequence[float]) -> None:
    """Refuse a mean or deviation of pixels 0..255 where pixels are 0..1: every picture would become one constant.

    Raises:
        UserError: With the values that were meant.
    """
    if max(abs(value) for value in values) > _LARGEST:
        meant = [float(f"{value / 255:.4g}") for value in values]
        raise UserError(f"{field}={[float(v) for v in values]} is of pixels 0..255, but pixels are 0..1: give {meant}")


@dataclass(frozen=True)
class Preprocessing:
    """Size, crop and normalisation of pictures, and the names of the classes a network tells apart.

    The number of channels is that of ``mean``: with 3 a grey picture is repeated, with 1 a coloured one becomes its
    luma (ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B).

    Attributes:
        size: Height and width of the result in pixels; one number for both.
        crop_pct: Kept part of the resized picture; 0.9 resizes the shorter side to 248 for a crop of 224.
        interpolation: Of the resize: ``bilinear``, ``bicubic``, ``nearest`` or ``lanczos``.
        mean: Per channel, pixels being 0..1.
        std: Per channel, likewise.
        crop_mode: timm's: ``center`` keeps the shape and cuts, ``squash`` changes the shape, ``border`` pads.
        class_names: One name per class, in the order of the logits; empty if they are not known.
    """

    size: tuple[int, int]
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crop_mode: str = "center"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        put("size", _size(self.size))
        for name in ("mean", "std"):
            put(name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            raise UserError(f"preprocessing: mean has {len(self.mean)} channels, std has {len(self.std)}")
        if min(self.std) <= 0:
            raise UserError(f"preprocessing: std={list(self.std)} must be above 0")
        check_unit("preprocessing: mean", self.mean)
        check_unit("preprocessing: std", self.std)
        pct = self.crop_pct
        if isinstance(pct, bool) or not isinstance(pct, int | float) or not 0 < pct <= 1:
            raise UserError(f"preprocessing: crop_pct={pct!r} must be in (0, 1]")
        put("crop_pct", float(pct))
        choose("preprocessing: interpolation", self.interpolation, INTERPOLATIONS)
        choose("preprocessing: crop_mode", self.crop_mode, CROP_MODES)
        if isinstance(self.class_names, str) or not isinstance(self.class_names, Sequence):
            raise UserError(f"preprocessing: class_names={self.class_names!r} must be a list of names")
        put("class_names", tuple(map(str, self.class_names)))

    @property
    def channels(self) -> int:
        """Channels of a picture: 3 for RGB, 1 for grey."""
        return len(self.mean)

    # --- pictures -------------------------------------------------------------------------------------------------

    def geometry(self) -> list[Callable[[Any], Any]]:
        """The steps of resizing and cutting, from a PIL picture to a PIL picture."""
        return list(_steps(self.size, self.crop_pct, self.crop_mode, self.interpolation, self.mean))

    def picture(self, source: Source) -> Tensor:
        """Read, resize and cut one picture, exactly as evaluation does.

        Args:
            source: A file, a bundled photograph's name, a PIL picture or an array, see ``effkit.data.load_picture``.

        Returns:
            uint8 ``(C, H, W)``.
        """
        image = load_picture(source, self.channels)
        for step in self.geometry():
            image = step(image)
        pixels = np.array(image)
        return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def pictures(self, sources: Sequence[Source]) -> Tensor:
        """As :meth:`picture`, for several: uint8 ``(B, C, H, W)``."""
        found = [self.picture(source) for source in sources]
        return torch.stack(found) if found else torch.empty((0, self.channels, *self.size), dtype=torch.uint8)

    def normalize(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Turn bytes into what the network sees, on the device they are on.

        Args:
            images: uint8 ``(..., C, H, W)``.
            dtype: Of the result; computed in at least float32.
        """
        work = torch.float64 if dtype == torch.float64 else torch.float32
        # Not waited for: small enough to be copied aside before the call returns.
        mean, std = (
            torch.tensor(v, dtype=work).view(-1, 1, 1).to(images.device, non_blocking=True)
            for v in (self.mean, self.std)
        )
        return scaled(images, mean, std, dtype)

    def denormalize(self, x: Tensor) -> np.ndarray:
        """Turn what a network sees ``(..., C, H, W)`` back into pixels ``(..., H, W, C)`` in 0..1."""
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return (x.detach().cpu().float() * std + mean).clamp(0, 1).movedim(-3, -1).numpy()

    def __call__(self, source: Source) -> Tensor:
        """Turn a picture into the network's input, float32 ``(C, H, W)``."""
        return self.normalize(self.picture(source))

    def batch(self, sources: Sequence[Source]) -> Tensor:
        """As :meth:`__call__`, for several: float32 ``(B, C, H, W)``."""
        return self.normalize(self.pictures(sources))

    # --- in files -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values, with ``channels`` and the ``version`` of this layout."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        return {"version": _VERSION, "channels": self.channels, **fields}

    @classmethod
    def from_dict(cls, value: Any, where: str = "preprocessing") -> Preprocessing:
        """Build from :meth:`to_dict`'s result.

        Args:
            value: The dict.
            where: What it was read from, for the message.

        Raises:
            UserError: If it is broken, or was written by a later version of effkit.
        """
        if not isinstance(value, Mapping):
            raise UserError(f"{where} is damaged: expected the fields of a preprocessing, got {type(value).__name__}")
        fields = {str(k): v for k, v in value.items()}
        version, channels = fields.pop("version", None), fields.pop("channels", None)
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise UserError(f"{where} is damaged: version={version!r} must be a whole number of at least 1")
        if version > _VERSION:
            raise UserError(f"{where} has version {version}, this effkit reads up to {_VERSION}: update effkit")
        expected = {f.name for f in dataclasses.fields(cls)}
        if wrong := sorted(fields.keys() ^ expected):
            missing = [name for name in wrong if name in expected]
            raise UserError(
                f"{where} is damaged: " + (f"{missing[0]} is missing" if missing else f"{wrong[0]} is unknown")
            )
        try:
            found = cls(**fields)
        except UserError as error:
            raise UserError(f"{where} is damaged: {str(error).removeprefix('preprocessing: ')}") from error
        if channels != found.channels:
            raise UserError(f"{where} is damaged: channels={channels!r}, but mean has {found.channels}")
        return found

    def to_metadata(self) -> dict[str, str]:
        """One text by name: metadata of a safetensors file, ONNX ``metadata_props``, torch.export ``extra_files``."""
        return {METADATA_KEY: json.dumps(self.to_dict(), ensure_ascii=False)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, where: str = "the file") -> Preprocessing | None:
        """Read back what :meth:`to_metadata` wrote; ``None`` if it is not there.

        Raises:
            UserError: If it is broken, or was written by a later version of effkit.
        """
        text = (metadata or {}).get(METADATA_KEY)
        if not text:
            return None
        where = f"{METADATA_KEY} of {where}"
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UserError(f"{where} is damaged: {error}") from error
        return cls.from_dict(value, where)


def _size(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    good = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
    if not good or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in pair):
        raise UserError(f"preprocessing: size={value!r} must be height and width in whole pixels")
    return pair[0], pair[1]


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    good = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    if not good or any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in value):
        raise UserError(f"preprocessing: {name}={value!r} must be a list of numbers, one per channel")
    return tuple(map(float, value))
