"""Trainings of the claim: what ``train`` and ``finetune`` do, and dB on the held-out photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effkit.cli import compose
from shiftghost_sr.commands.evaluate import decibels
from shiftghost_sr.commands.finetune import converted
from shiftghost_sr.commands.parts import data_of, network_of, set_up
from shiftghost_sr.commands.train import fit
from shiftghost_sr.images.picture import Picture
from shiftghost_sr.images.resampling import imresize
from shiftghost_sr.images.sets import find_pairs
from shiftghost_sr.inference.upscale import Upscaler
from shiftghost_sr.models.files import load_model, save_model

__all__ = ["TRAINED", "cubic", "psnr", "recover", "train"]

TRAINED = ("sr", "vdsr.safetensors")
"""Where the trained VDSR of pytorch-vdsr is, if larger real data is at hand."""

RECOVERY = (
    "experiment=laptop_finetune", "scale=2", "data.patch=40", "data.batch_size=4", "data.crops=480",
    "trainer.max_epochs=1", "optimizer.lr=5.0e-4",
)  # fmt: skip
"""Of the trained network: 120 steps."""

QUIET = ("trainer.enable_progress_bar=false", "checkpoint_minutes=null")


def train(
    command: str, words: list[str], seed: int, folder: Path, ghost: str | None, parent: str | None
) -> list[float]:
    """Do what ``train`` or ``finetune`` does; dB on each held-out photograph."""
    cfg = compose("shiftghost-sr", "shiftghost_sr.configs", command, [*words, *QUIET, f"seed={seed}"])
    set_up(cfg)
    if parent is None:
        model, teacher = network_of(cfg), None
    else:
        teacher = load_model(parent)
        model = converted(teacher, ghost, select=cfg.select, source=cfg.source, seed=seed)
        save_model(model, folder / "converted.safetensors")
    fit(cfg, model, data_of(cfg, 2), teacher=teacher, folder=folder)
    save_model(model, folder / "model.safetensors")
    return psnr(model)


def recover(file: str, seed: int, folder: Path) -> dict[str, list[float]]:
    """Convert a trained network of 20 layers and finetune it; dB on each held-out photograph, stage by stage."""
    words = [*RECOVERY, f"model={file}", f"seed={seed}"]
    cfg = compose("shiftghost-sr", "shiftghost_sr.configs", "finetune", [*words, *QUIET])
    set_up(cfg)
    teacher = load_model(file, scale=2)
    model = converted(teacher, "default", select=cfg.select, source=cfg.source, seed=seed)
    found = {"dense": psnr(teacher), "converted, not finetuned": psnr(model)}
    fit(cfg, model, data_of(cfg, 2), teacher=teacher, folder=folder)
    return {**found, "learned shift": psnr(model)}


def psnr(model: Any) -> list[float]:
    upscaler = Upscaler(model.eval())
    values = []
    for pair in find_pairs("bundled", "test", 2):
        high, low = pair.both(2)
        values.append(decibels(upscaler(Picture(low)).picture.colour, high, 2))
    return values


def cubic() -> list[float]:
    pairs = [pair.both(2) for pair in find_pairs("bundled", "test", 2)]
    return [decibels(imresize(low, 2), high, 2) for high, low in pairs]
