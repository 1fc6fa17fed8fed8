"""Measure sub-networks of a trained super-network on the test split, with the weights that they inherit."""

from __future__ import annotations

import json
from typing import Any

from effkit.checkpoints import read_checkpoint
from effkit.device import resolve_device, seed_everything, set_threads
from effkit.errors import UserError
from effkit.lightning import load_checkpoint
from effkit.report import Report, Table
from effkit.runs import Run
from ws_nas.commands.build import plain, read_genotypes
from ws_nas.commands.train import GENOTYPE_FILE, open_family, scoring_of
from ws_nas.families.base import Family
from ws_nas.spaces.space import Genotype, Space
from ws_nas.training.pictures import open_data

__all__ = ["derived_of", "open_run", "run"]


def open_run(opened: Run, which: str = "auto") -> tuple[Any, Space, Family]:
    """Data, space and family of a finished or running training, with its weights.

    Args:
        opened: The run.
        which: See ``Run.weights``.

    Raises:
        UserError: If it is no training of a family, or was of another space.
    """
    if "family" not in opened.config:
        raise UserError(f"run={str(opened.folder)!r} is no training of a family")
    data, space, family = open_family(opened.config)
    file = opened.weights(which)
    checkpoint = file if file.suffix == ".ckpt" else opened.folder / "checkpoints" / "last.ckpt"
    family.load_state_dict(load_checkpoint(checkpoint)["family"])
    state = read_checkpoint(file).state
    family.network.load_state_dict({k.removeprefix("model."): v for k, v in state.items()})
    data.data.use(opened.preprocessing)
    return data, space, family


def run(cfg: Any) -> Report:
    """Do what ``ws-nas eval`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the run is none of this package, has no weights yet, or a genotype is not of its space.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    seed_everything(options["seed"])
    opened = Run.open(options["run"], package="ws_nas")
    data, space, family = open_run(opened, options["weights"])
    genotypes = _named(space, options["genotypes"]) or [derived_of(opened, space)]
    test = open_data(opened.config["data"], space.layout).split("test")
    found = scoring_of(options, family, data, test, resolve_device(options["device"])).scores(genotypes)
    rows = []
    for i, genotype in enumerate(genotypes):
        cost = space.cost(genotype)
        rows.append([space.str(genotype), float(found.accuracy[i]), float(found.loss[i]), cost.params, cost.macs])
    names = ["genotype", "accuracy", "loss", "params", "macs"]
    figures = [dict(zip(names, row, strict=True)) for row in rows]
    about = {"space": space.name, "hash": space.hash, "family": family.name, "networks": figures}
    table = Table(f"{family.name} on {data.name}, test, inherited weights", names, rows)
    return Report("ws-nas eval", [table], data=about)


def _named(space: Space, value: Any) -> list[Genotype]:
    """Genotypes as they are written; the space is the run's, so that no key names it."""
    try:
        return read_genotypes(space, value)
    except UserError as error:
        raise UserError(str(error).replace("space=", "the run's space ")) from error


def derived_of(opened: Run, space: Space) -> Genotype:
    """The genotype that a run came to."""
    file = opened.folder / GENOTYPE_FILE
    if not file.is_file():
        raise UserError(f"run={str(opened.folder)!r} has derived no genotype yet: give genotypes=[...]")
    return space.parse(json.loads(file.read_text(encoding="utf-8"))["genotype"])
