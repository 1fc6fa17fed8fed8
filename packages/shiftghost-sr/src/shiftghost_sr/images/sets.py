"""Which pictures belong to a data set, and which low-resolution pictures to them: bundled ones, folders, DIV2K."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effkit.data.finding import is_picture
from effkit.data.pictures import BUNDLED, load_picture, wheel_picture
from effkit.errors import UserError, choose
from shiftghost_sr.images.resampling import imresize, mod_crop

__all__ = ["BUNDLED_SPLITS", "DATASETS", "Pair", "find_pairs"]

BUNDLED_SPLITS = {
    "train": ("coffee", "rocket", "chelsea", "retina", "ihc", "motorcycle_left"),
    "val": ("china", "flower"),
    "test": ("astronaut", "hubble_deep_field"),
}
"""Photographs in the wheels of scikit-image and scikit-learn; no picture is in two splits."""

DATASETS = ("bundled", "folder", "div2k", "benchmark")
_SPLIT_FOLDERS = {"train": "train", "val": "valid", "test": "valid"}
_HIGH = ("HR", "original", "GTmod12", ".")


@dataclass(frozen=True)
class Pair:
    """A picture of a data set.

    Attributes:
        name: For reports.
        high: A file, or the name of a bundled photograph.
        low: The file of its low-resolution form; ``None``: made by MATLAB's ``imresize``.
    """

    name: str
    high: str
    low: str | None = None

    def read(self, scale: int) -> tuple[NDArray, NDArray | None]:
        """Both forms, uint8 RGB ``(H, W, 3)``; the high-resolution one is cut to multiples of ``scale``.

        Raises:
            UserError: If a file cannot be read, or the two do not fit together.
        """
        high = mod_crop(_pixels(self.high), scale)
        if self.low is None:
            return high, None
        low = _pixels(self.low)
        wanted = high.shape[0] // scale, high.shape[1] // scale
        if low.shape[:2] != wanted:
            raise UserError(
                f"{self.low!r} has {low.shape[1]}x{low.shape[0]} pixels, but {self.high!r} at scale={scale} "
                f"means {wanted[1]}x{wanted[0]}"
            )
        return high, low

    def both(self, scale: int) -> tuple[NDArray, NDArray]:
        """As :meth:`read`, the low-resolution form made where there is no file of it."""
        high, low = self.read(scale)
        return high, imresize(high, 1 / scale) if low is None else low


def _pixels(source: str) -> NDArray:
    wheels = {name for names in BUNDLED_SPLITS.values() for name in names} - set(BUNDLED)
    return np.array(wheel_picture(source) if source in wheels else load_picture(source))


def find_pairs(
    name: str,
    split: str,
    scale: int,
    *,
    root: str | Path | None = None,
    val_root: str | Path | None = None,
    lr_root: str | Path | None = None,
    val_lr_root: str | Path | None = None,
) -> list[Pair]:
    """List the pictures of one split.

    Args:
        name: One of :data:`DATASETS`. ``folder``: high-resolution pictures in ``root`` (training) and ``val_root``
            (validation and test; the bundled ones if not given). ``div2k``: the folders of DIV2K in ``root``.
            ``benchmark``: one data set for evaluation (Set5, Urban100 ...), in ``root`` itself or its folder ``HR``.
        split: ``train``, ``val`` or ``test``.
        scale: Of the low-resolution pictures.
        root: See above.
        val_root: See above.
        lr_root: Low-resolution pictures of ``root`` with the same names, also with ``x2`` behind them. ``None``: those
            beside it, as DIV2K and the benchmarks are distributed; else they are made.
        val_lr_root: Likewise of ``val_root``.

    Raises:
        UserError: If a folder is missing or has no pictures, or a low-resolution picture is missing.
    """
    choose("data.name", name, DATASETS)
    choose("split", split, BUNDLED_SPLITS)
    if name == "bundled":
        return [Pair(photo, photo) for photo in BUNDLED_SPLITS[split]]
    if name == "folder":
        if split == "train":
            return _folder("data.root", root, lr_root, scale)
        if val_root is None:
            return find_pairs("bundled", split, scale)
        return _folder("data.val_root", val_root, val_lr_root, scale)
    if name == "div2k":
        return _div2k(_need("data.root", root), split, scale, lr_root if split == "train" else val_lr_root)
    return _benchmark(_need("data.root", root), scale, lr_root)


def _need(field: str, value: str | Path | None) -> Path:
    if value is None or str(value) == "":
        raise UserError(f"{field} is not set: give the folder of the pictures, e.g. {field}=PATH")
    path = Path(value).expanduser()
    if not path.is_dir():
        raise UserError(f"{field}={str(value)!r} is not a folder: give the folder of the pictures")
    return path


def _files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if is_picture(p.name) and p.is_file())
    if not found:
        raise UserError(f"the folder {str(folder)!r} holds no pictures")
    return found


def _folder(field: str, root: str | Path | None, low: str | Path | None, scale: int) -> list[Pair]:
    lr_field = field.replace("val_root", "val_lr_root") if "val" in field else "data.lr_root"
    return _paired(_files(_need(field, root)), None if low is None else _need(lr_field, low), scale)


def _div2k(root: Path, split: str, scale: int, low: str | Path | None) -> list[Pair]:
    part = f"DIV2K_{_SPLIT_FOLDERS[split]}"
    high = root / f"{part}_HR"
    if not high.is_dir():
        raise UserError(
            f"data.root={str(root)!r} has no folder {high.name}: give the folder that DIV2K was unpacked to"
        )
    beside = root / f"{part}_LR_bicubic" / f"X{scale}"
    chosen = _need("data.lr_root", low) if low is not None else beside if beside.is_dir() else None
    return _paired(_files(high), chosen, scale)


def _benchmark(root: Path, scale: int, low: str | Path | None) -> list[Pair]:
    high = next(root / name for name in _HIGH if (root / name).is_dir())
    beside = root / "LR_bicubic" / f"X{scale}"
    chosen = _need("data.lr_root", low) if low is not None else beside if beside.is_dir() else None
    return _paired(_files(high), chosen, scale)


def _paired(high: Sequence[Path], low: Path | None, scale: int) -> list[Pair]:
    if low is None:
        return [Pair(file.stem, str(file)) for file in high]
    plain = _by_stem(_files(low), lambda stem: re.sub(rf"_?[xX]{scale}$", "", stem))
    exact = _by_stem(_files(low), str)
    pairs = []
    for file in high:
        found = exact.get(file.stem) or plain.get(file.stem)
        if found is None:
            raise UserError(f"{str(low)!r} has no low-resolution picture of {file.name!r} ({file.stem}x{scale}.png)")
        pairs.append(Pair(file.stem, str(file), str(found)))
    return pairs


def _by_stem(files: Iterable[Path], name: Callable[[str], str]) -> dict[str, Path]:
    return {name(file.stem): file for file in files}
