"""The model's own full attention, for sequences that are still short."""

from __future__ import annotations

import functools
import sys

import torch
from torch import Tensor, nn

from effkit.notes import say_once
from esa_attention.attention.engine.step_dense import FullAttention, sdpa

__all__ = ["own_attention"]


def own_attention(module: nn.Module, implementation: str | None) -> FullAttention:
    """What computed a layer's attention before ESA was applied.

    Args:
        module: The attention layer.
        implementation: The one its model was set to. ``sdpa`` and ``eager`` give the same bits as there; others
            are computed by torch's SDPA, which is said once.
    """
    if implementation == "eager" and hasattr(sys.modules[type(module).__module__], "eager_attention_forward"):
        return functools.partial(_eager, module)
    if implementation != "sdpa":
        say_once(
            f"ESA: attention implementation {implementation!r} is computed by torch's SDPA while sequences are short "
            "(dense_until); the last digits may differ from the model's own",
            __name__,
        )
    return sdpa


def _eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    if mask is None and query.shape[2] > 1:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]
    if mask is not None:  # as transformers makes it: added to the scores
        seen, least = mask, torch.finfo(query.dtype).min
        mask = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, least)
    run = sys.modules[type(module).__module__].eager_attention_forward
    return run(module, query, key, value, mask, scaling=scaling, dropout=0.0)[0].transpose(1, 2)
