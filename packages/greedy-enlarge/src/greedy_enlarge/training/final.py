"""A network trained from scratch with a fresh seed and measured on the untouched test split: the figure to report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from greedy_enlarge.networks.build import build
from greedy_enlarge.search.tasks import Task
from greedy_enlarge.spec import ArchSpec
from greedy_enlarge.training.data import open_data
from greedy_enlarge.training.proxy import ProxyTrain, measure

__all__ = ["fresh_accuracy"]


def fresh_accuracy(
    spec: ArchSpec, data: Mapping[str, Any], folder: Path, *, seed: int, epochs: int, threads: int | None = None
) -> float:
    """Train and measure once.

    Args:
        spec: The network.
        data: The group ``data`` of a config.
        folder: Where the weights go.
        seed: One that no search has used; equal seeds give all networks one data order.
        epochs: How long.
        threads: CPU threads.

    Returns:
        Accuracy on the test split, a fraction.

    Raises:
        UserError: If data and network do not fit together.
    """
    evaluator = ProxyTrain.for_search(
        spec, folder=str(folder), data=data, epochs=epochs, inherits=False, threads=threads
    )
    result = evaluator.evaluate(Task.make(seed, spec, 0, 0))
    if result.status != "ok":
        return float("nan")
    model = build(spec)
    model.load_state_dict(torch.load(folder / result.state, map_location="cpu", weights_only=True)["model"])
    return measure(model, open_data(data, spec, 0), split="test")[0]
