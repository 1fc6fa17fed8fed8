"""Training of one network, by the core's recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from effkit.checkpoints import write_state
from effkit.data import DataModule, create_data
from effkit.device import seed_everything, set_threads
from effkit.errors import UserError
from effkit.lightning import train
from effkit.report import Report, Table
from effkit.runs import WEIGHTS_FILE
from greedy_enlarge.commands.build import plain, read_spec
from greedy_enlarge.families import macs, params
from greedy_enlarge.networks.build import build
from greedy_enlarge.spec import ArchSpec

__all__ = ["open_data_and_network", "run"]


def open_data_and_network(options: dict[str, Any]) -> tuple[DataModule, nn.Module, ArchSpec]:
    """The data at the network's picture side and channels, and the network with the data's classes.

    Args:
        options: A config's keys ``spec``, ``data``, ``drop_rate`` and ``drop_path_rate``.

    Raises:
        UserError: If a value does not fit.
    """
    spec = read_spec(options["spec"])
    given = {k: v for k, v in options["data"].items() if k not in ("image_size", "in_chans")}
    # Data sets without the key have colours, always.
    grey: dict[str, Any] = {"in_chans": spec.in_chans} if "in_chans" in options["data"] else {}
    data = create_data(**given, image_size=spec.resolution, **grey)
    if data.in_chans != spec.in_chans:
        raise UserError(
            f"spec reads pictures of {spec.in_chans} channels, but those of data={data.name} have {data.in_chans}"
        )
    spec = spec.replace(classes=data.num_classes)
    network = build(spec, drop_rate=options["drop_rate"], drop_path_rate=options["drop_path_rate"])
    return data, network, spec


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge train`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    seed_everything(options["seed"])
    data, network, spec = open_data_and_network(options)
    metrics = train(cfg, network, data)
    folder = Path(metrics["folder"])
    metadata = {**data.preprocessing.to_metadata(), "spec": spec.to_json()}
    weights = write_state(folder / WEIGHTS_FILE, network.state_dict(), metadata)
    final = {**metrics["final"], "epochs": metrics["epochs"], "seconds": metrics["seconds"]}
    table = Table(f"{spec.family} on {data.name}", ["metric", "value"], [[k, v] for k, v in final.items()])
    found = {**metrics, "spec": spec.to_dict(), "macs": macs(spec), "params": params(spec)}
    return Report("greedy-enlarge train", [table], data=found, files=[weights])
