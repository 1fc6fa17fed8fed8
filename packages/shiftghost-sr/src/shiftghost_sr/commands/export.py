"""A network as ONNX, or as a program of torch.export."""

from __future__ import annotations

from typing import Any

from effkit.arguments import input_file
from effkit.cli import run_dir
from effkit.errors import choose
from effkit.report import Report
from shiftghost_sr.commands.parts import plain
from shiftghost_sr.compression.exporting import FORMATS, check_export, export_network
from shiftghost_sr.models.files import load_model

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr export`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the file cannot be read, ``out`` cannot be written, packages are missing, or the file would not
            compute what the network computes.
    """
    options = plain(cfg)
    to = choose("to", options["to"], FORMATS)
    out = run_dir() / f"network{FORMATS[to]}" if options["out"] is None else options["out"]
    check_export(out, to, options["opset"])
    model = load_model(input_file("model", options["model"]), scale=options["scale"])
    file, tables = export_network(model, out, to, opset=options["opset"])
    return Report("shiftghost-sr export", tables, data={"to": to}, files=[] if file is None else [file])
