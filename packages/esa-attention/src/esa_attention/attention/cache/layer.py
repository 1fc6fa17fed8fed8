"""The cache of one layer: everything is kept, unrotated, with a compressed key beside every token.

A cache layer of transformers: ``generate`` appends to it, crops, reorders and repeats it as it does its own. Appending
costs the same however long the cache is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from effkit.errors import UserError
from esa_attention.attention.cache.buffers import GrowingBuffer, IndexStore, index_dtype
from esa_attention.attention.cache.dense import DenseKeys
from esa_attention.attention.cache.window import RotatedWindow
from esa_attention.attention.cache.workspace import Workspace
from esa_attention.attention.crossover import dense_limit
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.folding import fold_keys
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.ops.checks import check_finite
from esa_attention.ops.chunk_prepare_triton import can_prepare_chunk
from esa_attention.ops.dispatch import StepFacts, triton_runs

__all__ = ["ESALayer", "LastChoice"]


@dataclass
class LastChoice:
    """What a row chose last, for ``selection="reuse"``."""

    query: Tensor
    indices: Tensor


@dataclass
class _Derived:
    """What can be forgotten: windows are made again, choices are taken again."""

    windows: dict[int, RotatedWindow] = field(default_factory=dict)  # by row
    choices: dict[int, LastChoice] = field(default_factory=dict)
    blocks: dict[Any, Any] = field(default_factory=dict)  # what baselines keep of whole blocks
    dense: DenseKeys | None = None  # keys for full attention, while any row is short


class ESALayer(DynamicLayer):
    """Keys, values and index of one layer.

    Args:
        config: Sizes and options.
        compressor: Maps of the layer.
        tables: Rotary tables of the model.
        reserve: Tokens to make room for at once.
        workspace: Scratch shared with other layers.
        trained_context: Longest sequence the model was trained on, which ``dense_until="auto"`` depends on.

    Attributes:
        store: Unrotated keys and values, ``(B, capacity, 2, K, D)``.
        index: Compressed keys; ``None`` where the keys themselves are the index (exact scores).
        fresh: Keys and values ``(B, K, T, D)`` of the latest tokens that have a place but are not yet in it: the kernel
            that begins their step writes them. Whoever asks for ``store`` or ``index`` before has them written at once.
    """

    is_croppable = True

    def __init__(
        self,
        config: ESAConfig,
        compressor: QKCompressor,
        tables: RopeTables,
        reserve: int = 0,
        workspace: Workspace | None = None,
        trained_context: int | None = None,
    ) -> None:
        super().__init__()
        self.trained_context = trained_context
        self.config, self.tables, self.reserve = config, tables, reserve
        self.compressor = compressor
        self.workspace = Workspace() if workspace is None else workspace
        self._store: GrowingBuffer | None = None
        self._index: IndexStore | None = None
        self.fresh: tuple[Tensor, Tensor] | None = None
        self.queries: GrowingBuffer | None = None
        self.derived = _Derived()
        self.layer_idx = 0
        self.watchers: list[Callable[..., None]] = []  # see ESAHandle.watch

    @property
    def store(self) -> GrowingBuffer | None:
        """Unrotated keys and values."""
        self.flush()
        return self._store

    @store.setter
    def store(self, value: GrowingBuffer | None) -> None:
        self._store = value

    @property
    def index(self) -> IndexStore | None:
        """Compressed keys."""
        self.flush()
        return self._index

    @index.setter
    def index(self, value: IndexStore | None) -> None:
        self._index = value

    def without_fresh(self) -> tuple[GrowingBuffer, IndexStore | None]:
        """``store`` and ``index`` as they are, for what writes ``fresh``."""
        assert self._store is not None
        return self._store, self._index

    @property
    def batch(self) -> int:
        """Sequences held; 0 while there is nothing."""
        return 0 if self._store is None else self._store.data.shape[0]

    # transformers keeps whole tensors in these two; ours are views of a buffer that may move.
    @property
    def keys(self) -> Tensor | None:  # type: ignore[override]
        """Unrotated keys ``(B, K, S, D)``, a view."""
        return None if self.store is None else self.store.rows[:, :, 0].transpose(1, 2)

    @keys.setter
    def keys(self, value: Any) -> None:
        assert value is None

    @property
    def values(self) -> Tensor | None:  # type: ignore[override]
        """Values ``(B, K, S, D)``, a view."""
        return None if self.store is None else self.store.rows[:, :, 1].transpose(1, 2)

    @values.setter
    def values(self, value: Any) -> None:
        assert value is None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for the shape, type and device of the first tokens."""
        if key_states.shape != value_states.shape:
            raise UserError(
                f"keys and values must have one shape, got {tuple(key_states.shape)} and {tuple(value_states.shape)}"
            )
        batch, heads, _, dim = key_states.shape
        self.dtype, self.device = key_states.dtype, key_states.device
        offload = self.config.offload
        host = torch.device("cpu") if offload else self.device
        pin = offload and self.device.type == "cuda"
        self.store = GrowingBuffer(batch, (2, heads, dim), self.dtype, host, self.reserve, pin)
        wide = torch.promote_types(self.dtype, torch.float32)
        if self.compressor.is_exact:
            self.compressor = QKCompressor.exact(heads, dim)
        elif self.compressor.key_dim != heads * dim:
            raise UserError(
                f"the compressor is made for keys of {self.compressor.key_dim} numbers, the model's have {heads * dim}"
            )
        self.compressor = self.compressor.to(device=self.device, dtype=wide)
        dtype = index_dtype(self.config.index_dtype, self.dtype, self.device.type, self.compressor.is_exact)
        if self.config.method == "esa" and (not self.compressor.is_exact or dtype == torch.int8):
            self.index = IndexStore(batch, self.compressor.rank, dtype, self.device, self.reserve)
        if self.config.method == "infllm_blocks":
            self.queries = GrowingBuffer(batch, (heads * dim,), wide, self.device, self.reserve)
        self.derived = _Derived()
        self.is_initialized = True

    def window(self, row: int) -> RotatedWindow:
        """Rotated keys of the latest tokens of one sequence; made when first asked for (kernels rotate their own)."""
        if row in self.derived.windows:
            return self.derived.windows[row]
        assert self.store is not None
        c, (heads, dim) = self.config, self.store.data.shape[3:]
        room = c.num_local + c.chunk_size
        if not self.tables.length_dependent:
            room += c.chunk_size  # how far the window moves before its keys are rotated anew
        values = c.offload or self.device.type == "cpu"
        window = RotatedWindow((heads, dim), self.dtype, self.device, self.tables, room, values)
        self.derived.windows[row] = window
        return window

    @property
    def dense_until(self) -> int:
        """Up to how many tokens attention is full; see :class:`~esa_attention.config.ESAConfig`."""
        asked = self.config.dense_until
        if asked != "auto":
            return asked
        if self.trained_context is None or self.tables.length_dependent:
            return 0
        return dense_limit(self.trained_context, self.device.type, self.dtype)

    def dense(self) -> DenseKeys:
        """Rotated keys of all tokens; made when first asked for."""
        if self.derived.dense is None:
            values = self.config.offload or self.device.type == "cpu"
            self.derived.dense = DenseKeys(self.tables, self.dtype, self.device, values)
        return self.derived.dense

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the keys and values of ``T`` tokens, ``(B, K, T, D)`` each.

        Returns:
            Views of all keys and values ``(B, K, S, D)``.

        Raises:
            UserError: If a key or value is NaN or infinite, or the shape differs from what is cached.
        """
        # A buffer that tokens with gradients are copied into would keep the graph of every step.
        key_states, value_states = key_states.detach(), value_states.detach()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.store is not None
        batch, _, heads, dim = self.store.data.shape[0], *self.store.data.shape[2:]
        if (key_states.shape[0], key_states.shape[1], key_states.shape[3]) != (batch, heads, dim):
            raise UserError(
                f"keys of shape {tuple(key_states.shape)} do not continue a cache of {batch} sequences with {heads} "
                f"key-value heads of dimension {dim}"
            )
        count = key_states.shape[2]
        checked = self.checks(count)
        if checked:
            check_finite("the model", key=key_states, value=value_states)
        store, index = self.store, self.index
        store.extend(count)
        if index is not None:
            index.extend(count)
        self.fresh = (key_states, value_states)
        if not self._may_wait(key_states, value_states, checked):
            self.flush()
        return store.rows[:, :, 0].transpose(1, 2), store.rows[:, :, 1].transpose(1, 2)

    def _may_wait(self, key: Tensor, value: Tensor, checked: bool) -> bool:
        """Whether the kernel that begins a step of several tokens can write them to the cache as well."""
        store, index = self.without_fresh()
        if key.shape[2] == 1 or self.queries is not None:
            return False
        if any(t.dtype != store.data.dtype or t.stride(3) != 1 for t in (key, value)):
            return False
        if not triton_runs(self.facts(key), refuses=False):
            return False
        kept = None if index is None else index.keys.data.dtype
        if checked and kept == torch.float16:
            return False  # the index is looked at as well
        maps = self.compressor
        return can_prepare_chunk(key.dtype, kept, maps.query_weight, maps.key_weight)

    def flush(self) -> None:
        """Write what is ``fresh`` to its place, if there is anything."""
        if self.fresh is None:
            return
        (key, value), self.fresh = self.fresh, None
        store, index = self.without_fresh()
        count = key.shape[2]
        rows = store.rows[:, store.length - count :]
        rows[:, :, 0].copy_(key.transpose(1, 2), non_blocking=True)
        rows[:, :, 1].copy_(value.transpose(1, 2), non_blocking=True)
        if index is not None:
            compressed = fold_keys(key) if self.compressor.is_exact else self.compressor.compress_key(key)
            if self.checks(count) and index.keys.data.dtype == torch.float16:
                # Sums of many products may leave its range though every key is in it.
                check_finite("the index in fp16 (index_dtype)", **{"compressed key": compressed.to(torch.float16)})
            index.write_last(compressed)

    def make_room(self, count: int) -> None:
        """Make room for ``count`` more tokens."""
        for buffer in self.all_buffers():
            buffer.make_room(count)

    def advance(self, count: int) -> None:
        """Tokens for which there was room were written by somebody else."""
        for buffer in self.all_buffers():
            buffer.length += count

    def all_buffers(self) -> list[GrowingBuffer]:
        """Memory that grows with the tokens."""
        found = [self.store, self.queries]
        if self.index is not None:
            found += [self.index.keys, self.index.scale]
        return [buffer for buffer in found if buffer is not None]

    def addresses(self) -> list[int]:
        """Where the memory of the layer lies, and that of its maps."""
        held = [buffer.data for buffer in self.all_buffers()] + list(self.compressor.tensors().values())
        return [tensor.data_ptr() for tensor in held]

    def facts(self, query: Tensor) -> StepFacts:
        """What the choice of a backend depends on."""
        config = self.config
        return StepFacts(
            backend=config.backend,
            device=query.device,
            dtype=query.dtype,
            method=config.method,
            selection=config.selection,
            proximity=config.proximity,
            offload=config.offload,
        )

    def checks(self, count: int) -> bool:
        """Whether ``count`` new tokens are looked at for NaN: a decoded one on a GPU would cost a synchronisation."""
        return self.config.check_finite and (self.device.type == "cpu" or count > 1)

    def get_seq_length(self) -> int:
        """Tokens held."""
        return 0 if self._store is None else self._store.length

    def index_rows(self, row: int, begin: int, end: int) -> Tensor:
        """Compressed keys of tokens ``[begin, end)`` of one sequence, ``(N, R)``; a view unless stored in 8 bits."""
        if self.index is not None:
            return self.index.floats(begin, end)[row]
        assert self.store is not None
        rows = self.store.data[row, begin:end, 0]
        return rows.flatten(1)  # a strided view: heads and dimensions of one token lie together

    def memory(self) -> dict[str, int]:
        """Bytes allocated, by part; ``used`` are those of tokens held (keys, values and index)."""
        parts = {"kv": 0, "index": 0, "window": sum(w.nbytes for w in self.derived.windows.values()), "used": 0}
        parts["window"] += 0 if self.derived.dense is None else self.derived.dense.nbytes
        for name, buffer in (("kv", self.store), ("index", self.index)):
            if buffer is not None:
                parts[name] = buffer.nbytes
                held = buffer if isinstance(buffer, GrowingBuffer) else buffer.keys
                parts["used"] += buffer.nbytes * held.length // held.capacity
        return parts

    def copy(self, workspace: Workspace) -> ESALayer:
        """The same tokens in memory of their own; maps and tables are shared, which nothing changes."""
        self.flush()
        other = ESALayer.__new__(ESALayer)
        other.__dict__.update(self.__dict__)
        other.workspace = workspace
        other.store = None if self.store is None else self.store.copy()
        other.index = None if self.index is None else self.index.copy()
        other.queries = None if self.queries is None else self.queries.copy()
        windows = {row: window.copy() for row, window in self.derived.windows.items()}
        other.derived = _Derived(windows, dict(self.derived.choices), dict(self.derived.blocks))
        return other

    def __getstate__(self) -> dict[str, Any]:
        """What is stored, and not who watches or what can be made again."""
        self.flush()
        return {**self.__dict__, "watchers": [], "derived": _Derived(choices=self.derived.choices)}

    def _buffers(self) -> list[GrowingBuffer | IndexStore]:
        return [b for b in (self.store, self.index, self.queries) if b is not None]

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens.

        Args:
            tokens_to_remove: Minus their number. A positive number is the length to keep, as transformers had it
                before.
        """
        held, removed = self.get_seq_length(), int(tokens_to_remove)  # transformers 5.17 gives a tensor
        length = max(held + removed if removed <= 0 else min(removed, held), 0)
        if self.fresh is not None and length <= held - self.fresh[0].shape[2]:
            self.fresh = None
        for buffer in self._buffers():
            buffer.crop(length)
        for window in self.derived.windows.values():
            window.crop(length)
        if self.derived.dense is not None:
            self.derived.dense.crop(length)
        self.derived.choices.clear()
        self.derived.blocks.clear()

    def _rearrange(self, rows: Tensor) -> None:
        if self.store is None:
            return
        for buffer in self._buffers():
            buffer.rearrange(rows)
        order = [int(i) for i in rows.tolist()]
        old = self.derived
        if old.dense is not None:
            old.dense.rearrange(rows)
        self.derived = _Derived(
            dense=old.dense,
            windows={new: old.windows[i].copy() for new, i in enumerate(order) if i in old.windows},
            choices={new: old.choices[i] for new, i in enumerate(order) if i in old.choices},
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take over the sequences of the beams that go on."""
        self._rearrange(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some sequences of the batch; indices or a mask."""
        if self.store is not None:
            rows = torch.as_tensor(indices)
            self._rearrange(rows.nonzero().flatten() if rows.dtype == torch.bool else rows)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every sequence."""
        if self.store is not None:
            self._rearrange(torch.arange(self.store.data.shape[0]).repeat_interleave(repeats))

    def reset(self) -> None:
        """Forget everything; the next tokens may have another batch size."""
        self.store = self.index = self.queries = self.fresh = None
        self.derived = _Derived()
        self.is_initialized = False

    def offload(self) -> None:
        """Nothing: keys and values are in host memory already where ``config.offload`` asks for it."""

    def prefetch(self) -> None:
        """Nothing, see :meth:`offload`."""
