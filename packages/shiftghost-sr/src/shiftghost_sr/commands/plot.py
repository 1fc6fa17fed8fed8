"""Pictures of what networks have learnt, give and cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effkit.arguments import input_file
from effkit.cli import run_dir
from effkit.data import BUNDLED
from effkit.errors import UserError, choose
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from effkit.timing import compare
from shiftghost_sr.commands.evaluate import decibels
from shiftghost_sr.commands.parts import set_up
from shiftghost_sr.images.metrics import luma
from shiftghost_sr.images.picture import Picture
from shiftghost_sr.images.resampling import imresize
from shiftghost_sr.images.sets import BUNDLED_SPLITS, Pair, find_pairs
from shiftghost_sr.inference.opening import open_network
from shiftghost_sr.inference.upscale import Upscaler
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.models.files import load_model
from shiftghost_sr.plots.comparisons import busiest_part, draw_comparison, draw_errors
from shiftghost_sr.plots.rose import draw_rose
from shiftghost_sr.plots.similarity import cosines, draw_similarity
from shiftghost_sr.plots.tradeoff import Point, draw_ablation, draw_tradeoff

__all__ = ["KINDS", "run"]

Drawn = tuple[Table, Path]


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr plot`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value cannot be used, or a network has not what is to be drawn.
    """
    device = set_up(cfg)
    draw = KINDS[choose("what", cfg.what, KINDS)]
    if not cfg.models:
        raise UserError("models is empty: give files of weights, models=[ghost.safetensors]")
    files = [Path(input_file("models", file)) for file in cfg.models]
    names = [file.stem for file in files] if cfg.names is None else list(map(str, cfg.names))
    if len(names) != len(files) or len(set(names)) != len(names):
        raise UserError(f"names={names} must be as many different names as there are models, {len(files)}")
    out = check_output_file("out", run_dir() / f"{cfg.what}.png" if cfg.out is None else cfg.out, [".png"])
    table, file = draw(cfg, dict(zip(names, files, strict=True)), out, device)
    return Report("shiftghost-sr plot", [table], files=[file])


def _rose(cfg: Any, files: dict[str, Path], out: Path, device: torch.device) -> Drawn:
    name, model = _only(cfg, files)
    layers = {layer: shift.chosen_directions() for layer, shift in shifts(model)}
    if not layers:
        raise UserError(f"models={name!r} has no shifts: it is a dense network")
    rows = [[layer, " ".join(f"({dy:+d}, {dx:+d})" for dy, dx in found)] for layer, found in layers.items()]
    path = draw_rose(layers, out, f"{name}: where ghosts are read")
    return Table("Directions (rows down, columns right)", ["layer", "directions"], rows), path


def _similarity(cfg: Any, files: dict[str, Path], out: Path, device: torch.device) -> Drawn:
    name, model = _only(cfg, files)
    convs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)}
    if not convs:
        raise UserError(f"models={name!r} has no convolutions larger than 1x1")
    layer = (
        max(convs, key=lambda n: convs[n].weight.numel()) if cfg.layer is None else choose("layer", cfg.layer, convs)
    )
    weight = convs[layer].weight.detach().double().numpy()
    best = np.abs(cosines(weight) - np.eye(len(weight))).max(1)
    rows = [[layer, len(weight), float(np.median(best)), float(best.max())]]
    table = Table("How alike filters are", ["layer", "filters", "median of the best cosines", "best cosine"], rows)
    return table, draw_similarity(weight, out, f"{name}: filters of {layer}")


def _before_after(cfg: Any, files: dict[str, Path], out: Path, device: torch.device) -> Drawn:
    high, low, scale, enlarged = _enlarged(cfg, files, device)
    pictures = {"cubic": imresize(low, scale), **enlarged}
    psnr = {name: decibels(picture, high, scale) for name, picture in pictures.items()}
    if isinstance(cfg.side, bool) or not isinstance(cfg.side, int) or cfg.side < 1:
        raise UserError(f"side={cfg.side!r} must be a whole number of at least 1")
    part = busiest_part(high, cfg.side)
    path = draw_comparison({**pictures, "original": high}, psnr, part, out, f"{Path(cfg.picture).stem}, x{scale}")
    return Table("PSNR of the whole picture", ["method", "dB"], [[n, v] for n, v in psnr.items()]), path


def _errors(cfg: Any, files: dict[str, Path], out: Path, device: torch.device) -> Drawn:
    high, low, scale, enlarged = _enlarged(cfg, files, device)
    pictures = {"cubic": imresize(low, scale), **enlarged}
    errors = {name: np.abs(luma(picture) - luma(high)) for name, picture in pictures.items()}
    rows = [[name, float(error.mean()), float(np.quantile(error, 0.99))] for name, error in errors.items()]
    table = Table("Error of the luma, grey levels", ["method", "mean", "99 %"], rows)
    return table, draw_errors(errors, out, f"{Path(cfg.picture).stem}, x{scale}: where the error is")


def _latency(cfg: Any, files: dict[str, Path], out: Path, device: torch.device) -> Drawn:
    psnr, upscalers, low = _measured(cfg, files, device)
    picture = Picture(low)
    found = compare(
        {name: lambda u=u: u(picture) for name, u in upscalers.items()},  # type: ignore[misc]
        device=device,
        warmup=1,
        min_rounds=cfg.rounds,
        min_seconds=0.0,
        memory=False,
    )
    points = [
        Point(name, statistics.fmean(psnr[name]), 1e3 * t.median, (1e3 * t.p20, 1e3 * t.p80))
        for name, t in found.timings.items()
    ]
    rows = [[p.name, p.psnr, p.milliseconds, *(p.spread or (None, None))] for p in points]
    table = Table(
        f"A picture of {low.shape[1]}x{low.shape[0]} pixels, {found.threads} threads on {found.device}",
        ["network", "PSNR, dB", "median ms", "20 %", "80 %"],
        rows,
        "PSNR is the mean over the held-out bundled photographs; times include reading and rounding the pixels.",
    )
    return table, draw_tradeoff(points, out, "What it gives and what it takes")


def _gains(cfg: Any, files: dict[str, Path], out: Path, device: torch.device) -> Drawn:
    psnr, _, _ = _measured(cfg, files, device)
    cubic = psnr.pop("cubic")
    gains = {name: [v - c for v, c in zip(values, cubic, strict=True)] for name, values in psnr.items()}
    names = BUNDLED_SPLITS["test"]
    rows = [[name, *values, statistics.fmean(values)] for name, values in gains.items()]
    table = Table("dB over cubic interpolation", ["network", *names, "mean"], rows)
    return table, draw_ablation(gains, out, f"Gain on {' and '.join(names)}, a point each")


KINDS: dict[str, Callable[[Any, dict[str, Path], Path, torch.device], Drawn]] = {
    "rose": _rose,
    "similarity": _similarity,
    "before_after": _before_after,
    "errors": _errors,
    "latency": _latency,
    "gains": _gains,
}
"""By the name that ``what=NAME`` takes."""


def _only(cfg: Any, files: dict[str, Path]) -> tuple[str, nn.Module]:
    if len(files) != 1:
        raise UserError(f"what={cfg.what} draws one network, and models names {len(files)}")
    ((name, file),) = files.items()
    return name, load_model(file, scale=cfg.scale)


def _upscalers(cfg: Any, files: dict[str, Path], device: torch.device) -> tuple[int, dict[str, Upscaler]]:
    found = {name: Upscaler(open_network(file, device, scale=cfg.scale)) for name, file in files.items()}
    scales = {name: upscaler.scale for name, upscaler in found.items()}
    if len(set(scales.values())) > 1:
        raise UserError(f"models have different scales: {', '.join(f'{n} {s}' for n, s in scales.items())}")
    return next(iter(scales.values())), found


def _enlarged(
    cfg: Any, files: dict[str, Path], device: torch.device
) -> tuple[NDArray, NDArray, int, dict[str, NDArray]]:
    """A picture, its low-resolution form, the factor, and what each network makes of that."""
    scale, upscalers = _upscalers(cfg, files, device)
    bundled = {*BUNDLED, *(name for names in BUNDLED_SPLITS.values() for name in names)}
    source = cfg.picture if cfg.picture in bundled else input_file("picture", cfg.picture)
    high, low = Pair(Path(source).stem, source).both(scale)
    return high, low, scale, {name: u(Picture(low)).picture.colour for name, u in upscalers.items()}


def _measured(
    cfg: Any, files: dict[str, Path], device: torch.device
) -> tuple[dict[str, list[float]], dict[str, Upscaler], NDArray]:
    """PSNR on the held-out photographs by network, and by cubic interpolation; the networks; a picture."""
    scale, upscalers = _upscalers(cfg, files, device)
    psnr: dict[str, list[float]] = {name: [] for name in (*upscalers, "cubic")}
    for pair in find_pairs("bundled", "test", scale):
        high, low = pair.both(scale)
        psnr["cubic"].append(decibels(imresize(low, scale), high, scale))
        for name, upscaler in upscalers.items():
            psnr[name].append(decibels(upscaler(Picture(low)).picture.colour, high, scale))
    return psnr, upscalers, find_pairs("bundled", "test", scale)[0].both(scale)[1]
