"""ESA in force on a model: the handle that computes its attention, makes its caches, and gives the model back."""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.attention.cache.cache import RECONFIGURABLE, ESACache
from esa_attention.attention.cache.fixed import FixedState
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.cache.padding import padding_starts
from esa_attention.attention.cache.passes import Handed
from esa_attention.attention.cache.saving import fill_cache, read_cache
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.engine.step_fixed import attend_fixed, fixed_config, step_arguments
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.integration.asked import asked
from esa_attention.integration.by_design import say_by_design
from esa_attention.integration.cache_argument import CACHE_NAMES, cache_argument
from esa_attention.integration.graphs import DecodeGraphs, Graph
from esa_attention.integration.identity import handle_fingerprint
from esa_attention.integration.own_attention import own_attention
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
        self.graphs: DecodeGraphs | None = None
        self.steps: list[Any] = []  # see decoding()
        self._decoding: tuple[ESACache, FixedState] | None = None
        self._own = uuid.uuid4().bytes
        for owner in self._patch.owners:  # also where the model was given in a wrapper, through which generate goes
            if hasattr(type(owner), "_prepare_cache_for_generation"):
                owner.__dict__["_prepare_cache_for_generation"] = self._prepare_cache

    def new_cache(self, reserve: int = 0) -> ESACache:
        """An empty cache for this model.

        Args:
            reserve: Tokens to make room for at once; the cache grows by doubling in any case.
        """
        cache = ESACache(self.config, self.compressors, self.tables, reserve, self.geometry.trained_context)
        cache.made_for = self.fingerprint
        for index, layer in enumerate(cache.layers):
            layer.watchers, layer.layer_idx = self._watchers, index
        return cache

    @functools.cached_property
    def fingerprint(self) -> str:
        """By what caches know it: the model with its weights, the configuration, and the compressors."""
        return handle_fingerprint(self.model, self.geometry, self.config, self.compressors, self._own)

    def load_cache(self, path: str | os.PathLike[str], reserve: int = 0) -> ESACache:
        """Read a cache that was saved with ``cache.save(path)``.

        Args:
            path: The file.
            reserve: Tokens to make room for at once.

        Raises:
            UserError: If it is no such file, or was made for another model, configuration or compressors.
        """
        tensors, config, made_for = read_cache(path)
        if made_for != self.fingerprint:
            raise UserError(f"{path} was saved for another model, configuration or compressors than this handle's")
        cache = self.new_cache(reserve)
        cache.reconfigure(**{name: value for name, value in config.items() if name in RECONFIGURABLE})
        fill_cache(cache, tensors, self._device)
        return cache

    def _device(self, index: int) -> torch.device:
        """Where the attention of a layer runs."""
        held = [*self.geometry.attentions[index].parameters(), *self.geometry.attentions[index].buffers()]
        here = [t.device for t in held if t.device.type != "meta"]
        return here[0] if here else next(self._patch.rotary.buffers()).device

    def dense_until(self, config: ESAConfig | None = None) -> int:
        """Up to how many tokens attention is full on this model where it is now: what ``auto`` comes to.

        Args:
            config: Another configuration than the handle's.
        """
        layer = ESALayer(
            config or self.config, self.compressors[0], self.tables, trained_context=self.geometry.trained_context
        )
        layer.device, layer.dtype = self._device(0), next(self.geometry.attentions[0].parameters()).dtype
        return layer.dense_until

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

    def replay(self, new_graph: Callable[[], Graph]) -> None:
        """Record decoding steps, and replay them while a sequence grows.

        Args:
            new_graph: Makes what records; :class:`~esa_attention.integration.graphs.CudaGraph` for a GPU.
        """
        self.graphs = DecodeGraphs(self.geometry.base, self._watchers, new_graph)

    @contextlib.contextmanager
    def decoding(self, cache: ESACache, starts: Sequence[int] | None = None) -> Iterator[None]:
        """Inside, ``torch.compile(model, fullgraph=True)`` can decode: every call appends one token to every row.

        How long the sequence is is known to the device alone until the block ends. The prompt is read before it.

        Args:
            cache: A cache that holds a prompt, with room for what is decoded (``new_cache(reserve=N)``).
            starts: First real token of every row, where the prompt was padded.

        Raises:
            UserError: If the cache is empty or not this handle's, its configuration is not one of a fixed step, or rows
                are still short (``dense_until``); at the end, if more tokens were decoded than there was room for.
        """
        held = self._checked_cache(cache, "cache")
        held.recover()
        length, batch = held.get_seq_length(), held.batch
        if batch is None:
            raise UserError("the cache is empty: read a prompt into it before decoding")
        if not (fixed_config(held.config) and length + 1 - max(starts or [0]) > held.layers[0].dense_until):
            raise UserError(
                f"decoding() needs method='esa', selection='paper' or 'strict_causal', offload=false and more than "
                f"dense_until={held.layers[0].dense_until} tokens, got {held.config.method!r}, "
                f"{held.config.selection!r}, {held.config.offload} and {length}"
            )
        state = FixedState(batch, held.layers[0].device)
        state.agree(length, starts)
        room = min(buffer.capacity for layer in held.layers for buffer in layer.all_buffers())
        self.steps = [step_arguments(layer, state) for layer in held.layers]
        self._decoding = held, state
        try:
            with held.fixed(state):
                yield
        finally:
            self.steps, self._decoding = [], None
            decoded = int(state.length) - length
            for layer in held.layers:
                layer.advance(min(decoded, room - length))
        if decoded > room - length:
            raise UserError(
                f"{decoded} tokens were decoded into a cache with room for {room - length} more; give "
                f"new_cache(reserve=N) more room"
            )

    def begin_step(self, kwargs: dict[str, Any]) -> None:
        """The next token of a step that is compiled whole."""
        assert self._decoding is not None
        cache, state = self._decoding
        if all(kwargs.get(name) is not cache for name in CACHE_NAMES):
            raise UserError("inside handle.decoding(cache) every call is given that cache")
        state.length.add_(1)

    def remove(self) -> None:
        """Give the model its own attention back; doing it twice is harmless."""
        if self.graphs is not None:
            self.graphs.remove()
        self._patch.remove()

    def __enter__(self) -> ESAHandle:
        """Return the handle."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove ESA."""
        self.remove()

    # ---- what the patch asks of a handler

    def check_call(self, kwargs: dict[str, Any]) -> None:
        """Refuse what ESA cannot do while nothing is changed yet; give the decoder a cache of ours, and open it."""
        config: Any = self.geometry.base.config
        if kwargs.get("output_attentions") or getattr(config, "output_attentions", False):
            raise UserError("output_attentions=True cannot be had with ESA: no matrix of attention weights exists")
        name = next((n for n in CACHE_NAMES if kwargs.get(n) is not None), None)
        cache: ESACache | None = None
        if name is not None:
            cache = self._checked_cache(kwargs[name], name)
            cache.recover()
        call = asked(kwargs, 0 if cache is None else cache.get_seq_length(), None if cache is None else cache.batch)
        use_cache = kwargs.get("use_cache")
        if cache is None and (config.use_cache if use_cache is None else use_cache):
            kwargs[cache_argument(self.geometry.base)] = cache = self.new_cache()
        if cache is not None and call is not None:
            cache.begin(call.tokens, call.starts)

    def end_call(self, kwargs: dict[str, Any], failed: bool) -> None:
        """Close the cache; what a call that failed has appended is taken back."""
        if (cache := _given(kwargs)) is not None:
            cache.end(failed)

    def begin_model(self, kwargs: dict[str, Any]) -> None:
        """What was read by earlier calls stays read."""
        if (cache := _given(kwargs)) is not None:
            cache.forget_last()

    def end_model(self, kwargs: dict[str, Any], failed: bool) -> None:
        """Take back what the decoder has appended if what comes after it fails (out of memory in the logits)."""
        if failed and (cache := _given(kwargs)) is not None:
            cache.undo_last()

    def _checked_cache(self, cache: Any, name: str) -> ESACache:
        if not isinstance(cache, ESACache):
            if not any(hasattr(type(owner), "generate") for owner in self._patch.owners):
                raise UserError(
                    f"{name} must be an ESACache, got {type(cache).__name__}: ESA was applied to the decoder alone, so "
                    f"generate does not know of it; apply ESA to the whole model, or give {name}=handle.new_cache()"
                )
            raise UserError(
                f"{name} must be an ESACache, got {type(cache).__name__}: ESA keeps unrotated keys and an index. Leave "
                f"{name} out, or give {name}=handle.new_cache()"
            )
        if cache.made_for != self.fingerprint:
            raise UserError(
                f"{name} was made by another handle, for another model, configuration or compressors; use "
                "handle.new_cache() of the one in force"
            )
        for layer in cache.layers:  # a copy, or loaded, knows nobody yet
            layer.watchers = self._watchers
        return cache

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
        """Attention of the new tokens over all cached ones."""
        full = own_attention(module, self._patch.implementation)
        with torch.no_grad():
            if handed is not None and handed.state is not None:
                return attend_fixed(handed.layer, query.detach(), key, value, scaling, handed.state)
            if handed is not None:
                return attend_layer(handed.layer, query.detach(), scaling, handed.starts, full)
            # use_cache=False: the cache lives for this call
            index, length = int(module.layer_idx), key.shape[2]  # type: ignore[arg-type]
            trained = self.geometry.trained_context
            layer = ESALayer(self.config, self.compressors[index], self.tables, reserve=length, trained_context=trained)
            layer.watchers, layer.layer_idx = self._watchers, index
            layer.update(key.detach(), value.detach())
            starts = None if mask is None else padding_starts(mask, query.shape[0], length)
            return attend_layer(layer, query.detach(), scaling, starts if starts and any(starts) else None, full)

    def _prepare_cache(
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any = None,
        batch_size: int = 1,
        max_cache_length: int = 0,
    ) -> None:
        """In place of the model's method of ``generate``."""
        wanted = getattr(generation_config, "cache_implementation", None)
        if wanted not in _DYNAMIC:
            raise UserError(
                f"cache_implementation={wanted!r} cannot be used with ESA, which brings its own cache; leave it out"
            )
        config = self.config
        name = next((n for n in CACHE_NAMES if model_kwargs.get(n) is not None), None)
        if name is not None:
            cache = self._checked_cache(model_kwargs[name], name)
            cache.recover()  # generate asks it for its length next
            config, cache._is_user_defined = cache.config, True  # type: ignore[attr-defined]
        elif generation_config.use_cache is not False:
            model_kwargs[cache_argument(self.geometry.base)] = self.new_cache()
        if max_cache_length > self.dense_until(config):
            mask = model_kwargs.get("attention_mask")
            say_by_design(config, generation_config, generation_mode, max_cache_length, mask)


def _given(kwargs: dict[str, Any]) -> ESACache | None:
    """The cache among the arguments, if it is one of ours."""
    return next((kwargs[n] for n in CACHE_NAMES if isinstance(kwargs.get(n), ESACache)), None)
