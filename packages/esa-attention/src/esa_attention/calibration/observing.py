"""A model reads text, and every layer's queries and keys are handed on as the score sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from esa_attention.attention.rope import RopeTables
from esa_attention.compression.folding import fold_keys, fold_queries
from esa_attention.compression.geometry import ModelGeometry, geometry
from esa_attention.integration.observer import observe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FarRows", "run_observed"]


class FarRows:
    """A callback for :func:`~esa_attention.integration.observer.observe`: queries are folded and rotated far away.

    The rotation is linear and the same for all heads, so it is applied after the heads of a group are summed, to ``K``
    instead of ``H`` heads.

    Args:
        shape: Geometry of the model.
        far_position: Position of the queries (w).
        receive: Gets the layer, queries ``(B, T, K * D)``, at least float32, and unrotated keys ``(B, T, K * D)``.
    """

    def __init__(self, shape: ModelGeometry, far_position: int, receive: Callable[[int, Tensor, Tensor], None]) -> None:
        rotary: Any = shape.base.rotary_emb
        self._tables = RopeTables(rotary, next(rotary.buffers()).device)
        self._shape, self._far_position, self._receive = shape, far_position, receive

    def __call__(self, layer: int, query: Tensor, key: Tensor) -> None:
        """Hand on the queries ``(B, H, T, D)`` and keys ``(B, K, T, D)`` of a layer."""
        heads = self._shape.num_kv_heads
        folded = fold_queries(query.to(torch.promote_types(query.dtype, torch.float32)), heads)
        far = self._tables.rotate_far(folded.unflatten(2, (heads, -1)), self._far_position)
        self._receive(layer, far.flatten(2), fold_keys(key))


def run_observed(
    model: PreTrainedModel | nn.Module,
    batches: Iterable[Tensor],
    callback: FarRows,
    after: Callable[[Tensor], None] | None = None,
) -> None:
    """Let the model read batches with its own full attention, without gradients, dropout, cache or logits.

    Args:
        model: A transformers causal language model; its training mode is restored.
        batches: Token ids ``(B, T)``.
        callback: Sees queries and keys of every layer.
        after: Called after every batch with its ids.
    """
    base: Any = geometry(model).base
    device = base.get_input_embeddings().weight.device
    # Weights that are offloaded stand on the meta device, and their hooks move what comes in.
    device = torch.device("cpu") if device.type == "meta" else device
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), observe(model, callback):  # type: ignore[arg-type]
            for ids in batches:
                base(input_ids=ids.to(device), use_cache=False)
                if after is not None:
                    after(ids)
    finally:
        for module, mode in training.items():
            module.training = mode
