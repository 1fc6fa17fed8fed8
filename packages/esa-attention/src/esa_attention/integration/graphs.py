"""Decoding steps that are replayed: the launches of a whole decoder, recorded once, while the sequence grows.

A decoder launches hundreds of kernels for a token, each of which a GPU finishes sooner than Python asks for the next. A
CUDA graph asks for all of them at once. It repeats what was recorded, with the same memory: so the step reads its
lengths from the device (:mod:`esa_attention.attention.engine.step_fixed`), and before every token what a graph was
recorded for is compared with what is asked for. Where anything differs (another batch, buffers that have grown, another
configuration, a module that was changed), the step is computed as without graphs, and recorded anew once it settles.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.attention.cache.cache import ESACache
from esa_attention.attention.cache.fixed import FixedState
from esa_attention.attention.engine.step_fixed import can_replay, fixed_config, step_tables
from esa_attention.integration.cache_argument import CACHE_NAMES, cache_argument

__all__ = ["CudaGraph", "DecodeGraphs", "Graph"]

# Arguments of a decoder that a replayed step has, or that mean nothing to it: what is padding is known, and positions
# are ESA's own.
_KNOWN = {*CACHE_NAMES, "input_ids", "attention_mask", "position_ids", "use_cache", "cache_position"}


class Graph(Protocol):
    """Records what a function does on the device, and does it again."""

    def capture(self, run: Callable[[], Any]) -> Any:
        """Record ``run``; what it returns is written anew by every replay, and not before the first."""
        ...

    def replay(self) -> None:
        """Do it again."""
        ...


class CudaGraph:
    """The real one."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, run: Callable[[], Any]) -> Any:
        """See :class:`Graph`."""
        with torch.cuda.graph(self._graph):
            return run()

    def replay(self) -> None:
        """See :class:`Graph`."""
        self._graph.replay()


@dataclass
class _Recorded:
    """What is known of one cache."""

    state: FixedState
    key: Any = None  # of the last step
    seen: int = 0  # steps in a row with that key
    graph: Graph | None = None
    ids: Tensor | None = None
    output: Any = field(default=None, repr=False)
    kept: list[Any] = field(default_factory=list)  # memory that is recorded and that others might let go


class DecodeGraphs:
    """Stands between a decoder and its callers, and replays where that is the same.

    Args:
        base: The decoder.
        watchers: Who wants to see what is chosen; nothing is replayed for them.
        new_graph: Makes a recorder.

    Raises:
        UserError: If somebody else stands there already (hooks that move weights between devices do).
    """

    def __init__(self, base: Any, watchers: Sequence[Any], new_graph: Callable[[], Graph] = CudaGraph) -> None:
        if "forward" in base.__dict__:
            raise UserError(f"cuda_graphs=True: the forward of {type(base).__name__} was replaced; undo that first")
        self.base, self.watchers, self.new_graph = base, watchers, new_graph
        self.captures = self.replays = 0
        self._held: weakref.WeakKeyDictionary[ESACache, _Recorded] = weakref.WeakKeyDictionary()
        base.__dict__["forward"] = self

    def remove(self) -> None:
        """Let the decoder be called directly again."""
        self.base.__dict__.pop("forward", None)
        self._held.clear()

    def __call__(self, **kwargs: Any) -> Any:
        """The decoder's forward; hooks of the decoder have completed its arguments."""
        cache = next((kwargs[n] for n in CACHE_NAMES if kwargs.get(n) is not None), None)
        if not isinstance(cache, ESACache) or not self._can(cache, kwargs):
            return self._plain(kwargs)
        held = self._settled(cache, kwargs["input_ids"])
        if held.seen == 1:
            return self._plain(kwargs)
        try:
            output = self._step(held, cache, kwargs)
        except BaseException:
            held.state.forget()
            held.key = None
            raise
        held.state.advance()
        for layer in cache.layers:
            layer.advance(1)
        return output

    def _plain(self, kwargs: dict[str, Any]) -> Any:
        return type(self.base).forward(self.base, **kwargs)

    def _can(self, cache: ESACache, kwargs: dict[str, Any]) -> bool:
        """Whether a step is one that could be replayed."""
        ids, config = kwargs.get("input_ids"), cache.config
        if ids is None or ids.shape[1] != 1 or torch.is_grad_enabled() or self.watchers:
            return False
        if any(value not in (None, False) for name, value in kwargs.items() if name not in _KNOWN):
            return False
        if not fixed_config(config):
            return False
        if not all(layer.is_initialized and layer.device == ids.device for layer in cache.layers):
            return False
        if not all(can_replay(layer) for layer in cache.layers):
            return False
        total, starts = cache.get_seq_length() + 1, cache.starts or [0]
        return total - max(starts) > max(layer.dense_until for layer in cache.layers)

    def _settled(self, cache: ESACache, ids: Tensor) -> _Recorded:
        """Count for how many steps nothing has changed that a recorded step depends on."""
        batch = ids.shape[0]
        held = self._held.get(cache)
        if held is None or held.state.start.shape[0] != batch or held.state.length.device != ids.device:
            held = self._held[cache] = _Recorded(FixedState(batch, ids.device))
        key: list[Any] = [cache.config, ids.dtype]
        for layer in cache.layers:
            layer.make_room(1)
            key += [*layer.addresses(), step_tables(layer, ids.device)[0].data_ptr()]
        key += _signature(self.base)
        held.seen = held.seen + 1 if key == held.key else 1
        held.key = key
        if held.seen == 1:
            held.graph = held.output = None
        held.state.agree(cache.get_seq_length(), cache.starts)
        return held

    def _step(self, held: _Recorded, cache: ESACache, kwargs: dict[str, Any]) -> Any:
        """The step by its fixed form: once as it is, so that everything is compiled, then recorded, then replayed."""
        if held.seen == 2:
            return self._fixed(held.state, cache, kwargs["input_ids"])
        if held.graph is None:
            held.ids = kwargs["input_ids"].clone()
            held.kept = [step_tables(layer, held.ids.device) for layer in cache.layers]
            graph = self.new_graph()
            ids = held.ids
            held.output = graph.capture(lambda: self._fixed(held.state, cache, ids))
            held.graph = graph
            self.captures += 1
        assert held.ids is not None
        held.ids.copy_(kwargs["input_ids"])
        held.graph.replay()
        self.replays += 1
        # The next replay writes over it.
        return type(held.output)(**{**held.output, "last_hidden_state": held.output.last_hidden_state.clone()})

    def _fixed(self, state: FixedState, cache: ESACache, ids: Tensor) -> Any:
        """One step whose lengths are on the device; only what it launches matters after it was recorded."""
        state.length.add_(1)
        positions = torch.zeros_like(ids)  # rotation is ESA's own
        name = cache_argument(self.base)
        with cache.fixed(state):
            return self._plain({"input_ids": ids, "position_ids": positions, name: cache, "use_cache": True})


def _signature(base: nn.Module) -> list[Any]:
    """What of a decoder decides which launches it makes, on which memory."""
    found: list[Any] = []
    for module in base.modules():
        adapters = getattr(module, "_disable_adapters", None), str(getattr(module, "active_adapters", ""))
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks)
        found.append((id(module), module.training, hooks, adapters, module.__dict__.get("forward")))
    found += [parameter.data_ptr() for parameter in base.parameters()]
    return found
