"""The teacher: a frozen network that answers for exactly the pixels the student sees, normalised its own way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.data.preprocessing import check_unit
from effkit.errors import UserError, choose
from kd_autoaug.distillation.views import ViewKey

__all__ = ["DTYPES", "INTERPOLATIONS", "Teacher"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


class Teacher:
    """A network that gives logits and never changes.

    Not a ``nn.Module``: kept as an attribute of one, its weights do not enter that module's parameters, state dict or
    checkpoints, and the module's ``train()`` does not reach it. The network is put in evaluation mode before every
    call, whatever was done to it in between, so its batch statistics cannot move.

    The network given is taken over: it is put in evaluation mode and its parameters no longer require gradients.

    Args:
        model: From ``(B, C, H, W)`` to logits ``(B, classes)``.
        mean: Mean that the network's normalisation subtracts, pixels being 0..1: one per channel, or one for all. The
            teacher's own, whatever the student's is.
        std: Standard deviation that it divides by, likewise.
        size: Side of the pictures it wants, or ``(height, width)``; the very same view is resized to it. ``None``
            leaves them as they are.
        dtype: What the network computes in (``"float32"``, ``"bfloat16"``, ``"float16"``, ``"float64"`` or the torch
            dtype); ``None`` leaves it as it is. Autocast does not reach it, so cached and online answers agree.
        interpolation: ``"nearest"``, ``"bilinear"`` or ``"bicubic"``, the last two antialiased when shrinking.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        *,
        size: int | Sequence[int] | None = None,
        dtype: str | torch.dtype | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UserError(f"teacher.model must be a torch.nn.Module, got {type(model).__name__}")
        if dtype is not None:
            wanted = DTYPES[choose("teacher.dtype", dtype, DTYPES)] if isinstance(dtype, str) else dtype
            model = model.to(wanted)
        self.model = model.requires_grad_(False).eval()
        self.mean, self.std = _statistics("mean", mean), _statistics("std", std)
        if min(self.std) <= 0:
            raise UserError(f"teacher.std={list(self.std)} must be above 0")
        for field in ("mean", "std"):
            check_unit(f"teacher.{field}", getattr(self, field))
        self._copies: tuple[Tensor, Tensor] | None = None
        self._floats = 0  # calls with floating-point pictures
        self.size = _size(size)
        self.interpolation = choose("teacher.interpolation", interpolation, INTERPOLATIONS)

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return next((p.dtype for p in self.model.parameters()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((t.device for t in [*self.model.parameters(), *self.model.buffers()]), torch.device("cpu"))

    def to(self, device: torch.device | str) -> Teacher:
        """Move the network. A call does so by itself where the pictures are elsewhere."""
        self.model.to(device)
        return self

    def train(self, mode: bool = True) -> Teacher:
        """Change nothing: a teacher is always in evaluation mode."""
        return self

    def eval(self) -> Teacher:
        """Change nothing: a teacher is always in evaluation mode."""
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor, key: ViewKey | None = None) -> Tensor:
        """Return logits float32 ``(B, classes)`` (float64 of a float64 network).

        Args:
            images: uint8 ``(B, C, H, W)``, the view the student sees, before any normalisation; or float32 of the same
                range 0..255, where views were mixed. Others (0..1, normalised, NaN) are refused: all calls on a CPU
                look, on a GPU the first ones and then ever fewer.
            key: Which views they are; only its length is checked here, :meth:`ViewKey.check` compares two keys.

        Raises:
            UserError: If the pictures are not 0..255 of that shape, the channels do not fit, or the network does not
                give one row of logits for each picture.
        """
        prepared = self.prepare(images)
        if key is not None and len(key) != len(images):
            raise UserError(f"the view key names {len(key)} views, but there are {len(images)} pictures")
        if self.device != images.device:
            self.to(images.device)
        for module in self.model.modules():
            if module.training:
                self.model.eval()
                break
        with torch.autocast(images.device.type, enabled=False):
            logits = self.model(prepared)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"the teacher gives {shape} for {len(images)} pictures, expected logits (B, classes)")
        return logits if logits.dtype == torch.float64 else logits.float()

    def prepare(self, images: Tensor) -> Tensor:
        """Resize and normalise as the network wants it, ``(B, C, height, width)`` in its dtype."""
        if images.ndim != 4 or images.dtype not in (torch.uint8, torch.float32):
            raise UserError(
                f"pictures for the teacher are {images.dtype} of shape {tuple(images.shape)}, "
                "expected uint8 (B, C, H, W) before normalisation"
            )
        channels = images.shape[1]
        for field in ("mean", "std"):
            if len(getattr(self, field)) not in (1, channels):
                raise UserError(
                    f"teacher.{field} has {len(getattr(self, field))} values, but the pictures have {channels} channels"
                )
        if images.dtype == torch.float32:
            self._floats += 1
            if images.device.type == "cpu" or self._floats & (self._floats - 1) == 0:
                _check_bytes(images)
        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        pixels = images.to(exact)
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            smooth = {} if self.interpolation == "nearest" else {"antialias": True, "align_corners": False}
            resized = F.interpolate(pixels, self.size, mode=self.interpolation, **smooth)  # type: ignore[arg-type]
            pixels = resized.clamp(0, 255)  # bicubic overshoots
        mean, std = self._constants(pixels.device, exact)
        return ((pixels / 255 - mean) / std).to(self.dtype)

    def _constants(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and std on a device; copied there once, since each copy would wait for the device."""
        if self._copies is None or self._copies[0].device != device or self._copies[0].dtype != dtype:
            mean, std = (torch.tensor(v, dtype=dtype, device=device).view(1, -1, 1, 1) for v in (self.mean, self.std))
            self._copies = (mean, std)
        return self._copies

    # --- what it is ---------------------------------------------------------------------------------------------------

    def normalisation_fingerprint(self) -> str:
        """SHA-256 of how pictures are prepared: mean, std, size, interpolation."""
        values = {"mean": self.mean, "std": self.std, "size": self.size, "interpolation": self.interpolation}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the answers: class and printed structure of the network, weights, preparation.

        Computed anew each time, so a change of the weights shows. The count of batches that batch norm keeps does not
        enter: it changes no answer.
        """
        digest = hashlib.sha256(self.normalisation_fingerprint().encode())
        digest.update(f"{type(self.model).__qualname__}\n{self.model!r}".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            if name.endswith("num_batches_tracked"):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        return digest.hexdigest()

    def __repr__(self) -> str:
        """One line, without the network's layers."""
        options = f"mean={self.mean}, std={self.std}, size={self.size}, dtype={self.dtype}"
        return f"Teacher({type(self.model).__name__}, {options}, interpolation={self.interpolation!r})"


def _check_bytes(images: Tensor) -> None:
    """Refuse floating-point pictures that are not 0..255."""
    if not images.numel():
        return
    least, most = (float(v) for v in torch.aminmax(images))
    fractions = 0 < most < 2 and bool((images != images.round()).any())
    if not (least >= 0 and most <= 255) or fractions:
        found = f"{least:g} to {most:g}" if abs(least) + abs(most) < float("inf") else "NaN or infinite"
        raise UserError(
            f"floating-point pictures for the teacher are {found}, expected 0..255 before normalisation: the teacher "
            "normalises by its own mean and std"
        )


def _statistics(field: str, value: Any) -> tuple[float, ...]:
    try:
        values = (float(value),) if isinstance(value, int | float) else tuple(float(v) for v in value)
    except (TypeError, ValueError):
        values = ()
    if not values or not all(abs(v) < float("inf") for v in values):
        raise UserError(f"teacher.{field}={value!r} must be a number or one number per channel")
    return values


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sides):
        raise UserError(f"teacher.size={value!r} must be a side in pixels, (height, width), or null")
    return sides
