"""Write a model as ONNX or torch.export file, and check what was written against torch."""

from __future__ import annotations

from typing import Any

from effkit.cli import run_dir
from effkit.report import Report
from tnt_vit.checkpoints.zoo import full_name
from tnt_vit.commands.build import set_up
from tnt_vit.commands.opened import open_network
from tnt_vit.commands.options import options
from tnt_vit.inference.export import check_export, export_model
from tnt_vit.inference.formats import SUFFIXES

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit export`` does; the file lies in the run folder, named after the variant, if none is named.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If an argument does not fit, or packages are missing.
    """
    how = options(cfg, "batch", "optimize", "opset", "check")
    check_export(cfg.out, cfg.to, **how)
    set_up(cfg)
    found = open_network(cfg)
    out = run_dir() / f"{full_name(found.name)}{SUFFIXES[cfg.to]}" if cfg.out is None else cfg.out
    model: Any = found.model.eval()
    return export_model(model, out, cfg.to, **how, pretrained=found.weights, preprocessing=found.preprocessing)
