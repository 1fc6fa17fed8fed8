"""What training and evaluation count, over all processes and batches of any size."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from effkit.data.sampling import IGNORE

__all__ = ["MeanLoss", "PercentCorrect"]


class MeanLoss(Metric):
    """Mean loss per picture over all processes. A NaN shows.

    (torchmetrics' ``MeanMetric`` removes NaNs, and where told not to it ignores the weights of uneven batches as well.)
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor | int) -> None:
        """Add the summed loss of ``count`` pictures."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """Return the mean over everything seen since the last reset."""
        return self.total / self.count


class PercentCorrect(MulticlassAccuracy):
    """Share of pictures whose label is among the ``top_k`` highest logits, in percent as papers print it."""

    def __init__(self, num_classes: int, top_k: int = 1) -> None:
        super().__init__(num_classes, top_k=top_k, average="micro", ignore_index=IGNORE, validate_args=False)

    def compute(self) -> Tensor:
        """Return the percentage over everything seen since the last reset."""
        return 100 * super().compute()
