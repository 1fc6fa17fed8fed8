"""PSNR and SSIM on held-out pictures, beside cubic interpolation."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effkit.errors import UserError, choose
from effkit.progress import report_progress
from effkit.report import Report, Table
from shiftghost_sr.commands.parts import data_of, network_file, precision_of, set_up
from shiftghost_sr.images.metrics import SMALLEST, psnr_rgb, psnr_y, ssim_y
from shiftghost_sr.images.picture import Picture
from shiftghost_sr.images.resampling import imresize
from shiftghost_sr.inference.opening import open_network
from shiftghost_sr.inference.upscale import Upscaler

__all__ = ["decibels", "run", "similarity"]


def decibels(restored: NDArray, original: NDArray, scale: int, protocol: str = "y") -> float:
    """PSNR of one picture.

    Args:
        restored: uint8 ``(H, W, 3)``.
        original: Likewise.
        scale: The factor.
        protocol: ``y``: luma, ``scale`` pixels left out at each side; ``div2k``: all channels, ``scale + 6``.
    """
    return (psnr_y if protocol == "y" else psnr_rgb)(restored, original, _shave(scale, protocol))


def similarity(restored: NDArray, original: NDArray, scale: int, protocol: str = "y") -> float | None:
    """SSIM of one picture's luma, ``None`` where it is smaller than the window; arguments as for :func:`decibels`."""
    shave = _shave(scale, protocol)
    fits = min(original.shape[:2]) - 2 * shave >= SMALLEST
    return ssim_y(restored, original, shave) if fits else None


def _shave(scale: int, protocol: str) -> int:
    return scale if protocol == "y" else scale + 6


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr evaluate`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value cannot be used, or pictures are missing.
    """
    device = set_up(cfg)
    choose("split", cfg.split, ["test", "val"])
    choose("protocol", cfg.protocol, ["y", "div2k"])
    upscaler = None
    if cfg.run or cfg.model:
        model = open_network(network_file(cfg), device, scale=cfg.scale)
        upscaler = Upscaler(
            model, tile=cfg.tile, overlap=cfg.overlap, ensemble=cfg.ensemble, precision=precision_of(cfg, device)
        )
    scale = _scale(cfg.scale, upscaler)
    data = data_of(cfg, scale)
    pairs = data.pairs(cfg.split)
    rows: list[list[Any]] = []
    for number, pair in enumerate(pairs):
        report_progress(pair.name, number / len(pairs))
        high, low = pair.both(scale)
        row = [pair.name, f"{high.shape[1]}x{high.shape[0]}", *_both(imresize(low, scale), high, scale, cfg.protocol)]
        if upscaler is not None:
            started = time.perf_counter()
            found = upscaler(Picture(np.ascontiguousarray(low)))
            seconds = time.perf_counter() - started
            row += [*_both(found.picture.colour, high, scale, cfg.protocol), seconds]
        rows.append(row)
    columns = ["picture", "pixels", "cubic PSNR", "cubic SSIM"]
    columns += [] if upscaler is None else ["PSNR", "SSIM", "seconds"]
    means = [_mean([row[k] for row in rows]) for k in range(2, len(columns))]
    means_by_name = dict(zip(columns[2:], means, strict=True))
    ending = ", self-ensemble" if cfg.ensemble else ""
    title = f"x{scale} on {data.name}, {cfg.split}, protocol {cfg.protocol}{ending}"
    table = Table(title, columns, [*rows, ["mean", None, *means]])
    return Report("shiftghost-sr evaluate", [table], data={"scale": scale, "means": means_by_name})


def _both(restored: NDArray, original: NDArray, scale: int, protocol: str) -> tuple[float, float | None]:
    return decibels(restored, original, scale, protocol), similarity(restored, original, scale, protocol)


def _scale(given: int | None, upscaler: Upscaler | None) -> int:
    if upscaler is None and given is None:
        raise UserError("scale is not set: cubic interpolation alone needs scale=2, 3, 4 or 8")
    scale = upscaler.scale if upscaler is not None else given
    assert scale is not None
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise UserError(f"scale={scale!r} must be a whole number of at least 1")
    if given is not None and given != scale:
        raise UserError(f"scale={given}, but the network's is {scale}: leave scale= out")
    return scale


def _mean(values: list[Any]) -> float | None:
    numbers = [v for v in values if v is not None]
    return statistics.fmean(numbers) if numbers else None
