"""One entrance: layers of operators on a batch, by the backend that suits it. All backends give the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError, choose
from kd_autoaug.ops import pil_backend, torch_backend
from kd_autoaug.ops.affine_large import nearest
from kd_autoaug.ops.allocator import keep_memory
from kd_autoaug.ops.arithmetic import ARITHMETIC
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.matrix import LONGEST, affine_coefficients, fits_fixed_point, fixed_point
from kd_autoaug.ops.operators import BICUBIC, BILINEAR, NEAREST, Kind, Op, kind_of
from kd_autoaug.ops.tables import lookup_tables

__all__ = ["BACKENDS", "apply", "check_images", "colour", "resolve_backend"]

BACKENDS = ("auto", "torch", "pil", "triton")
# From this many pixels on `auto` hands an interpolation to Pillow on a CPU; the bits are the same, so only speed hangs
# on it. Everything else is faster in torch at every size (`kd-autoaug bench ops`).
PIL_FROM_PIXELS = {BILINEAR: 80 * 80, BICUBIC: 18 * 18}

ONE_BY_ONE = 144 * 144  # pixels from which pictures are taken one at a time on a CPU
CHUNK = 1 << 20  # bytes of pictures that one operator works on at once; temporaries take eight times that

_KINDS = torch.tensor([int(kind_of(op)) for op in Op])
# Sorting by these numbers puts operators of one kind, then of one name, then of one interpolation side by side.
_KIND, _OPERATOR = 1024, 8
_ORDER = torch.tensor(
    [_KIND * int(kind_of(op)) + _OPERATOR * (0 if kind_of(op) == Kind.AFFINE else int(op)) for op in Op]
)


def check_images(images: Tensor) -> None:
    """Check that a batch is what the operators are defined on.

    Raises:
        UserError: If it is not uint8, not four-dimensional, or has neither 1 nor 3 channels.
    """
    if not isinstance(images, Tensor):
        raise UserError(f"images must be a torch tensor of uint8 (B, C, H, W), got {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise UserError(
            f"images must be uint8, got {images.dtype}: the operators are defined on 0..255; quantise first"
        )
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise UserError(f"images must be (B, C, H, W), got shape {shape}")
    if images.shape[1] not in (1, 3):
        hint = "; this looks like (B, H, W, C): permute(0, 3, 1, 2) first" if images.shape[3] in (1, 3) else ""
        hint = "; drop the alpha channel first" if images.shape[1] == 4 else hint
        raise UserError(f"images must have 1 or 3 channels, got {images.shape[1]} in shape {shape}{hint}")
    if len(images) and min(images.shape[2:]) < 1:
        raise UserError(f"images must have at least one pixel, got shape {shape}")


def colour(field: str, value: int | Sequence[int], channels: int) -> tuple[int, ...]:
    """One value per channel.

    Args:
        field: Name of the argument, for the message.
        value: A number, or one per channel; three numbers are averaged for a grey picture.
        channels: 1 or 3.

    Raises:
        UserError: If the number of values does not fit or a value is outside 0..255.
    """
    values = [value] * channels if isinstance(value, int | float) else list(value)
    if channels == 1 and len(values) == 3:
        values = [round(sum(values) / 3)]
    if len(values) != channels:
        raise UserError(f"{field}={value!r} has {len(values)} values, but the pictures have {channels} channels")
    for one in values:
        if int(one) != one or not 0 <= one <= 255:
            raise UserError(f"{field}={value!r} must hold whole numbers in 0..255")
    return tuple(int(v) for v in values)


def resolve_backend(backend: str, device: torch.device) -> str:
    """What ``auto`` means on a device; a backend asked for by name that cannot run there is refused.

    Args:
        backend: One of ``BACKENDS``.
        device: Where the pictures are.

    Returns:
        ``"torch"``, ``"pil"``, ``"triton"``, or on a CPU ``"auto"``: whichever of torch and Pillow is faster, operator
        by operator.

    Raises:
        UserError: If it is not known or cannot run.
    """
    choose("backend", backend, BACKENDS)
    if backend == "pil" and device.type != "cpu":
        raise UserError(f"backend='pil' runs on the CPU, got pictures on {device}; use backend='auto'")
    if backend == "triton" or (backend == "auto" and device.type == "cuda"):
        from kd_autoaug.ops._triton_common import HAS_TRITON, interpreted

        if backend == "auto":
            return "triton" if HAS_TRITON else "torch"
        if not HAS_TRITON:
            raise UserError("backend='triton' needs the package triton, which is not installed; use backend='torch'")
        if device.type != "cuda" and not interpreted():
            raise UserError(
                f"backend='triton' needs a CUDA device, got pictures on {device}; use backend='auto', or set "
                "TRITON_INTERPRET=1 (slow, for tests)"
            )
    return backend if backend != "auto" or device.type == "cpu" else "torch"


class _Run:
    """The layers of one call, applied by torch or Pillow.

    Small pictures are sorted by operator before each layer, so that each kind of work is a slice and nothing is picked
    out picture by picture; from one layer's order they go straight into the next one's. Large pictures on a CPU are
    taken one by one, since each fills the cache by itself.
    """

    def __init__(self, images: Tensor, backend: str, fill: tuple[int, ...], cutout_fill: tuple[int, ...]) -> None:
        _, channels, self.height, self.width = images.shape
        self.backend, self.fill, self.cutout_fill = backend, fill, cutout_fill
        self.pixels = self.height * self.width
        self.module: Any = pil_backend if backend == "pil" else torch_backend
        on_cpu = images.device.type == "cpu"
        self.one_by_one = on_cpu and self.pixels >= ONE_BY_ONE
        self.at_once = max(1, CHUNK // (self.pixels * channels)) if on_cpu else len(images)

    def __call__(self, images: Tensor, layers: Sequence[Layer]) -> Tensor:
        if self.one_by_one:
            return self._one_by_one(images, layers)
        before: Tensor | None = None  # where the picture at each place came from
        for layer in layers:
            keys = _ORDER.to(layer.op.device)[layer.op] + layer.interpolation
            order = torch.argsort(keys)
            images = _rows(images, order if before is None else _inverse(before)[order])
            self._sorted(images, keys[order], layer[order])
            before = order
        return images if before is None else _rows(images, _inverse(before))

    def _one_by_one(self, images: Tensor, layers: Sequence[Layer]) -> Tensor:
        images = images.clone(memory_format=torch.contiguous_format)
        for layer in layers:
            kinds = _KINDS[layer.op].tolist()
            alone = map(Layer, layer.op.split(1), layer.arg.split(1), layer.interpolation.split(1), layer.box.split(1))
            prepared = self._prepared(layer, kinds, images.split(1))
            for kind, picture, one, small in zip(kinds, images.split(1), alone, prepared, strict=True):
                if isinstance(small, list):
                    nearest(picture[0], small, self.fill, out=picture[0])
                elif small is None and kind == Kind.LUT:
                    picture.copy_(ARITHMETIC[Op(int(one.op))](picture, one.arg))
                elif kind != Kind.IDENTITY:
                    self._apply(Kind(kind), picture, one, small)
        return images

    def _prepared(self, layer: Layer, kinds: list[int], pictures: Sequence[Tensor]) -> list[Any]:
        """Maps and tables, worked out for all pictures at once: a list of numbers for nearest sampling."""
        prepared: list[Any] = [None] * len(kinds)
        which = [n for n, kind in enumerate(kinds) if kind == Kind.AFFINE]
        if which:
            chosen = layer[torch.tensor(which)]
            maps = affine_coefficients(chosen, self.height, self.width)
            lean = (chosen.interpolation == NEAREST) & fits_fixed_point(maps, self.height, self.width)
            lean &= max(self.height, self.width) <= LONGEST
            fixed = fixed_point(maps).tolist() if self.backend != "pil" else []
            for n, exact, numbers, simple in zip(which, maps.split(1), fixed or maps, lean.tolist(), strict=True):
                prepared[n] = numbers if fixed and simple else exact
        numbers = layer.op.tolist()
        which = [n for n, kind in enumerate(kinds) if kind == Kind.LUT and self._needs_table(numbers[n])]
        if which:
            which.sort(key=numbers.__getitem__)
            chosen = layer[torch.tensor(which)]
            tables = lookup_tables([pictures[n] for n in which], chosen.op, chosen.arg)
            for n, table in zip(which, tables.split(1), strict=True):
                prepared[n] = table
        return prepared

    def _sorted(self, images: Tensor, keys: Tensor, layer: Layer) -> None:
        """Apply a layer in place to pictures that are sorted by ``keys``."""
        found, counts = torch.unique_consecutive(keys // _KIND, return_counts=True)
        begin = 0
        for kind, count in zip(found.tolist(), counts.tolist(), strict=True):
            whole, begin = slice(begin, begin + count), begin + count
            if kind != Kind.IDENTITY:
                self._segment(Kind(kind), images[whole], layer[whole])

    def _needs_table(self, op: int) -> bool:
        return self.backend == "pil" or Op(op) not in ARITHMETIC

    def _segment(self, kind: Kind, images: Tensor, layer: Layer) -> None:
        """Apply operators of one kind in place; what is small is worked out for all at once, pixels in chunks."""
        if kind == Kind.LUT:
            self._pointwise(images, layer)
            return
        prepared = affine_coefficients(layer, self.height, self.width) if kind == Kind.AFFINE else None
        for part in self._chunks(0, len(images)):
            self._apply(kind, images[part], layer[part], None if prepared is None else prepared[part])

    def _chunks(self, begin: int, end: int) -> Iterator[slice]:
        for start in range(begin, end, self.at_once):
            yield slice(start, min(start + self.at_once, end))

    def _pointwise(self, images: Tensor, layer: Layer) -> None:
        """Apply operators that change values one by one: by arithmetic, or by tables."""
        found, counts = torch.unique_consecutive(layer.op, return_counts=True)
        end = 0
        for op, count in zip(found.tolist(), counts.tolist(), strict=True):
            begin, end = end, end + count
            for part in self._chunks(begin, end):
                if self._needs_table(op):
                    tables = lookup_tables(images[part], layer.op[part], layer.arg[part])
                    self._apply(Kind.LUT, images[part], layer[part], tables)
                else:
                    images[part] = ARITHMETIC[Op(op)](images[part], layer.arg[part])

    def _apply(self, kind: Kind, images: Tensor, layer: Layer, prepared: Any) -> None:
        """Apply operators of one kind in place."""
        if kind == Kind.AFFINE:
            self._affine(images, prepared, layer.interpolation)
            return
        if kind == Kind.LUT:
            result = self.module.look_up(images, prepared, out=images)
        elif kind == Kind.COLOR:
            result = self.module.color(images, layer.arg, out=images)
        elif kind == Kind.STENCIL:
            result = self.module.sharpness(images, layer.arg, out=images)
        else:
            result = self.module.cutout(images, layer.box, self.cutout_fill, out=images)
        if result is not images:
            images.copy_(result)

    def _affine(self, images: Tensor, coefficients: Tensor, interpolation: Tensor) -> None:
        """Sample in place; each run of equal interpolations by what is faster for it."""
        found, counts = torch.unique_consecutive(interpolation, return_counts=True)
        end = 0
        for how, count in zip(found.tolist(), counts.tolist(), strict=True):
            begin, end = end, end + count
            part = slice(begin, end)
            by_pillow = self.backend == "auto" and self.pixels >= PIL_FROM_PIXELS.get(how, 1 << 62)
            module = pil_backend if by_pillow else self.module
            place = images[part]
            result = module.affine(place, coefficients[part], interpolation[part], self.fill, out=place)
            if result is not place:
                place.copy_(result)


def _inverse(order: Tensor) -> Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse


def _rows(images: Tensor, order: Tensor) -> Tensor:
    """Pictures in another order, copied as rows of the widest numbers that fit."""
    flat = images.reshape(len(images), -1)
    for dtype, size in ((torch.int64, 8), (torch.int32, 4)):
        if flat.shape[1] % size == 0 and flat.storage_offset() % size == 0:
            return flat.view(dtype).index_select(0, order).view(torch.uint8).view_as(images)
    return flat.index_select(0, order).view_as(images)


def apply(
    images: Tensor,
    layers: Sequence[Layer],
    *,
    fill: int | Sequence[int] = 0,
    cutout_fill: int | Sequence[int] | None = None,
    backend: str = "auto",
    normalize: tuple[Sequence[float], Sequence[float], torch.dtype] | None = None,
) -> Tensor:
    """Apply layers of operators, one operator per picture and layer, with Pillow's exact bits.

    Args:
        images: uint8 ``(B, C, H, W)`` with 1 or 3 channels.
        layers: In the order in which they are applied, each for B pictures.
        fill: Value, or one per channel, where an affine operator leaves the picture.
        cutout_fill: Of cutout; ``None`` takes ``fill``.
        backend: ``"torch"`` (any device), ``"pil"`` (Pillow itself, CPU), ``"triton"`` (CUDA), or ``"auto"``.
        normalize: Mean, standard deviation (one or one per channel, pixels being 0..1) and dtype of the result, which
            is then ``((x / 255 - mean) / std).to(dtype)``; the last kernel on a GPU writes it at once.

    Returns:
        uint8 ``(B, C, H, W)``: a new tensor, or ``images`` itself where there is nothing to do; with ``normalize`` a
        new tensor of that dtype.

    Raises:
        UserError: If pictures, layers, colours or backend do not fit.
    """
    check_images(images)
    for number, layer in enumerate(layers):
        if len(layer) != len(images):
            raise UserError(f"layers[{number}] is for {len(layer)} pictures, but images has {len(images)}")
    backend = resolve_backend(backend, images.device)
    channels = images.shape[1]
    outside = colour("fill", fill, channels)
    patch = outside if cutout_fill is None else colour("cutout_fill", cutout_fill, channels)
    if len(images) and layers and backend == "triton":
        from kd_autoaug.ops.triton_backend import apply_layers

        return apply_layers(images, list(layers), fill=outside, cutout_fill=patch, normalize=normalize)
    if len(images) and layers:
        if images.device.type == "cpu":
            keep_memory()
        images = _Run(images, backend, outside, patch)(images, [layer.to(images.device) for layer in layers])
    return images if normalize is None else _normalized(images, *normalize)


def _normalized(images: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    from kd_autoaug.ops.triton_backend import levels  # loads no triton

    table = levels((mean, std, dtype), images.shape[1], images.device)
    return (
        table.gather(1, images.transpose(0, 1).flatten(1).long())
        .view(images.shape[1], len(images), *images.shape[2:])
        .transpose(0, 1)
        .contiguous()
    )
