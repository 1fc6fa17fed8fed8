"""Operators one after the other on one Pillow picture, driven by plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import mul
from typing import Any, NamedTuple

from PIL import Image, ImageFilter

from kd_autoaug.ops.checks import colour
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import Kind, Op, kind_of
from kd_autoaug.ops.single import tables
from kd_autoaug.ops.single.moves import moved
from kd_autoaug.ops.single.smoothing import smoothed

__all__ = ["Step", "apply_steps", "apply_to_picture", "cut_out", "ink", "steps_of"]

Box = tuple[int, int, int, int]


class Step(NamedTuple):
    """One operator on one picture.

    Attributes:
        op: Its number.
        arg: Its argument in the units of ``operators.ARGUMENTS``.
        interpolation: Pillow's number, read by affine operators.
        box: Of cutout: left, top, right, bottom, the last two not included; may reach over the edge.
    """

    op: int
    arg: float
    interpolation: int
    box: Box


def apply_steps(
    image: Image.Image,
    steps: Sequence[Step],
    *,
    fill: int | tuple[int, ...],
    cutout_fill: int | tuple[int, ...] | None,
) -> Image.Image:
    """Apply operators to a picture: the bits of :func:`kd_autoaug.ops.apply`.

    Args:
        image: Of mode L or RGB.
        steps: In order.
        fill: As for ``apply``.
        cutout_fill: As for ``apply``.

    Returns:
        A new picture, or ``image`` where nothing changes.
    """
    if not steps:
        return image
    image.load()
    outside = ink(image.mode, fill)
    for op, arg, how, box in steps:
        if op in _AFFINE:
            image = moved(image, op, arg, how, outside)
        elif op == Op.CUTOUT:
            image = cut_out(image, box, outside if cutout_fill is None else ink(image.mode, cutout_fill))
        elif op:
            image = _OPERATORS[op](image, arg)
    return image


def apply_to_picture(
    image: Image.Image,
    layers: Iterable[Layer],
    *,
    fill: int | tuple[int, ...],
    cutout_fill: int | tuple[int, ...] | None,
) -> Image.Image:
    """Apply layers, each for a batch of one, to a picture; as :func:`apply_steps`."""
    return apply_steps(image, [steps_of(one)[0] for one in layers], fill=fill, cutout_fill=cutout_fill)


def steps_of(layer: Layer) -> list[Step]:
    """What a layer does to each picture of its batch."""
    boxes = map(tuple, layer.box.tolist())
    return list(map(Step, layer.op.tolist(), layer.arg.tolist(), layer.interpolation.tolist(), boxes))


@lru_cache(maxsize=64)
def ink(mode: str, fill: int | tuple[int, ...]) -> Any:
    """A colour as Pillow takes it for pictures of a mode."""
    values = colour("fill", fill, 3 if mode == "RGB" else 1)
    return values[0] if len(values) == 1 else values


def cut_out(image: Image.Image, box: Box, fill: Any) -> Image.Image:
    """Fill a rectangle, which may reach over the edge."""
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3])
    if right <= left or bottom <= top:
        return image
    image = image.copy()
    image.paste(fill, (left, top, right, bottom))
    return image


def _looked_up(image: Image.Image, table: list[int]) -> Image.Image:
    # Image.point rounds each of the 768 numbers in Python first, which takes longer than a small picture's pixels.
    return image._new(image.im.point(table, None))


def _channels(image: Image.Image) -> int:
    return 3 if image.mode == "RGB" else 1


def _by_table(table: Callable[[float, int], list[int]]) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, arg: _looked_up(image, table(arg, _channels(image)))


def _invert(image: Image.Image, arg: float) -> Image.Image:
    return _looked_up(image, tables.inverted(_channels(image)))


def _contrast(image: Image.Image, arg: float) -> Image.Image:
    counts = (image if image.mode == "L" else image.convert("L")).histogram()
    mean = int(sum(map(mul, counts, tables.SAME)) / (image.width * image.height) + 0.5)
    return _looked_up(image, tables.contrast(mean, arg, _channels(image)))


def _color(image: Image.Image, arg: float) -> Image.Image:
    return image if image.mode == "L" else Image.blend(image.convert("L").convert("RGB"), image, arg)


def _sharpness(image: Image.Image, arg: float) -> Image.Image:
    return Image.blend(smoothed(image), image, arg)


def _autocontrast(image: Image.Image, arg: float) -> Image.Image:
    counts = image.histogram()
    found = [tables.stretched(counts[begin : begin + 256]) for begin in range(0, len(counts), 256)]
    if all(table is tables.SAME for table in found):
        return image
    return _looked_up(image, [v for table in found for v in table])


def _equalize(image: Image.Image, arg: float) -> Image.Image:
    counts, pixels = image.histogram(), image.width * image.height
    table: list[int] = []
    for begin in range(0, len(counts), 256):
        table += tables.equalized(counts[begin : begin + 256], pixels)
    return _looked_up(image, table)


def _blur(image: Image.Image, arg: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(arg)) if arg > 0 else image


_AFFINE = frozenset(int(op) for op in Op if kind_of(op) == Kind.AFFINE)
_OPERATORS: dict[int, Callable[[Image.Image, float], Image.Image]] = {
    int(op): change
    for op, change in {
        Op.BRIGHTNESS: _by_table(tables.brightness),
        Op.COLOR: _color,
        Op.CONTRAST: _contrast,
        Op.SHARPNESS: _sharpness,
        Op.POSTERIZE: _by_table(tables.posterized),
        Op.SOLARIZE: _by_table(tables.solarized),
        Op.SOLARIZE_ADD: _by_table(tables.sum_added),
        Op.AUTOCONTRAST: _autocontrast,
        Op.EQUALIZE: _equalize,
        Op.INVERT: _invert,
        Op.GAUSSIAN_BLUR: _blur,
    }.items()
}
