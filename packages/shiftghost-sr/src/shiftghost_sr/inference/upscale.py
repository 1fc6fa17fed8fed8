"""Pictures through a network: any size, in tiles without seams, in the precision that is asked for and holds."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from effkit.errors import UserError
from shiftghost_sr.compression.halo import halo as halo_of
from shiftghost_sr.images.enlarging import enlarge
from shiftghost_sr.images.picture import Picture, bleed
from shiftghost_sr.images.reading import from_pil, read_picture, to_pil
from shiftghost_sr.inference.ensemble import self_ensemble
from shiftghost_sr.inference.memory import is_out_of_memory, release, smaller
from shiftghost_sr.inference.pixels import Pixels
from shiftghost_sr.inference.precision import Overflow, checked, in_dtype, not_finite
from shiftghost_sr.inference.tiles import Halo, Tile, run_tiled, tiles

__all__ = ["Upscaled", "Upscaler", "upscale"]

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Upscaled:
    """A picture that went through, and how.

    Attributes:
        picture: The enlarged picture.
        tile: Side of the tiles; ``None``: in one piece.
        precision: The dtype that it was computed in.
        notes: What was done otherwise than asked, in sentences.
    """

    picture: Picture
    tile: int | None
    precision: str
    notes: tuple[str, ...] = ()


class Upscaler:
    """A network set up for pictures.

    Args:
        model: From ``(N, channels, h, w)`` in 0..1 to ``scale`` times that size; with the attributes ``scale`` and
            ``channels`` (3: RGB, 1: luma), as ``create_model`` and ``load_model`` give it. One with ``grid = "hr"``
            takes pictures enlarged by cubic interpolation, which is done here. It is put into eval mode.
        tile: Largest side of a tile in low-resolution pixels. ``None``: the whole picture, and smaller tiles where that
            does not fit into memory. A number given is never changed.
        overlap: Pixels around a tile; ``None`` takes what the network sees, so that tiles show no seams. A network that
            sees the whole picture at once (attention over all pixels) has no such number: with one given here its tiles
            differ a little from the whole.
        ensemble: Take the mean over eight flips and transposes (eight times as slow).
        precision: ``"model"`` (as the weights are), ``"fp64"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``. What overflows in
            fp16 is computed again in fp32.

    Raises:
        UserError: If a value is not allowed, or the model does not say its scale.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        ensemble: bool = False,
        precision: str = "model",
    ) -> None:
        for name in ("scale", "channels"):
            if not isinstance(getattr(model, name, None), int):
                raise UserError(f"the model ({type(model).__name__}) does not say its {name}: set model.{name}")
        self.scale, self.channels = int(model.scale), int(model.channels)  # type: ignore[arg-type]
        if self.channels not in (1, 3):
            raise UserError(f"the model has channels={self.channels}, pictures need 3 (RGB) or 1 (luma)")
        if overlap is not None and (isinstance(overlap, bool) or not isinstance(overlap, int) or overlap < 0):
            raise UserError(
                f"overlap={overlap!r} must be a whole number of at least 0, or null for what the model sees"
            )
        self.enlarged = getattr(model, "grid", "lr") == "hr"
        tiles((1, 1), tile, (0, 0, 0, 0))  # checks the number
        self.plain, self.model = model.eval(), in_dtype(model.eval(), precision)
        self.tile, self.overlap, self.ensemble = tile, overlap, ensemble
        self._halo: Halo | None = None

    def __call__(self, picture: Picture) -> Upscaled:
        """Enlarge a picture.

        Raises:
            UserError: If the tile that the user chose, or the smallest one, does not fit into memory, or the output is
                not finite.
        """
        colour = picture.colour if picture.alpha is None else bleed(picture.colour, picture.alpha)
        bled = picture.with_pixels(colour, picture.alpha)

        def attempt(model: nn.Module, tile: int | None) -> Picture:
            dtype, device = _home(model)
            pixels = Pixels(bled, self.scale, self.channels, device, dtype, enlarged=self.enlarged)
            run_tiled(self._run(model), pixels.read, pixels.write, self._plan(picture.size, tile), self.scale)
            return picture.with_pixels(pixels.output, pixels.alpha())

        enlarged, tile, model, notes = self._insisting(attempt, picture.size)
        return Upscaled(enlarged, tile, str(_home(model)[0]).removeprefix("torch."), notes)

    def tensor(self, pictures: Tensor) -> Tensor:
        """Enlarge pictures that are tensors; neither rounded nor clipped.

        Args:
            pictures: ``(N, channels, h, w)`` in 0..1.

        Returns:
            ``(N, channels, h * scale, w * scale)`` of the same dtype, where the pictures are.
        """
        if pictures.ndim != 4 or pictures.shape[1] != self.channels or 0 in pictures.shape[1:]:
            raise UserError(
                f"pictures of shape {tuple(pictures.shape)} do not fit: the model takes (N, {self.channels}, h, w)"
            )
        size = int(pictures.shape[2]), int(pictures.shape[3])

        def attempt(model: nn.Module, tile: int | None) -> Tensor:
            dtype, device = _home(model)
            result = pictures.new_empty((*pictures.shape[:2], size[0] * self.scale, size[1] * self.scale))

            def write(part: Tile, values: Tensor) -> None:
                (top, bottom), (left, right) = part.rows, part.columns
                s = self.scale
                result[..., top * s : bottom * s, left * s : right * s] = values.to(result)

            def read(part: Tile) -> Tensor:
                if self.enlarged:
                    seen = enlarge(pictures, self.scale, part.seen_rows, part.seen_columns)
                else:
                    seen = pictures[..., slice(*part.seen_rows), slice(*part.seen_columns)]
                return seen.to(device, dtype)

            run_tiled(
                self._run(model),
                read,
                write,
                self._plan(size, tile),
                self.scale,
            )
            return result

        return self._insisting(attempt, size)[0]

    def _run(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(pictures: Tensor) -> Tensor:
            with torch.inference_mode():
                output: Tensor = model(pictures)
                return output

        return checked(self_ensemble(run) if self.ensemble else run)

    def _plan(self, size: tuple[int, int], tile: int | None) -> list[Tile]:
        if tile is None or tile >= max(size):
            return tiles(size, None, (0, 0, 0, 0))
        return tiles(size, tile, self.halo())

    def halo(self) -> Halo:
        """What is around a tile.

        Raises:
            UserError: If the network sees the whole picture, and no ``overlap`` is given.
        """
        if self.overlap is not None:
            return (self.overlap,) * 4
        if self._halo is None:
            try:
                above, below, left, right = halo_of(self.plain)
            except UserError as error:
                raise UserError(f"{error}; tile=null takes the whole picture, overlap=32 allows seams") from error
            step = self.scale if self.enlarged else 1  # such a network counts pixels that are enlarged already
            self._halo = (-(-above // step), -(-below // step), -(-left // step), -(-right // step))
        return (max(self._halo),) * 4 if self.ensemble else self._halo  # flips exchange the sides

    def _insisting(
        self, attempt: Callable[[nn.Module, int | None], T], size: tuple[int, int]
    ) -> tuple[T, int | None, nn.Module, tuple[str, ...]]:
        """Try in smaller tiles where memory runs out, and in float32 where fp16 overflows."""
        model, tile = self.model, self.tile
        notes: list[str] = []
        while True:
            try:
                return attempt(model, tile), tile, model, tuple(notes)
            except Overflow:
                if _home(model)[0] != torch.float16:
                    raise not_finite() from None
                notes.append("fp16 overflowed: computed again in float32")
                model = in_dtype(self.plain, "fp32")
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                fitting = smaller(tile, size)
                if self.tile is not None:
                    hint = f"give a smaller one, e.g. tile={fitting or max(1, self.tile // 2)}"
                    raise UserError(f"tile={self.tile} does not fit into memory: {hint}") from error
                if fitting is None:
                    what = "the whole picture" if tile is None else f"tile={tile}"
                    raise UserError(f"{what} does not fit into memory, and smaller tiles would not help") from error
                notes.append(f"out of memory: computed again with tile={fitting}")
                tile = fitting
            release()
            log.warning(notes[-1])


def upscale(
    model: nn.Module,
    picture: str | os.PathLike[str] | Image.Image | NDArray | Tensor | Picture,
    tile: int | None = None,
    **options: Any,
) -> Any:
    """Enlarge a picture with a model.

    Args:
        model: As for :class:`Upscaler`; ``shiftghost_sr.deploy`` makes a ghost network fast first.
        picture: A file, a PIL picture, an array (uint8 or uint16; ``(H, W)`` or ``(H, W, C)`` with 1 to 4 channels), a
            tensor ``(N, channels, h, w)`` in 0..1, or a :class:`Picture`.
        tile: Side of tiles; the result does not depend on it.
        **options: ``overlap``, ``ensemble`` and ``precision`` of :class:`Upscaler`.

    Returns:
        The same kind as ``picture``, with ``scale`` times the size; of a file a :class:`Picture`.

    Raises:
        UserError: If picture, model or options do not fit together.

    Example:
        >>> model = shiftghost_sr.create_model("edsr_baseline", 2)  # doctest: +SKIP
        >>> write_picture(upscale(model, "photo.png", tile=256), "photo_x2.png")  # doctest: +SKIP
    """
    upscaler = Upscaler(model, tile=tile, **options)
    if isinstance(picture, Tensor):
        return upscaler.tensor(picture)
    if isinstance(picture, Picture):
        return upscaler(picture).picture
    if isinstance(picture, np.ndarray):
        enlarged = upscaler(Picture.from_array(picture)).picture.array
        return enlarged.reshape(*enlarged.shape[:2], -1) if picture.ndim == 3 else enlarged
    if isinstance(picture, Image.Image):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = from_pil(picture)
        return to_pil(upscaler(given).picture)
    return upscaler(read_picture(picture)).picture


def _home(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Where a model is, and in which dtype."""
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            return value.dtype, value.device
    return torch.float32, torch.device("cpu")
