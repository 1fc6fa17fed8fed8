"""A trained dense network becomes a ghost network, from which finetuning starts."""

from __future__ import annotations

from typing import Any

from effkit.arguments import check_arguments, input_file, renamed
from effkit.checkpoints import SUFFIXES
from effkit.cli import run_dir
from effkit.errors import UserError
from effkit.outputs import check_output_file
from effkit.report import Report
from shiftghost_sr.commands.parts import plain
from shiftghost_sr.compression.ghostify import ghostify
from shiftghost_sr.layers.config import read_ghost
from shiftghost_sr.models.files import load_model, save_model, state_with_mark

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr convert`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the file cannot be read, or the network cannot have ghosts.
    """
    options = plain(cfg)
    out = run_dir() / "ghost.safetensors" if options["out"] is None else options["out"]
    check_output_file("out", out, SUFFIXES)
    ghost = read_ghost(options["ghost"])
    if ghost is None:
        raise UserError("ghost=null leaves the network as it is; name a kind, e.g. ghost=default")
    how = {key: options[key] for key in ("select", "source", "use_previous", "seed", "targets")}
    check_arguments(ghostify, how)
    model = load_model(input_file("model", options["model"]), scale=options["scale"])
    fields = {**ghost.to_dict(), "order": "index"}
    ratio = fields.pop("ghost_ratio") if options["ghost_ratio"] is None else options["ghost_ratio"]
    fields.pop("ghost_ratio", None)
    with renamed({"order": "ghost.order"}):
        made, found = ghostify(model, ratio, **how, **fields)
    state_with_mark(made)  # refused here rather than when the file is written
    file = save_model(made, out)
    lines = [f"{found.params[0]:,} parameters became {found.params[1]:,}; finetune before you use it"]
    return Report("shiftghost-sr convert", found.tables(), data=found.to_dict(), files=[file], lines=lines)
