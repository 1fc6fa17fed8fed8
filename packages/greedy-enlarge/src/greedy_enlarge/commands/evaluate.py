"""Measure a trained network on the test split."""

from __future__ import annotations

from typing import Any

from effkit.checkpoints import read_checkpoint
from effkit.device import seed_everything, set_threads
from effkit.lightning import evaluation_report
from effkit.report import Report
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
    return evaluation_report(
        "greedy-enlarge eval", cfg, network, data, name=spec.family, preprocessing=opened.preprocessing
    )
