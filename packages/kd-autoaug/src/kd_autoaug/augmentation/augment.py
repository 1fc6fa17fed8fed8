"""Augment a batch, every picture by numbers of its own: a function of (seed, sample, view) and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor

from effkit.errors import UserError, choose
from effkit.notes import say_once
from kd_autoaug.augmentation import rng
from kd_autoaug.augmentation.policies import frame
from kd_autoaug.augmentation.policies.entries import check_probability
from kd_autoaug.augmentation.policies.mixture import mixed
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.ops.checks import check_images, colour
from kd_autoaug.ops.dispatch import BACKENDS, apply
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.torch_backend import cutout

__all__ = ["ACROSS", "DOWN", "FLIP", "LEFT", "TOP", "BatchAugment"]

TOP, LEFT, FLIP, _UNUSED, ACROSS, DOWN = range(6)  # words of the stream PLACEMENT

Colour = int | Sequence[int]
_OVERSHOOT = 0.25  # of the range: what a bicubic resize may leave beyond its ends
_FILLED = 0.02  # of the range: brighter than that is any picture; 0..1 under 0..255 is not


class BatchAugment:
    """Padded crop, flip, policy, cutout, in this order.

    What happens to a picture depends on the seed, its ``index`` and its ``view`` alone: not on the rest of the batch,
    its order and size, the process, the device or the backend, and no global generator is read or advanced. A
    teacher's answers for view v can therefore be kept and used again whenever view v comes round.

    Example:
        >>> import torch
        >>> from kd_autoaug import BatchAugment, Policy
        >>> augment = BatchAugment(Policy.from_name("autoaugment-cifar10"), seed=0, padding=4, hflip=0.5, cutout=16)
        >>> images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
        >>> augment(images, torch.arange(8), view=0).shape
        torch.Size([8, 3, 32, 32])
    """

    def __init__(
        self,
        policy: Policy | str | None,
        seed: int = 0,
        *,
        backend: str = "auto",
        padding: int = 0,
        hflip: float = 0.0,
        cutout: int = 0,
        cutout_fill: Colour | None = None,
        padding_fill: Colour = 0,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """Check the options.

        Args:
            policy: A policy, the name of one, or ``None`` for crop, flip and cutout only.
            seed: 0 to 2^64 - 1.
            backend: Of the operators; every backend gives the same bits.
            padding: Pad by this many pixels on each side, then crop the picture's size at random.
            hflip: Probability of a left-right flip.
            cutout: Side in pixels of the square blanked after the policy, about a random pixel; reaches over the edge.
            cutout_fill: Its colour; ``None``: the policy's fill, black without a policy.
            padding_fill: Colour of the padding.
            value_range: Accept floating-point pictures too, whose values from the lower to the upper bound stand for
                0 to 255: they are rounded to 256 steps, augmented, and given back in their own dtype and range. Values
                far outside of it (a quarter of the range), or pictures that fill no 2 % of it, are refused: they were
                normalised already, or are of another range. What resampling overshoots is cut.

        Raises:
            UserError: If a value is out of range.
        """
        self.policy = Policy.from_name(policy) if isinstance(policy, str) else policy
        self.seed = rng.check_seed(seed)
        self.backend = choose("backend", backend, BACKENDS)
        for name, value in (("padding", padding), ("cutout", cutout)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UserError(f"{name}={value!r} must be a number of pixels, 0 or more")
        self.padding, self.cutout = padding, cutout
        self.hflip = check_probability("hflip", hflip)
        if cutout_fill is None:
            cutout_fill = 0 if self.policy is None else self.policy.fill
        self.cutout_fill = _colour("cutout_fill", cutout_fill)
        self.padding_fill = _colour("padding_fill", padding_fill)
        if value_range is not None and not (len(value_range) == 2 and value_range[0] < value_range[1]):
            raise UserError(f"value_range={value_range!r} must be two numbers, the lower one first")
        self.value_range = value_range
        self._seen: set[tuple[int, int]] = set()  # sizes that the policy has been looked at for
        self._fine: list[tuple[int, int]] = []  # the smallest of which it leaves enough
        self._calls = 0

    @overload
    def __call__(
        self, images: Tensor, index: Tensor, view: Tensor | int = 0, *, return_layers: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def __call__(
        self, images: Tensor, index: Tensor, view: Tensor | int = 0, *, return_layers: Literal[True]
    ) -> tuple[Tensor, list[Layer]]: ...

    def __call__(
        self, images: Tensor, index: Tensor, view: Tensor | int = 0, *, return_layers: bool = False
    ) -> Tensor | tuple[Tensor, list[Layer]]:
        """Augment a batch.

        Args:
            images: uint8 ``(B, C, H, W)`` with 1 or 3 channels (with ``value_range`` also floating-point).
            index: The samples' numbers in their data set, integers ``(B,)``.
            view: Which view of them, one for all or integers ``(B,)``, 0 to 2^32 - 1.
            return_layers: Return what the policy did, too.

        Returns:
            Pictures of the same shape and dtype, and the policy's layers if asked for; ``images`` itself where there is
            nothing to do, as for an empty batch.

        Raises:
            UserError: If pictures, index or view are not as above.
        """
        index, view = self._check(images, index, view)
        if len(images) == 0:
            return (images, []) if return_layers else images
        pictures = self._quantise(images)
        height, width = pictures.shape[2:]
        words = self._placement_words(index, view)
        if words is not None:
            pictures = self._place(pictures, words)
        layers: list[Layer] = []
        self.look_at((height, width))
        if self.policy is not None:
            layers = self.policy.sample(self.seed, index, view, (height, width), backend=self.backend)
            pictures = self._by_policy(self.policy, pictures, layers, index, view)
        if words is not None:
            pictures = self._cut(pictures, words)
        out = self._restore(pictures, images.dtype)
        return (out, layers) if return_layers else out

    def _by_policy(
        self, policy: Policy, pictures: Tensor, layers: list[Layer], index: Tensor, view: Tensor | int
    ) -> Tensor:
        """Apply a policy's layers, as one chain or as chains that are mixed."""
        how: dict[str, Any] = {"fill": policy.fill, "cutout_fill": policy.cutout_fill, "backend": self.backend}
        run: Callable[..., Tensor] = partial(apply, **how)
        if policy.mixture is None:
            return run(pictures, layers)
        return mixed(pictures, layers, policy.mixture, policy.mixture.words(self.seed, index, view, self.backend), run)

    def look_at(self, size: tuple[int, int]) -> None:
        """Say once if the policy leaves nothing of many pictures of a size (height, width).

        Pictures that come alone come in many sizes; one that is no smaller than one of which enough was left is fine.
        """
        if size in self._seen or self.policy is None:
            return
        self._seen.add(size)
        if any(size[0] >= height and size[1] >= width for height, width in self._fine):
            return
        if line := frame.advice(self.policy, size):
            say_once(line, __name__)
        else:
            self._fine.append(size)

    def layers(self, index: Tensor, view: Tensor | int, size: tuple[int, int]) -> list[Layer]:
        """What the policy does to some samples, without their pictures.

        Args:
            index: The samples' numbers, integers ``(B,)``.
            view: Which view of them, one for all or integers ``(B,)``.
            size: Height and width of the pictures.

        Raises:
            UserError: If index or view is not as for a call.
        """
        index, view = self._check_key(index, view, len(index), index.device)
        return [] if self.policy is None else self.policy.sample(self.seed, index, view, size, backend=self.backend)

    @property
    def only_policy(self) -> bool:
        """Whether nothing happens besides the policy: no crop, flip or final cutout."""
        return not (self.padding or self.hflip or self.cutout)

    def fingerprint(self) -> str:
        """SHA-256 over everything that decides about the pictures, as 64 hexadecimal digits; the backend does not."""
        parts = {
            "rng": rng.VERSION,
            "seed": self.seed,
            "policy": "" if self.policy is None or not self.policy.num_layers else self.policy.fingerprint(),
            "padding": [self.padding, self.padding_fill if self.padding else 0],
            "hflip": self.hflip,
            "cutout": [self.cutout, self.cutout_fill if self.cutout else 0],
            "value_range": self.value_range,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={getattr(self, k)!r}" for k in ("padding", "hflip", "cutout") if getattr(self, k))
        return f"BatchAugment({self.policy!r}, seed={self.seed}{', ' if options else ''}{options})"

    def _check(self, images: Tensor, index: Tensor, view: Tensor | int) -> tuple[Tensor, Tensor | int]:
        if isinstance(images, Tensor) and images.is_floating_point() and self.value_range is not None:
            check_images(torch.empty(images.shape, dtype=torch.uint8, device="meta"))
        elif isinstance(images, Tensor) and images.dtype != torch.uint8:
            raise UserError(
                f"images must be uint8 0..255, got {images.dtype}; value_range=(low, high) allows floating point"
            )
        else:
            check_images(images)
        return self._check_key(index, view, len(images), images.device)

    def _check_key(
        self, index: Tensor, view: Tensor | int, batch: int, device: torch.device
    ) -> tuple[Tensor, Tensor | int]:
        index = _numbers("index", index, batch, device)
        if isinstance(view, Tensor) and view.ndim:
            return index, _numbers("view", view, batch, device, below=1 << 32)
        number = int(view) if isinstance(view, int | Tensor) and not isinstance(view, bool) else -1
        if not 0 <= number < 1 << 32:
            raise UserError(f"view={view!r} must be an integer from 0 to 2**32 - 1, or one per picture")
        return index, number

    def _placement_words(self, index: Tensor, view: Tensor | int) -> Tensor | None:
        if self.only_policy:
            return None
        return rng.words_of(self.seed, index, view, (rng.PLACEMENT,), 8 if self.cutout else 4, self.backend)[0]

    def _place(self, images: Tensor, words: Tensor) -> Tensor:
        """Padded crop and flip."""
        flipped = words[FLIP] < self.hflip * 2.0**32
        if self.padding:
            return self._crop(images, words, flipped)
        if not self.hflip:
            return images
        if images.device.type != "cpu":
            return torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
        which = flipped.nonzero()[:, 0]  # a selection by a mask takes many times as long on a CPU
        return images.index_copy(0, which, images.index_select(0, which).flip(-1))

    def _crop(self, images: Tensor, words: Tensor, flipped: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        pad = self.padding
        padded = _filled_like(images.new_empty(batch, channels, height + 2 * pad, width + 2 * pad), self.padding_fill)
        padded[..., pad : pad + height, pad : pad + width] = images
        top, left = (rng.integers(words[k], 2 * pad + 1)[:, None] for k in (TOP, LEFT))
        across = torch.arange(width, device=images.device)
        rows = top + torch.arange(height, device=images.device)  # (B, H)
        columns = left + torch.where(flipped[:, None], width - 1 - across, across)
        places = (rows * (width + 2 * pad)).unsqueeze(-1) + columns.unsqueeze(1)  # (B, H, W)
        flat = places.view(batch, 1, height * width).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, flat).view_as(images)

    def _cut(self, images: Tensor, words: Tensor) -> Tensor:
        if not self.cutout:
            return images
        height, width = images.shape[2:]
        left, top = (rng.integers(words[k], n) - self.cutout // 2 for k, n in ((ACROSS, width), (DOWN, height)))
        box = torch.stack([left, top, left + self.cutout, top + self.cutout], 1)
        return cutout(images, box, colour("cutout_fill", self.cutout_fill, images.shape[1]))

    def _quantise(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8 or self.value_range is None:
            return images
        low, high = self.value_range
        self._calls += 1
        # On a GPU looking at the values makes the host wait: at the first calls, then ever more rarely.
        if images.device.type == "cpu" or self._calls & (self._calls - 1) == 0:
            _check_range(images, low, high)
        return ((images.double() - low) * (255.0 / (high - low))).round().clamp(0, 255).to(torch.uint8)

    def _restore(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        if dtype == torch.uint8 or self.value_range is None:
            return images
        low, high = self.value_range
        return (images.double() * ((high - low) / 255.0) + low).to(dtype)


def _check_range(images: Tensor, low: float, high: float) -> None:
    """Refuse pictures of another range than they are said to have."""
    if not images.numel():
        return
    least, most = (float(v) for v in torch.aminmax(images))
    span = high - low
    if not (low - _OVERSHOOT * span <= least and most <= high + _OVERSHOOT * span):  # NaN is neither
        finite = abs(most) + abs(least) < float("inf")
        what = f"are {least:g} to {most:g}" if finite else "hold NaN or infinite values"
    elif low < most < low + _FILLED * span and bool((images != images.round()).any()):
        what = f"are {least:g} to {most:g}, all of them almost black"
    else:
        return
    raise UserError(
        f"images {what}, but value_range={(low, high)} says what stands for black and white: give the true range, "
        "and augment before normalising"
    )


def _filled_like(images: Tensor, fill: Colour) -> Tensor:
    """Overwrite pictures ``(B, C, H, W)`` with a colour, channel by channel: nothing is copied from the host."""
    for channel, value in enumerate(colour("fill", fill, images.shape[1])):
        images[:, channel] = value
    return images


def _colour(name: str, value: Colour) -> int | tuple[int, ...]:
    values = colour(name, value, 1 if isinstance(value, int) else 3)
    return values[0] if isinstance(value, int) else values


def _may_look(given: Tensor) -> bool:
    """Whether looking at values makes nobody wait."""
    return given.device.type == "cpu"


def _numbers(name: str, given: Tensor, batch: int, device: torch.device, below: int = 1 << 63) -> Tensor:
    if not isinstance(given, Tensor) or given.dtype.is_floating_point or given.dtype in (torch.bool, torch.complex64):
        kind = str(given.dtype) if isinstance(given, Tensor) else type(given).__name__
        raise UserError(f"{name} must be a tensor of integers, one per picture, got {kind}")
    if given.shape != (batch,):
        raise UserError(f"{name} has shape {tuple(given.shape)}, but there are {batch} pictures: one number for each")
    # On a GPU looking at the values would make the host wait; a number there is taken modulo its range.
    if _may_look(given) and batch and not (int(given.min()) >= 0 and int(given.max()) < below):
        raise UserError(f"{name} must be from 0 to {below - 1}, got {int(given.min())} to {int(given.max())}")
    return given.to(device=device, dtype=torch.int64, non_blocking=True)
