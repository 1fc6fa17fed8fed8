"""A ghost network in its deployed form: what became of its layers, proof that it computes the same, and a file."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import nn

from effkit.arguments import input_file
from effkit.cli import run_dir
from effkit.report import Report, Table
from shiftghost_sr.commands.parts import plain
from shiftghost_sr.compression.count import Count, count_module
from shiftghost_sr.compression.deploy import deploy
from shiftghost_sr.compression.exporting import check_export, export_network
from shiftghost_sr.compression.forms import without_numbers
from shiftghost_sr.models.files import load_model

__all__ = ["costs_of", "largest_difference", "run"]

_FRAMES = ((1, 1), (1, 6), (5, 1), (2, 3), (7, 5), (19, 26))
_PARITY = 1e-12  # in float64, relative to the largest number of the result


def largest_difference(model: nn.Module) -> list[list[Any]]:
    """How far the deployed form is from the network, in float64, relative to its result, on frames of many sizes.

    Args:
        model: In evaluation mode.
    """
    exact = copy.deepcopy(model).double()
    fast = deploy(exact)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for height, width in _FRAMES:
        shape = (1, int(model.channels), height, width)  # type: ignore[arg-type]
        x = torch.rand(shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            expected, found = exact(x), fast(x)
        far = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-300))
        rows.append([f"{height} x {width}", far, "match" if far <= _PARITY else "differs"])
    return rows


def costs_of(model: nn.Module, fast: nn.Module) -> tuple[Count, Count]:
    """Costs of a network and of its deployed form, which is made from numbers: learnt slopes decide what is folded."""
    before, after = (count_module(without_numbers(copy.deepcopy(m))) for m in (model, fast))
    return before, after


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr deploy`` does.

    Args:
        cfg: The composed config.

    Returns:
        Decisions, costs and the check; exit code 1 if it failed, and no file then.

    Raises:
        UserError: If the file cannot be read, or ``out`` cannot be written.
    """
    options = plain(cfg)
    out = run_dir() / "deployed.pt2" if options["out"] is None else options["out"]
    check_export(out, "torch_export", None)
    model = load_model(input_file("model", options["model"]), scale=options["scale"])
    fast = deploy(model)
    checks = largest_difference(model)
    good = all(row[-1] == "match" for row in checks)
    counted = Counter((d.what, d.why) for d in fast.decisions)
    rows = [[what, why, number] for (what, why), number in sorted(counted.items())]
    tables = [Table("Layers that read moved maps", ["", "why", "layers"], rows)]
    before, after = costs_of(model, fast)
    costs = [["before", before.params, before.macs], ["deployed", after.params, after.macs + after.border_macs]]
    tables.append(Table("Cost of an HR frame of 720 x 1280", ["form", "params", "MACs"], costs))
    tables.append(Table("Against the network itself, in float64", ["frame", "relative difference", "verdict"], checks))
    files = []
    if good:
        file, more = export_network(model, out, "torch_export")
        tables += more
        files = [file] if file is not None else []
    data = {
        "decisions": [vars(d) for d in fast.decisions], "match": good, "difference": max(row[1] for row in checks),
        "macs": [before.macs, after.macs + after.border_macs], "params": [before.params, after.params],
    }  # fmt: skip
    return Report("shiftghost-sr deploy", tables, data=data, files=files, exit_code=0 if good else 1)
