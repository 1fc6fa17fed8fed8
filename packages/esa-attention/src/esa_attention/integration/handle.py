"""ESA in force on a model: the handle that computes its attention, makes its caches, and gives the model back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.attention.cache.cache import ESACache
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.cache.padding import padding_starts
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.integration.cache_argument import CACHE_NAMES, cache_argument
from esa_attention.integration.patching import Patch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ESAHandle"]

_DYNAMIC = (None, "dynamic", "dynamic_full")


class ESAHandle:
    """What :func:`apply_esa` returns: the patched model's switch.

    Attributes:
        model: The model.
        config: Sizes and options.
        compressors: Maps of its layers.
        tables: Its rotary tables.
    """

    def __init__(self, model: PreTrainedModel, config: ESAConfig, compressors: Sequence[QKCompressor]) -> None:
        self.model, self.config, self.compressors = model, config, list(compressors)
        self._patch = Patch(model, self)
        try:
            self.tables = RopeTables(self._patch.rotary, next(self._patch.rotary.buffers()).device)
        except BaseException:
            self._patch.remove()
            raise
        self.geometry = self._patch.geometry
        self._watchers: list[Callable[..., None]] = []
        # An attribute of this object, not of its class: other models keep theirs.
        self.model.__dict__["_prepare_cache_for_generation"] = self._prepare_cache

    def new_cache(self, reserve: int = 0) -> ESACache:
        """An empty cache for this model.

        Args:
            reserve: Tokens to make room for at once; the cache grows by doubling in any case.
        """
        cache = ESACache(self.config, self.compressors, self.tables, reserve)
        cache.made_for = self
        for index, layer in enumerate(cache.layers):
            layer.watchers, layer.layer_idx = self._watchers, index
        return cache

    @contextlib.contextmanager
    def watch(self, callback: Callable[..., None]) -> Iterator[None]:
        """See what is chosen inside the block.

        Args:
            callback: Called as ``callback(layer_idx, row, segments, choices)`` for every chunk that has a middle part,
                with ``choices`` a list of ``(first query, end, indices)``.
        """
        self._watchers.append(callback)
        try:
            yield
        finally:
            self._watchers.remove(callback)

    def remove(self) -> None:
        """Give the model its own attention back; doing it twice is harmless."""
        self._patch.remove()
        self.model.__dict__.pop("_prepare_cache_for_generation", None)

    def __enter__(self) -> ESAHandle:
        """Return the handle."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove ESA."""
        self.remove()

    # ---- what the patch asks of a handler

    def check_call(self, kwargs: dict[str, Any]) -> None:
        """Give the decoder a cache of ours, and refuse what ESA cannot do."""
        config: Any = self.geometry.base.config
        if kwargs.get("output_attentions") or getattr(config, "output_attentions", False):
            raise UserError("output_attentions=True cannot be had with ESA: no matrix of attention weights exists")
        name = next((n for n in CACHE_NAMES if kwargs.get(n) is not None), None)
        if name is None:
            use_cache = kwargs.get("use_cache")
            if config.use_cache if use_cache is None else use_cache:
                kwargs[cache_argument(self.geometry.base)] = self.new_cache()
        else:
            self._check_cache(kwargs[name], name)
        positions, mask = kwargs.get("position_ids"), kwargs.get("attention_mask")
        if (
            positions is not None
            and mask is None
            and positions.shape[-1] > 1
            and bool((positions.diff(dim=-1) != 1).any())
        ):
            raise UserError("position_ids must count up by 1: ESA does not read several sequences packed into one")

    def _check_cache(self, cache: Any, name: str) -> None:
        if not isinstance(cache, ESACache):
            raise UserError(
                f"{name} must be an ESACache, got {type(cache).__name__}: ESA keeps unrotated keys and an index. Leave "
                f"{name} out, or give {name}=handle.new_cache()"
            )
        if cache.made_for is not self:
            raise UserError(f"{name} was made by another handle; use handle.new_cache() of the one in force")

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        cache: Any,
    ) -> Tensor:
        """Attention of the new tokens over all cached ones."""
        index = int(module.layer_idx)  # type: ignore[arg-type]
        with torch.no_grad():
            batch, length = query.shape[0], key.shape[2]
            if cache is None:  # use_cache=False: the cache lives for this call
                layer = ESALayer(self.config, self.compressors[index], self.tables, reserve=length)
                layer.watchers, layer.layer_idx = self._watchers, index
                layer.update(key.detach(), value.detach())
                starts = None if mask is None else padding_starts(mask, batch, length)
            else:
                layer = cache.layers[index]
                starts = cache.starts(mask, batch, length)
            return attend_layer(layer, query.detach(), scaling, starts)

    def _prepare_cache(self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """In place of the model's method of ``generate``."""
        wanted = getattr(generation_config, "cache_implementation", None)
        if wanted not in _DYNAMIC:
            raise UserError(
                f"cache_implementation={wanted!r} cannot be used with ESA, which brings its own cache; leave it out"
            )
        name = next((n for n in CACHE_NAMES if model_kwargs.get(n) is not None), None)
        if name is not None:
            self._check_cache(model_kwargs[name], name)
            model_kwargs[name]._is_user_defined = True
        elif generation_config.use_cache is not False:
            model_kwargs[cache_argument(self.geometry.base)] = self.new_cache()
