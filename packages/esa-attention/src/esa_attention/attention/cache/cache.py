"""The cache of a model: its layers, and what they have in common."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from effkit.errors import UserError, choose
from esa_attention.attention.cache.fixed import FixedState
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.cache.passes import Handed, Mark, Pass, marked, restore
from esa_attention.attention.cache.saving import save_cache
from esa_attention.attention.cache.workspace import Workspace
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig

__all__ = ["ESACache"]

# What only the selection asks for, and not what is stored.
RECONFIGURABLE = (
    *("num_initial", "num_selected", "proximity", "selection", "selection_block", "rerank_factor", "reuse_threshold"),
    *("dense_until", "backend", "cpu_forms"),
)


class ESACache(Cache):
    """All layers of a model; made by :meth:`esa_attention.integration.handle.ESAHandle.new_cache`.

    Args:
        config: Sizes and options.
        compressors: One a layer.
        tables: Rotary tables of the model.
        reserve: Tokens to make room for at once, so that nothing grows on the way.
        trained_context: Longest sequence the model was trained on, which ``dense_until="auto"`` depends on.

    Raises:
        UserError: If there is no layer.
    """

    def __init__(
        self,
        config: ESAConfig,
        compressors: Sequence[QKCompressor],
        tables: RopeTables,
        reserve: int = 0,
        trained_context: int | None = None,
    ) -> None:
        if not compressors:
            raise UserError("compressors is empty, ESACache needs one a layer")
        self.config = config
        self.workspace = Workspace()
        layers: list[Any] = [ESALayer(config, c, tables, reserve, self.workspace, trained_context) for c in compressors]
        super().__init__(layers=layers)
        self.layers: list[Any]
        self.made_for = ""  # fingerprint of the model, maps and configuration it belongs to
        self._pass: Pass | None = None
        self._last: list[Mark] | None = None  # what was held before the last pass that ended
        self._broken = ""
        self._fixed: FixedState | None = None

    def reconfigure(self, **changes: Any) -> None:
        """Change how the next tokens are selected, over what is cached already.

        Reading a long context is what takes time; sizes and orders of the selection can be compared on one reading.

        Args:
            **changes: Fields of the configuration, of those in :data:`RECONFIGURABLE`.

        Raises:
            UserError: If a field decides what is stored, or a value is out of range.
        """
        for name in changes:
            choose("field that can be changed", name, RECONFIGURABLE)
        self.config = self.config.replace(**changes)
        for layer in self.layers:
            layer.config = self.config
            layer.derived.choices.clear()

    # ---- copies

    def copy(self) -> ESACache:
        """The same tokens in memory of their own: one reading of a prompt, and a copy for every question.

        Raises:
            UserError: If another thread is in the middle of a pass, or the cache is unusable.
        """
        self.recover()
        other = ESACache.__new__(ESACache)
        other.__dict__.update(self.__dict__)
        other.workspace, other._last = Workspace(), None
        other.layers = [layer.copy(other.workspace) for layer in self.layers]
        return other

    def __copy__(self) -> ESACache:
        """A whole copy: two caches over the same memory would write over each other."""
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> ESACache:
        """See :meth:`copy`."""
        return self.copy()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write what is held to one safetensors file; ``handle.load_cache(path)`` reads it.

        Args:
            path: Where to; an existing file is replaced in one step.

        Raises:
            UserError: If nothing is held.
        """
        return save_cache(self, path)

    # ---- forward passes

    @property
    def batch(self) -> int | None:
        """Sequences held; ``None`` while the cache is empty."""
        store = self.layers[0].store
        return None if store is None else int(store.data.shape[0])

    def recover(self) -> None:
        """Take back what a pass that was interrupted has appended.

        Raises:
            UserError: If another thread is in the middle of a pass, or the cache was left unusable.
        """
        if self._pass is not None:
            if self._pass.runs_elsewhere():
                raise UserError("the cache is being written by a pass in another thread; a cache is for one at a time")
            self.end(failed=True)
        if not self._broken and len({layer.get_seq_length() for layer in self.layers}) > 1:
            self._broken = "its layers hold different numbers of tokens"
        if self._broken:
            raise UserError(f"the cache cannot be used any more: {self._broken}; take a new one")

    def begin(self, tokens: int, starts: Sequence[int] | None = None) -> None:
        """Begin a forward pass that appends to all layers.

        Args:
            tokens: How many.
            starts: First real token of every row, where something is padded.

        Raises:
            UserError: See :meth:`recover`.
        """
        self.recover()
        if self._fixed is not None:
            raise UserError("inside handle.decoding(cache) the cache is for a model compiled with fullgraph=True alone")
        self._last = None
        length = self.layers[0].get_seq_length() + tokens
        self._pass = Pass(marked(self.layers), length, starts, threading.get_ident())

    def end(self, failed: bool = False) -> None:
        """End the pass; one that failed leaves the cache as it was before. Harmless where none has begun."""
        if self._pass is None or self._pass.runs_elsewhere():
            return
        if failed:
            restore(self.layers, self._pass.marks)
        else:
            self._last = self._pass.marks
        self._pass = None

    def forget_last(self) -> None:
        """What was appended until now stays, whatever fails later."""
        self._last = None

    def undo_last(self) -> None:
        """Take back the last pass: what came after the decoder has failed."""
        if self._pass is None and self._last is not None:
            restore(self.layers, self._last)
            self._last = None

    @property
    def starts(self) -> Sequence[int] | None:
        """First real token of every row in the pass that has begun; ``None`` where nothing is padded."""
        return None if self._pass is None else self._pass.starts

    @contextlib.contextmanager
    def fixed(self, state: FixedState) -> Iterator[None]:
        """Leave appending to the steps of the layers, which know from the device where to: see ``step_fixed``."""
        self._fixed = state
        try:
            yield
        finally:
            self._fixed = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`update_as_it_is`; in a step that is compiled whole attention appends (``ESAHandle.decoding``)."""
        if torch.compiler.is_compiling() and self._fixed is not None:
            return key_states, value_states
        return self.update_as_it_is(key_states, value_states, layer_idx, *args, **kwargs)

    @torch.compiler.disable
    def update_as_it_is(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values to a layer, in a pass of a model that ESA is applied to.

        Returns:
            Views of all its keys and values, which say where they are from.

        Raises:
            UserError: If no such pass has begun, or the layer was appended to in it already.
        """
        if self._pass is None:
            raise UserError(
                "an ESACache holds unrotated keys for a model that ESA is applied to; this model's own attention "
                "cannot read it: apply_esa(model), or leave the cache out"
            )
        layer = self.layers[layer_idx]
        if layer.get_seq_length() + key_states.shape[2] != self._pass.length:
            raise UserError(
                f"layer {layer_idx} would hold {layer.get_seq_length() + key_states.shape[2]} tokens after a pass that "
                f"ends with {self._pass.length}: the model appends to it twice, or not to all layers"
            )
        if self._fixed is not None:
            keys, values = key_states.detach(), value_states.detach()
            keys.esa_handed = values.esa_handed = Handed(  # type: ignore[attr-defined]
                layer, self._pass.starts, self._fixed
            )
            return keys, values
        keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        keys.esa_handed = values.esa_handed = Handed(layer, self._pass.starts)  # type: ignore[attr-defined]
        return keys, values

    # ---- changes of all layers at once: half of one is worse than none

    @contextlib.contextmanager
    def _whole(self, what: str) -> Iterator[None]:
        self.recover()
        self._last = None
        try:
            yield
        except BaseException:
            self._broken = f"{what} failed in the middle"
            raise

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Forget the last tokens of all layers, see :meth:`ESALayer.crop`."""
        with self._whole("crop"):
            super().crop(*args, **kwargs)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take over the sequences of the beams that go on."""
        with self._whole("reorder_cache"):
            super().reorder_cache(beam_idx)  # type: ignore[arg-type]  # any integers do

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every sequence."""
        with self._whole("batch_repeat_interleave"):
            super().batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some sequences; indices or a mask."""
        with self._whole("batch_select_indices"):
            super().batch_select_indices(indices)

    def reset(self) -> None:
        """Forget everything; the cache is as new."""
        self._pass, self._last, self._broken = None, None, ""
        super().reset()

    def memory(self) -> dict[str, int]:
        """Bytes allocated, by part, and in ``total``; ``used`` are those of tokens held."""
        parts: dict[str, int] = {"workspace": self.workspace.nbytes}
        for layer in self.layers:
            for name, size in layer.memory().items():
                parts[name] = parts.get(name, 0) + size
        parts["total"] = sum(size for name, size in parts.items() if name != "used")
        return parts
