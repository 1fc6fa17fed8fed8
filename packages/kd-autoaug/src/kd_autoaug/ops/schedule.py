"""Layers of operators on a batch by torch and Pillow: sorted by operator, or picture by picture where each is large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_autoaug.ops import pil_backend, torch_backend
from kd_autoaug.ops.affine_large import nearest
from kd_autoaug.ops.arithmetic import ARITHMETIC
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.matrix import LONGEST, affine_coefficients, fits_fixed_point, fixed_point
from kd_autoaug.ops.operators import BICUBIC, BILINEAR, NEAREST, Kind, Op, kind_of
from kd_autoaug.ops.single import apply_steps, from_picture, steps_of, to_picture
from kd_autoaug.ops.tables import lookup_tables

__all__ = ["Run"]

# From this many pixels on `auto` hands an interpolation to Pillow on a CPU; the bits are the same, so only speed hangs
# on it. Everything else is faster in torch on a batch (`kd-autoaug bench ops`); a blur was not timed.
PIL_FROM_PIXELS = {BILINEAR: 80 * 80, BICUBIC: 18 * 18}

ONE_BY_ONE = 144 * 144  # pixels from which pictures are taken one at a time on a CPU
CHUNK = 1 << 20  # bytes of pictures that one operator works on at once; temporaries take eight times that

_KINDS = torch.tensor([int(kind_of(op)) for op in Op])
# Sorting by these numbers puts operators of one kind, then of one name, then of one interpolation side by side.
_KIND, _OPERATOR = 1024, 8
_ORDER = torch.tensor(
    [_KIND * int(kind_of(op)) + _OPERATOR * (0 if kind_of(op) == Kind.AFFINE else int(op)) for op in Op]
)


class Run:
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
        # On one thread, as in a loader's worker; several share torch's work on pixels, and none of Pillow's.
        self.by_pillow = self.one_by_one and backend == "auto" and torch.get_num_threads() == 1
        self.at_once = max(1, CHUNK // (self.pixels * channels)) if on_cpu else len(images)

    def __call__(self, images: Tensor, layers: Sequence[Layer]) -> Tensor:
        if self.one_by_one:
            return self._alone(images, layers) if self.by_pillow else self._one_by_one(images, layers)
        before: Tensor | None = None  # where the picture at each place came from
        for layer in layers:
            keys = _ORDER.to(layer.op.device)[layer.op] + layer.interpolation
            order = torch.argsort(keys)
            images = _rows(images, order if before is None else _inverse(before)[order])
            self._sorted(images, keys[order], layer[order])
            before = order
        return images if before is None else _rows(images, _inverse(before))

    def _alone(self, images: Tensor, layers: Sequence[Layer]) -> Tensor:
        """Each picture as a picture of Pillow's, on which all its operators work before it is written back."""
        out = torch.empty_like(images, memory_format=torch.contiguous_format)
        todo = zip(*(steps_of(layer) for layer in layers), strict=True)
        for picture, result, steps in zip(images, out, todo, strict=True):
            before = to_picture(picture)
            after = apply_steps(before, steps, fill=self.fill, cutout_fill=self.cutout_fill)
            if after is before:
                result.copy_(picture)
            else:
                from_picture(after, result)
        return out

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
        elif kind == Kind.BLUR:
            by_pillow = self.backend == "auto" and images.device.type == "cpu"  # faster there at every size
            module = pil_backend if by_pillow else self.module
            result = module.gaussian_blur(images, layer.arg, out=images)
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
