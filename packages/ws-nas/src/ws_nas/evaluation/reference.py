"""Naive and obviously right: statistics of batch normalisation and scores of one network, one pass a layer.

Works on any module with ``nn.BatchNorm2d`` inside and changes its running statistics; the specification of every faster
way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["reference_exact", "reference_pooled", "reference_score"]


def _inputs(run: Callable[[Tensor], Tensor], batches: Sequence[Tensor], layers: Sequence[nn.BatchNorm2d]) -> dict:
    """What each of some layers is given, batch by batch, in the order the layers run."""
    seen: dict[nn.BatchNorm2d, list[Tensor]] = {}

    def keep(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.setdefault(layer, []).append(args[0].detach().clone())  # type: ignore[arg-type]

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        with torch.no_grad():
            for batch in batches:
                run(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _write(layer: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(var)


def reference_exact(module: nn.Module, run: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> None:
    """Layer by layer: normalise by the statistics of the whole set, then look at the next layer.

    Args:
        module: Holds the layers.
        run: The path through it.
        batches: The calibration set, at least two values a channel at every layer.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    module.train()
    order = list(_inputs(run, batches[:1], layers))
    module.eval()
    counts = {}
    for layer in order:  # those before it are settled; it and those after hold whatever they held
        everything = torch.cat(_inputs(run, batches, [layer])[layer])
        rows = everything.transpose(0, 1).flatten(1).double()
        counts[layer] = rows.shape[1]
        _write(layer, rows.mean(1), rows.var(1, correction=0))
    for layer, n in counts.items():  # on the way down the biased variance normalises; what is kept is the unbiased one
        assert layer.running_var is not None
        layer.running_var.mul_(n / (n - 1))


def reference_pooled(module: nn.Module, run: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> None:
    """Each batch normalised by its own statistics; then mean and variance of all values that a layer was given."""
    layers = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    module.train()
    for layer, inputs in _inputs(run, batches, layers).items():
        rows = torch.cat(inputs).transpose(0, 1).flatten(1).double()
        _write(layer, rows.mean(1), rows.var(1, correction=1))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    module.eval()


def reference_score(run: Callable[[Tensor], Tensor], batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Accuracy and mean cross entropy over labelled batches."""
    right, loss, count = 0, 0.0, 0
    with torch.no_grad():
        for x, y in batches:
            logits = run(x)
            right += int((logits.argmax(1) == y).sum())
            loss += float(functional.cross_entropy(logits, y, reduction="sum"))
            count += len(y)
    return right / count, loss / count
