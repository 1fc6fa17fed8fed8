"""A network as Python source with its weights, which need only torch."""

from __future__ import annotations

from typing import Any

import torch

from effkit.cli import run_dir
from effkit.errors import UserError
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from effkit.runs import Run
from ws_nas.commands.build import make_space, plain, read_genotypes
from ws_nas.commands.evaluate import derived_of, open_run
from ws_nas.commands.splits import calibration_pictures
from ws_nas.evaluation.exporting import export_files

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``ws-nas export`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the genotype is not of the space, the run has none, or the file cannot be written.
    """
    options = plain(cfg)
    out = check_output_file("out", options["out"], [".py"]) if options["out"] else run_dir() / "network.py"
    check_output_file("out", str(out.with_suffix(".pt")))
    written_genotype = [] if options["genotype"] is None else [options["genotype"]]
    if options["run"] is None:
        space = make_space(options["space"])
        if not written_genotype:
            raise UserError("genotype=null: give a genotype, or run=RUN for the network that a training came to")
        (genotype,) = read_genotypes(space, written_genotype, "genotype")
        torch.manual_seed(options["seed"])
        network, weights = space.build(genotype), f"initial, of seed {options['seed']}"
    else:
        opened = Run.open(options["run"], package="ws_nas")
        data, space, family = open_run(opened, options["weights"])
        (genotype,) = read_genotypes(space, written_genotype, "genotype") or [derived_of(opened, space)]
        supernet: Any = family.net_of(genotype)
        pictures = calibration_pictures(data, options["calibration"])
        supernet.recalibrate_bn(pictures, genotype)
        network, weights = supernet.export(genotype), f"inherited from {opened.folder.name}"
    cost = space.cost(genotype)
    title = f"{space.str(genotype)} of {space.name}: {cost.params:,} parameters, {cost.macs:,} MACs."
    files = export_files(network, space.layout, out, title)
    rows = [
        ["space", space.name],
        ["genotype", space.str(genotype)],
        ["params", f"{cost.params:,}"],
        ["MACs", f"{cost.macs:,}"],
        ["weights", weights],
    ]
    found = {"space": space.name, "hash": space.hash, "genotype": space.str(genotype), "weights": weights}
    lines = [f"{files[0].name}: load() gives the network; {files[1].name} holds its weights"]
    data_out = {**found, "params": cost.params, "macs": cost.macs}
    return Report("ws-nas export", [Table("Exported", ["", ""], rows)], data=data_out, files=files, lines=lines)
