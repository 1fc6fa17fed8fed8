"""Speed of DARTS' second-order step beside the published formulation, and memory of a mixture that recomputes."""

from __future__ import annotations

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


def second_order(bench: Bench, pictures: int, device: torch.device) -> dict[str, Any]:
    """An architecture's step by us and as published: with a copied model, and a validation loader begun anew.

    Both on digits, the search network of DARTS in small, in float64 so that both gradients can be held together; the
    published formulation with its two loader processes, and without any.

    Args:
        bench: Measures.
        pictures: Of a batch.
        device: Where.

    Raises:
        AssertionError: If the gradients differ.
    """
    torch.manual_seed(0)
    space = get_space("darts_tiny")
    supernet = space.supernet(affine=False, track_running_stats=False).double().to(device)
    family = DARTS(space, supernet, 0, order="second")
    family.alphas.double().to(device)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
    family.weight_optimizer = optimizer
    splits = digits_splits()
    train = (splits.train[0][:pictures].double().to(device), splits.train[1][:pictures].to(device))
    held = TensorDataset(splits.val[0].double(), splits.val[1])
    stream = ValidationStream(held, pictures, 0)
    values = list(family.alphas.values)
    step = 0

    def ours() -> list[Tensor]:
        nonlocal step
        images, labels = stream.at(step)
        step += 1
        return family.gradients(Batch(*train, images.to(device), labels.to(device)), step)[0]

    def loss_on(images: Tensor, labels: Tensor) -> Callable[[nn.Module, Sequence[Tensor]], Tensor]:
        return lambda model, given: family.loss(model(images, family.probabilities(given)), labels)

    def published(workers: int) -> Callable[[], list[Tensor]]:
        loader = DataLoader(held, pictures, shuffle=True, num_workers=workers)

        def once() -> list[Tensor]:
            images, labels = next(iter(loader))
            val_loss = loss_on(images.to(device), labels.to(device))
            return reference_second_order(family.mixture, values, loss_on(*train), val_loss, optimizer)

        return once

    images, labels = (part.to(device) for part in stream.at(0))
    one = family.gradients(Batch(*train, images, labels), 0)[0]
    other = reference_second_order(family.mixture, values, loss_on(*train), loss_on(images, labels), optimizer)
    gap = max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
    if gap > TOLERANCE:
        raise AssertionError(f"the gradients differ by {gap}")
    calls = {"published": published(WORKERS), "published_no_workers": published(0), "functional": ours}
    measured = bench.run(
        calls, case="darts_tiny", mode="second order", x=pictures, baseline="published", warmup=1,
        title=f"darts_tiny: architecture's step of the second order, {pictures} pictures",
        note="x is pictures of a batch; published loads by two processes begun anew each step",
    )  # fmt: skip
    return {"speedup": measured.ratios["functional"], "largest_difference": gap, "seconds": measured.seconds}


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
