"""Measure a trained network on the test split."""

from __future__ import annotations

from typing import Any

from effkit.checkpoints import read_checkpoint
from effkit.device import seed_everything, set_threads
from effkit.lightning import evaluate
from effkit.report import Report, Table
from effkit.runs import Run
from greedy_enlarge.commands.build import plain
from greedy_enlarge.commands.train import open_data_and_network

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge eval`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the run is none of this package, or has no weights yet.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    seed_everything(options["seed"])
    opened = Run.open(options["run"], package="greedy_enlarge")
    data, network, spec = open_data_and_network(opened.config)
    network.load_state_dict(read_checkpoint(opened.weights(options["weights"])).state)
    metrics = evaluate(cfg, network, data, preprocessing=opened.preprocessing)
    table = Table(f"{spec.family} on {data.name}, test", ["metric", "value"], [[k, v] for k, v in metrics.items()])
    return Report("greedy-enlarge eval", [table], data=metrics)
