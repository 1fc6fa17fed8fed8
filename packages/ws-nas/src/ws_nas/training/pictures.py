"""Pictures of a data set at a space's size, and those to score sub-networks on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from effkit.data import DATASETS, DataModule, create_data, data_arguments
from effkit.data.sampling import spread
from effkit.data.selection import plain_pictures
from effkit.errors import UserError, choose
from ws_nas.evaluation.scoring import Scores, score
from ws_nas.families.base import Family
from ws_nas.families.individual import Individual
from ws_nas.families.numbers import number
from ws_nas.spaces.space import Genotype, Layout

__all__ = ["METRICS", "Scoring", "labelled", "open_data"]

METRICS = ("accuracy", "loss")


def open_data(options: Mapping[str, Any], layout: Layout) -> DataModule:
    """Open a data set at the picture side and channels of a space's networks.

    Args:
        options: The group ``data`` of a config.
        layout: What the networks take and give.

    Raises:
        UserError: If the data has other classes or channels, or an option does not fit.
    """
    given = {k: v for k, v in options.items() if k not in ("image_size", "in_chans")}
    kind = DATASETS[choose("data.name", str(given.get("name")), DATASETS)]
    # Data sets without the key have colours, always.
    grey: dict[str, Any] = {"in_chans": layout.in_channels} if "in_chans" in data_arguments(kind) else {}
    data = create_data(**given, image_size=layout.resolution, **grey)
    for what, key, asked, there in (
        ("channels", "in_channels", layout.in_channels, data.in_chans),
        ("classes", "classes", layout.classes, data.num_classes),
    ):
        if asked != there:
            raise UserError(
                f"the space's networks are for {asked} {what}, but data={data.name} has {there}: "
                f"a space takes another number by its own key {key}"
            )
    return data


def labelled(dataset: Any, count: int | None, batch_size: int, data: DataModule) -> list[tuple[Tensor, Tensor]]:
    """Normalised batches of some pictures, evenly spread over a split, in order.

    Args:
        dataset: Pictures in bytes and labels.
        count: How many; ``None`` for all.
        batch_size: Of a batch.
        data: Normalises.
    """
    chosen = spread(len(dataset), count)
    if isinstance(dataset, TensorDataset):
        images, labels = (tensor[chosen] for tensor in dataset.tensors)
        pairs = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    else:
        pairs = [(images, labels) for images, labels in DataLoader(Subset(dataset, chosen), batch_size)]
    return [(data.preprocessing.normalize(images), labels) for images, labels in pairs]


class Scoring:
    """Scores sub-networks of a family on pictures, each with statistics re-estimated on others.

    Args:
        family: Holds the weights.
        data: Normalises.
        measured: The split to score on.
        training: Training pictures, to re-estimate statistics by; shown as in evaluation.
        metric: ``accuracy``, or ``loss``: then a score is its negative.
        pictures: To score on, at most.
        calibration: To re-estimate by, at most.
        mode: How, see ``Supernet.bn_statistics``.
        device: Where.

    Raises:
        UserError: If a value does not fit.
    """

    def __init__(
        self,
        family: Family,
        data: DataModule,
        measured: Any,
        training: Any,
        *,
        metric: str = "accuracy",
        pictures: int | None = None,
        calibration: int = 1024,
        mode: str = "exact",
        device: torch.device | str = "cpu",
    ) -> None:
        self.family, self.metric, self.mode = family, choose("scoring.metric", metric, METRICS), mode
        if pictures is not None:
            number(pictures, "scoring.pictures", least=1, whole=True)
        number(calibration, "scoring.calibration", least=2, whole=True)
        size = max(2, data.batch_size)
        self.device = torch.device(device)
        self.batches = self._there(labelled(measured, pictures, size, data))
        self.calibration = [
            x for x, _ in self._there(labelled(plain_pictures(training, data), calibration, size, data))
        ]

    def _there(self, batches: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        return [(images.to(self.device), labels.to(self.device)) for images, labels in batches]

    def scores(self, genotypes: Sequence[Genotype]) -> Scores:
        """Accuracy and loss, in the order given."""
        family = self.family
        accuracy, loss = torch.zeros(2, len(genotypes), dtype=torch.float64)
        by_net: dict[int, list[int]] = {}
        nets: dict[int, nn.Module] = {}
        for i, genotype in enumerate(genotypes):
            net = family.net_of(genotype)
            nets[id(net)] = net
            by_net.setdefault(id(net), []).append(i)
        for key, places in by_net.items():
            net = nets[key].to(self.device)
            if isinstance(family, Individual):
                found = alone(net, self.batches)
            else:
                some = [genotypes[i] for i in places]
                found = score(net, some, self.batches, self.calibration, mode=self.mode)  # type: ignore[arg-type]
            accuracy[places], loss[places] = found.accuracy, found.loss
        return Scores(accuracy, loss)

    def __call__(self, genotypes: list[Genotype]) -> list[float]:
        """One score a genotype, the higher the better."""
        found = self.scores(genotypes)
        return (found.accuracy if self.metric == "accuracy" else -found.loss).tolist()


@torch.no_grad()
def alone(network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> Scores:
    """Accuracy and loss of one network with weights and statistics of its own."""
    before = network.training
    network.eval()
    try:
        logits = torch.cat([network(images).float() for images, _ in batches])
    finally:
        network.train(before)
    labels = torch.cat([y for _, y in batches])
    right = (logits.argmax(1) == labels).double().mean()
    loss = nn.functional.cross_entropy(logits, labels)
    return Scores(right.cpu()[None], loss.double().cpu()[None])
