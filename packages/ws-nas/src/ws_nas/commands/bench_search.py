"""Speed of DARTS' second-order step beside the published formulation, and memory of a mixture that recomputes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from effkit.bench import Bench
from effkit.results import ResultRow, stamp
from effkit.timing.memory import peak_bytes
from ws_nas.evaluation.splits import digits_splits
from ws_nas.families.base import Batch
from ws_nas.families.darts import DARTS
from ws_nas.families.reference import reference_second_order
from ws_nas.spaces.registry import get_space
from ws_nas.supernets.mixtures import mixture_of
from ws_nas.training.data import ValidationStream

__all__ = ["recomputing", "second_order"]

WORKERS = 2  # of the published code's loader
TOLERANCE = 1e-6


class _Search:
    """A search step of DARTS' second order on digits, ready to be taken in both ways."""

    def __init__(self, pictures: int, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        supernet = get_space("darts_tiny").supernet(affine=False, track_running_stats=False).to(device, dtype)
        self.device, self.dtype, self.step = device, dtype, 0
        self.family = DARTS(get_space("darts_tiny"), supernet, 0, order="second")
        self.family.alphas.to(device, dtype)
        self.optimizer = torch.optim.SGD(supernet.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
        self.family.weight_optimizer = self.optimizer
        splits = digits_splits()
        self.train = self.there(splits.train[0][:pictures], splits.train[1][:pictures])
        self.held = TensorDataset(splits.val[0], splits.val[1])
        self.pictures, self.stream = pictures, ValidationStream(self.held, pictures, 0)

    def there(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return images.to(self.device, self.dtype), labels.to(self.device)

    def ours(self) -> list[Tensor]:
        """With one stream of pictures through the whole search, and no copy."""
        self.step += 1
        return self.functional(self.stream.at(self.step))

    def functional(self, held: tuple[Tensor, Tensor]) -> list[Tensor]:
        return self.family.gradients(Batch(*self.train, *self.there(*held)), 0)[0]

    def published(self, held: tuple[Tensor, Tensor]) -> list[Tensor]:
        """With a copy of the model."""
        train_loss, val_loss = self.loss_on(*self.train), self.loss_on(*self.there(*held))
        values = list(self.family.alphas.values)
        return reference_second_order(self.family.mixture, values, train_loss, val_loss, self.optimizer)

    def loss_on(self, images: Tensor, labels: Tensor) -> Callable[[nn.Module, Sequence[Tensor]], Tensor]:
        family = self.family
        return lambda model, given: family.loss(model(images, family.probabilities(given)), labels)

    def begun_anew(self, workers: int) -> Callable[[], tuple[Tensor, Tensor]]:
        """The first batch of a loader that is begun anew each time."""
        loader = DataLoader(self.held, self.pictures, shuffle=True, num_workers=workers)
        return lambda: next(iter(loader))


def second_order(bench: Bench, pictures: int, device: torch.device) -> dict[str, Any]:
    """An architecture's step by us and as published: with a copied model, and a validation loader begun anew.

    Both on digits, the search network of DARTS in small; the published formulation with its two loader processes, and
    without any. Both gradients are held together in float64 first; what is timed is float32. What the published
    formulation does besides its four passes is timed by itself.

    Args:
        bench: Measures.
        pictures: Of a batch.
        device: Where.

    Raises:
        AssertionError: If the gradients differ.
    """
    exact = _Search(pictures, device, torch.float64)
    held = exact.stream.at(0)
    gap = max(float((a - b).abs().max()) for a, b in zip(exact.functional(held), exact.published(held), strict=True))
    if gap > TOLERANCE:
        raise AssertionError(f"the gradients differ by {gap}")
    search = _Search(pictures, device, torch.float32)
    loaders = {workers: search.begun_anew(workers) for workers in (WORKERS, 0)}
    calls = {
        "published": lambda: search.published(loaders[WORKERS]()),
        "published_no_workers": lambda: search.published(loaders[0]()),
        "functional": search.ours,
    }
    how: dict[str, Any] = {"case": "darts_tiny", "x": pictures, "warmup": 1}
    measured = bench.run(
        calls, mode="second order", baseline="published", **how,
        title=f"darts_tiny: architecture's step of the second order, {pictures} pictures",
        note="x is pictures of a batch; published loads by two processes begun anew each step",
    )  # fmt: skip
    parts = bench.run(
        {
            "functional": search.ours,
            "copied_model": lambda: copy.deepcopy(search.family.mixture),
            "loader_begun_anew": loaders[WORKERS],
        },
        mode="second order, parts", baseline="functional", **how,
        title="darts_tiny: what the published step does besides, beside our whole step",
        note="the ratio is how many times a part goes into our step",
    )  # fmt: skip
    return {
        "speedup": measured.ratios["functional"],
        "largest_difference": gap,
        "seconds": measured.seconds,
        "parts": parts.seconds,
    }


def recomputing(bench: Bench, pictures: int, device: torch.device) -> dict[str, Any]:
    """Peak memory of a forward and backward pass of DARTS' search network, with and without recomputing.

    Args:
        bench: Gets the rows.
        pictures: Of a batch.
        device: Where.
    """
    torch.manual_seed(0)
    space = get_space("darts", resolution=32)
    supernet = space.supernet(track_running_stats=False).to(device)
    images = torch.randn(pictures, 3, 32, 32, device=device)
    found = {}
    for name, recompute in (("kept", False), ("recomputed", True)):
        mixture = mixture_of(supernet, recompute=recompute)
        gates = [torch.full(t.shape, 1 / 8, device=device, requires_grad=True) for t in mixture.tables]

        def once(mixture: nn.Module = mixture, gates: list[Tensor] = gates) -> None:
            mixture(images, gates).square().sum().backward()
            supernet.zero_grad(set_to_none=True)

        once()
        found[name] = peak_bytes(once, device)
    share = found["recomputed"] / found["kept"] if found["kept"] and found["recomputed"] else None
    facts: dict[str, Any] = {**stamp(device), "threads": torch.get_num_threads(), "rounds": 1}
    for name, size in found.items():
        if size is not None:
            what = ("ws-nas", "darts", name, "forward, backward", "fp32", "batch", pictures, "peak_memory", "bytes")
            bench.rows.append(ResultRow(*what, size, **facts))
    return {"bytes": found, "share": share, "pictures": pictures}
