"""Training of a family on a space, and the genotype that it comes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from effkit.arguments import renamed
from effkit.checkpoints import write_state
from effkit.data.selection import SelectionData
from effkit.device import resolve_device, seed_everything, set_threads
from effkit.errors import UserError, choose, written
from effkit.lightning import load_checkpoint, train
from effkit.lightning.logging import read_rows
from effkit.ranks import is_main_rank
from effkit.report import Report, Table, write_json
from effkit.runs import WEIGHTS_FILE
from ws_nas.commands.build import make_space, plain
from ws_nas.families.base import Family
from ws_nas.families.registry import make_family
from ws_nas.families.relaxed import Relaxed
from ws_nas.plots.architecture import draw_course, draw_probabilities
from ws_nas.plots.cells import draw_graphs
from ws_nas.spaces.space import Genotype, Space
from ws_nas.training.data import stream_of
from ws_nas.training.module import AfterEpoch, FamilyModule
from ws_nas.training.pictures import Scoring, open_data

__all__ = ["GENOTYPE_FILE", "Trained", "execute", "fit", "open_family", "run", "scoring_of"]

GENOTYPE_FILE = "genotype.json"


def open_family(options: dict[str, Any]) -> tuple[SelectionData, Space, Family]:
    """Data, space and family of a config.

    Args:
        options: Its keys ``space``, ``family``, ``supernet``, ``data``, ``held_out`` and ``seed``.

    Raises:
        UserError: If a value does not fit.
    """
    space = make_space(options["space"])
    with renamed({"every": "held_out"}):
        data = SelectionData(open_data(options["data"], space.layout), options["held_out"])
    told = dict(options["family"])
    if not isinstance(options["supernet"], dict):
        raise UserError(f"supernet={written(options['supernet'])} must be a mapping of keys and values")
    for key in options["supernet"]:
        choose("supernet", key, ["affine", "track_running_stats"])
    family = make_family(told.pop("name"), space, space.supernet(**options["supernet"]), options["seed"], **told)
    return data, space, family


def scoring_of(options: dict[str, Any], family: Family, data: SelectionData, measured: Any, device: Any) -> Scoring:
    """What sub-networks are scored by, as the group ``scoring`` says.

    Args:
        options: The config.
        family: Holds the weights.
        data: The data.
        measured: The pictures to score on.
        device: Where.
    """
    return Scoring(family, data.data, measured, data.train, device=device, **options["scoring"])


class Trained(NamedTuple):
    """What a training leaves in memory.

    Attributes:
        data: What it trained on.
        space: The space.
        family: As it is after the last epoch, with a scorer.
        scoring: Scores sub-networks on the pictures that architectures were chosen by.
        metrics: What ``effkit.lightning.train`` returned.
    """

    data: SelectionData
    space: Space
    family: Family
    scoring: Scoring
    metrics: dict[str, Any]


def fit(
    options: dict[str, Any], folder: Path | None = None, after_epoch: Callable[[int, Scoring], None] | None = None
) -> Trained:
    """Train by a plain config.

    Args:
        options: All keys of the command ``train``.
        folder: The run folder; the running command's if not given.
        after_epoch: Called after each epoch's steps with how many are done, and with what scores sub-networks then.
    """
    set_threads(options["threads"])
    seed_everything(options["seed"])
    data, space, family = open_family(options)
    scoring = scoring_of(options, family, data, data.val, resolve_device(options["device"]))
    stream = stream_of(data)
    module = FamilyModule(
        family,
        data.num_classes,
        stream,
        optimizer=options["optimizer"],
        scheduler=options["scheduler"],
        preprocessing=data.preprocessing,
    )
    callbacks = []
    if after_epoch is not None:
        call = after_epoch
        callbacks.append(AfterEpoch(lambda epoch: call(epoch, scoring)))
    try:
        metrics = train(options, family.network, data, module=module, callbacks=callbacks, folder=folder)
    finally:
        stream.close()
    family.load_state_dict(load_checkpoint(Path(metrics["folder"]) / "checkpoints" / "last.ckpt")["family"])
    family.scorer = scoring
    return Trained(data, space, family, scoring, metrics)


def execute(options: dict[str, Any], command: str) -> Report:
    """Train by a plain config, or go on with a training.

    Args:
        options: All keys of the command ``train``.
        command: For the report's title.
    """
    data, space, family, scoring, metrics = fit(options)
    folder = Path(metrics["folder"])
    genotype = agreed(space, family)
    found = scoring.scores([genotype]) if family.inherits else None
    cost = space.cost(genotype)
    chosen = {
        "genotype": space.str(genotype),
        "family": family.name,
        "space": space.name,
        "hash": space.hash,
        "accuracy": None if found is None else float(found.accuracy),
        "loss": None if found is None else float(found.loss),
        "params": cost.params,
        "macs": cost.macs,
    }
    metadata = {**data.preprocessing.to_metadata(), "space": space.hash, "genotype": space.str(genotype)}
    weights = write_state(folder / WEIGHTS_FILE, family.network.state_dict(), metadata)
    file = write_json(folder / GENOTYPE_FILE, chosen)
    final = {**metrics["final"], "epochs": metrics["epochs"], "seconds": metrics["seconds"]}
    tables = [
        Table(
            f"{family.name} on {data.name}, space {space.name}", ["metric", "value"], [[k, v] for k, v in final.items()]
        ),
        Table("Derived", ["", ""], [[k, v] for k, v in chosen.items() if k not in ("family", "space", "hash")]),
    ]
    lines = ["accuracy and loss are those of inherited weights, on the pictures that architectures were chosen by"]
    if found is None:
        lines = [f"family={family.name} leaves no weights to inherit: the derived network is to be trained by itself"]
    pictures = draw_search(family, genotype, folder) if is_main_rank() else []
    files = [weights, file, *pictures]
    return Report(f"ws-nas {command}", tables, data={**metrics, **chosen}, files=files, lines=lines)


def draw_search(family: Family, genotype: Genotype, folder: Path) -> list[Path]:
    """Pictures of what was derived; and of what a search has learnt and of its course, where there is something to see.

    Args:
        family: As it is in the end.
        genotype: The derived one.
        folder: The run folder.
    """
    found = []
    if graphs := family.space.graphs(genotype):
        found.append(draw_graphs(graphs, folder / "derived.png", f"{family.name}: derived on {family.space.name}"))
    if isinstance(family, Relaxed):
        shares = zip(family.mixture.tables, family.shares(), strict=False)
        tables = {table.name: p.tolist() for table, p in shares}
        operations = {table.name: table.operations for table in family.mixture.tables}
        found.append(draw_probabilities(tables, operations, folder / "operations.png", f"{family.name}: operations"))
    course = draw_course(read_rows(folder / "metrics.csv"), folder / "course.png", f"{family.name}: course")
    return found if course is None else [*found, course]


def agreed(space: Space, family: Family) -> tuple[int, ...]:
    """The derived genotype; of several processes, all of which derive at the same time, that of the first."""
    found = family.derived()
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return found
    held = [found]
    dist.broadcast_object_list(held, 0)
    return space.check(held[0])


def run(cfg: Any) -> Report:
    """Do what ``ws-nas train`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    return execute(plain(cfg), "train")
