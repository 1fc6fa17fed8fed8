"""The model runs as ever, and its queries and keys are seen before they are rotated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.attention.cache.passes import Handed
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.geometry import ModelGeometry, NoRotation, geometry
from esa_attention.integration.asked import asked
from esa_attention.integration.cache_argument import CACHE_NAMES
from esa_attention.integration.patching import Patch
from esa_attention.integration.verify import check_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["observe"]


class _Observer:
    """Stock attention at true positions that shows its unrotated queries and keys."""

    def __init__(self, callback: Callable[[int, Tensor, Tensor], None]) -> None:
        self.callback = callback
        self.rotary: Any = None
        self.steps: list[Any] = []  # nothing is decoded

    def begin_step(self, kwargs: dict[str, Any]) -> None:
        """Nothing to do."""

    def check_call(self, kwargs: dict[str, Any]) -> None:
        """No cache: a kept one would hold unrotated keys."""
        kwargs["use_cache"] = False
        if any(kwargs.get(name) is not None for name in CACHE_NAMES):
            raise UserError("queries and keys are observed without a cache; leave it out")
        if (call := asked(kwargs, 0, None)) is not None and call.starts is not None:
            raise UserError(
                "queries and keys are observed on sequences without padding, got an attention mask with zeros"
            )

    def end_call(self, kwargs: dict[str, Any], failed: bool) -> None:
        """Nothing was kept."""

    def begin_model(self, kwargs: dict[str, Any]) -> None:
        """Nothing to do."""

    def end_model(self, kwargs: dict[str, Any], failed: bool) -> None:
        """Nothing to do."""

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        handed: Handed | None,
    ) -> Tensor:
        """Show, rotate, attend."""
        self.callback(int(module.layer_idx), query.detach(), key.detach())  # type: ignore[arg-type]
        query, key = self.rotary.rotate(query, 0), self.rotary.rotate(key, 0)
        return nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=query.shape[2] > 1, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )


@contextlib.contextmanager
def observe(model: PreTrainedModel, callback: Callable[[int, Tensor, Tensor], None]) -> Iterator[ModelGeometry]:
    """Let the model run as ever, and see the queries and keys of every layer before they are rotated.

    Args:
        model: The model.
        callback: Gets layer index, queries ``(B, H, T, D)`` and keys ``(B, K, T, D)`` of every forward pass; calls
            inside the block must start at position 0 and have no padding.

    Yields:
        The model's geometry.

    Raises:
        UserError: If the model is not supported (its layers are compared first) or taken over already.
    """
    if not isinstance(geometry(model).base.rotary_emb, NoRotation):  # else Patch says so
        check_model(model)
    observer = _Observer(callback)
    patch = Patch(model, observer)
    try:
        observer.rotary = RopeTables(patch.rotary, next(patch.rotary.buffers()).device)
        yield patch.geometry
    finally:
        patch.remove()
