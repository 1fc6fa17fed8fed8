"""Finetune a network from a file: converted to ghosts first, with its dense self as teacher, or as it is."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from effkit.arguments import input_file
from effkit.errors import UserError
from effkit.report import Report
from shiftghost_sr.commands.parts import data_of, plain, set_up, trained_report
from shiftghost_sr.commands.train import fit
from shiftghost_sr.compression.ghostify import ghostify
from shiftghost_sr.layers.config import read_ghost
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.models.files import load_model

__all__ = ["converted", "run"]


def converted(
    model: nn.Module, ghost: Any, *, select: str = "kmeans", source: str = "cluster", seed: int = 0
) -> nn.Module:
    """Convert a dense network.

    Args:
        model: Dense.
        ghost: As for ``create_model``; maps stay at their channels unless it says otherwise.
        select: See ``ghostify``.
        source: See ``ghostify``.
        seed: See ``ghostify``.

    Raises:
        UserError: If a value is not allowed, or the network has ghosts already.
    """
    config = read_ghost(ghost)
    assert config is not None
    fields = config.to_dict()
    given = ghost if not isinstance(ghost, str) else {}
    if "order" not in given:
        fields["order"] = "index"
    ratio = fields.pop("ghost_ratio")
    fields["direction"] = tuple(fields["direction"])
    return ghostify(model, ratio, select=select, source=source, seed=seed, **fields)[0]


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr finetune`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value cannot be used.
    """
    set_up(cfg)
    start = load_model(input_file("model", cfg.model), scale=cfg.scale)
    for name in ("scale", "channels"):
        if not isinstance(getattr(start, name, None), int):
            raise UserError(f"model={cfg.model!r} does not say its {name}, which training needs")
    teacher = _teacher(cfg, start)
    model, lines = start, []
    if cfg.ghost is not None:
        ghost = cfg.ghost if isinstance(cfg.ghost, str) else plain(cfg.ghost)
        model = converted(start, ghost, select=cfg.select, source=cfg.source, seed=cfg.seed)
        lines.append(f"converted to ghosts: {_params(start):,} params before, {_params(model):,} now")
    data = data_of(cfg, int(model.scale))  # type: ignore[arg-type]
    metrics = fit(cfg, model, data, teacher=teacher)
    if any(True for _ in shifts(model)):
        lines.append("a ghost network becomes fast by `deploy`, which `upscale` and `evaluate` do by themselves")
    title = f"finetuned on {data.name}{'' if teacher is None else ', beside a teacher'}"
    return trained_report("finetune", model, metrics, title, lines)


def _teacher(cfg: Any, start: nn.Module) -> nn.Module | None:
    if cfg.teacher is None:
        return None
    if cfg.teacher == "parent":
        if cfg.ghost is None:
            raise UserError(
                "teacher=parent is the network before its conversion: give ghost=..., or a file of the parent"
            )
        return copy.deepcopy(start)
    return load_model(input_file("teacher", cfg.teacher), scale=cfg.scale)


def _params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
