"""Networks trained from scratch with fresh seeds and measured on the untouched test split: the figures to report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from greedy_enlarge.networks.build import build
from greedy_enlarge.search.tasks import Result, Task
from greedy_enlarge.spec import ArchSpec
from greedy_enlarge.training.data import open_data
from greedy_enlarge.training.proxy import ProxyTrain, measure

__all__ = ["FreshTest", "fresh_accuracy"]


@dataclass(frozen=True)
class FreshTest:
    """Trains from scratch and measures on the test split; never used by a search.

    Args:
        proxy: How networks are trained; what it says of inheritance is left aside.
    """

    proxy: ProxyTrain
    metric: str = "test_accuracy"
    inherits: bool = False
    n_val: int = 0

    def evaluate(self, task: Task) -> Result:
        """Accuracy on the test split, a fraction; the trained weights are not kept."""
        proxy = dataclasses.replace(self.proxy, inherits=False)
        result = proxy.evaluate(task)
        if result.status != "ok":
            return result
        file = Path(proxy.folder) / result.state
        model = build(task.spec)
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["scored"])
        file.unlink()
        accuracy = measure(model, open_data(proxy.data, task.spec, 0), split="test")[0]
        return Result({"test_accuracy": accuracy, "val_accuracy": result.metrics["accuracy"]}, result.cost)

    def fingerprint(self) -> dict[str, Any]:
        """All that shapes a figure."""
        return {"name": "fresh_test", "training": self.proxy.fingerprint()}


def fresh_accuracy(
    spec: ArchSpec, data: Mapping[str, Any], folder: Path, *, seed: int, epochs: int, threads: int | None = None
) -> float:
    """Train and measure once.

    Args:
        spec: The network.
        data: The group ``data`` of a config.
        folder: Where the weights go while they are needed.
        seed: One that no search has used; equal seeds give all networks one data order.
        epochs: How long.
        threads: CPU threads.

    Returns:
        Accuracy on the test split, a fraction; NaN if the training diverged.

    Raises:
        UserError: If data and network do not fit together.
    """
    proxy = ProxyTrain.for_search(spec, folder=str(folder), data=data, epochs=epochs, inherits=False, threads=threads)
    return FreshTest(proxy).evaluate(Task.make(seed, spec, 0, 0)).metrics.get("test_accuracy", float("nan"))
