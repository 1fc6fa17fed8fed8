"""The matrix products of an optimized network and nothing else: the floor that its shapes and the kernels set."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tnt_vit.inference.optimize import InferenceTNT
from tnt_vit.inference.packed import PackedLinear

__all__ = ["products"]


def products(model: InferenceTNT, x: Tensor) -> Callable[[], None]:
    """The products of a forward pass on a CPU, one after another, without norms, softmax, GELU, sums and copies.

    Linear maps run on the kernels that the network runs them on, with its own weights; attention counts with its two
    products, as batched ones. Inputs of one shape share their memory, so caches may hold more than in a forward pass.

    Args:
        model: What :func:`tnt_vit.optimize_for_inference` made.
        x: Pictures.

    Returns:
        A function without arguments that multiplies everything once.
    """
    calls: list[Callable[[], Any]] = []
    inputs: dict[tuple[int, ...], Tensor] = {}

    def like(*shape: int) -> Tensor:
        return inputs.setdefault(shape, torch.randn(shape).to(x.dtype))

    def batched(*shape: int) -> None:
        """Queries ``(b, n, k)`` on keys and values ``(b, m, k)``."""
        batch, queries, keys, width = shape
        q, k, weights = like(batch, queries, width), like(batch, keys, width), like(batch, queries, keys)
        calls.append(lambda: torch.bmm(q, k.transpose(1, 2)))
        calls.append(lambda: torch.bmm(weights, k))

    def record(name: str, layer: PackedLinear, rows: int) -> None:
        plain, value = PackedLinear(layer.weight, layer.bias), like(rows, layer.weight.shape[1])
        calls.append(lambda: plain(value))
        half, _, place = name.partition(".")
        if half == "inner" and place.endswith("score"):
            inner = model.inner[int(place.partition(".")[0])]
            batched(rows // inner.num_words, inner.num_words * inner.num_heads, inner.num_words, inner.width)
        if half == "outer" and place.endswith(("qkv", "key_value")):
            outer = model.outer[int(place.partition(".")[0])]
            tokens = model.sentence_pos.shape[1] + 1
            queries = tokens if place.endswith("qkv") else 1
            batched(rows // tokens * outer.num_heads, queries, tokens, outer.dim // outer.num_heads)

    watched = copy.deepcopy(model)
    for name, module in watched.named_modules():
        if isinstance(module, PackedLinear) and "norm" not in name:
            module.register_forward_pre_hook(lambda layer, args, name=name: record(name, layer, args[0].shape[0]))
    with torch.inference_mode():
        watched(x)

    def run() -> None:
        with torch.inference_mode():
            for call in calls:
                call()

    return run
