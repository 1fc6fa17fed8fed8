"""One length: the tensors, and a callable for every provider."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.attention.cache.buffers import empty
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.cache.workspace import Workspace
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.rope import RopeTables
from esa_attention.commands.bench.peers import Call, full_forms
from esa_attention.commands.bench.shape import LayerShape
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig

__all__ = ["PROVIDERS", "Case", "need_flash_attn"]

PROVIDERS = ("esa", "esa_int8", "esa_exact", "sdpa", "flash_attn")
_FILL = 8192  # tokens appended at once while a cache is filled


def need_flash_attn() -> None:
    """Refuse the provider ``flash_attn`` where it cannot be loaded, before anything is timed."""
    try:
        from flash_attn import flash_attn_func  # noqa: F401
    except Exception as error:  # a broken build raises anything
        raise UserError(f"providers: flash_attn cannot be loaded ({error}); install the extra 'flash'") from None


class Case:
    """Tensors and callables of one length; providers are made when asked for and dropped with the case."""

    def __init__(
        self,
        shape: LayerShape,
        config: ESAConfig,
        rank: int,
        length: int,
        new: int,
        device: torch.device,
        dtype: torch.dtype,
        seed: int = 0,
    ) -> None:
        self.shape, self.config, self.length, self.new = shape, config, length, new
        self.device, self.dtype, self.seed = device, dtype, seed
        self._generator = torch.Generator(device).manual_seed(seed)
        weights = self._randn(2, rank, shape.key_dim, dtype=torch.float32) / math.sqrt(shape.key_dim)
        self.compressor = QKCompressor(shape.num_kv_heads, shape.head_dim, weights[0], weights[1])
        self.tables = RopeTables.standard(shape.head_dim, 5e5)
        self.query = self._randn(1, shape.num_heads, new, shape.head_dim)
        self.keys, self.values = (self._randn(1, shape.num_kv_heads, new, shape.head_dim) for _ in range(2))
        self.workspace = Workspace()

    def _randn(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*size, generator=self._generator, device=self.device, dtype=dtype or self.dtype)

    def layer(self, provider: str) -> ESALayer:
        """A cache layer that holds ``length`` tokens."""
        config = self.config.replace(index_dtype="int8") if provider == "esa_int8" else self.config
        exact = QKCompressor.exact(self.shape.num_kv_heads, self.shape.head_dim)
        compressor = exact if provider == "esa_exact" else self.compressor
        # Room for every token that the timing will append: growing by doubling is amortised, not part of a step.
        layer = ESALayer(config, compressor, self.tables, self.length + 4096 * self.new, self.workspace)
        size = (1, self.shape.num_kv_heads, _FILL, self.shape.head_dim)
        self._generator.manual_seed(self.seed + 1)
        for low in range(0, self.length, _FILL):
            count = min(_FILL, self.length - low)
            keys, values = self._randn(*size)[:, :, :count], self._randn(*size)[:, :, :count]
            layer.update(keys, values)
        layer.flush()
        return layer

    def esa(self, provider: str) -> Callable[[], Any]:
        """The whole step: append, score, select, gather, attend."""
        layer, scaling = self.layer(provider), self.shape.head_dim**-0.5

        def step() -> Tensor:
            with torch.inference_mode():
                layer.update(self.keys, self.values)
                out = attend_layer(layer, self.query, scaling)
                if self.new > 1:  # a chunk would make the sequence much longer
                    layer.crop(-self.new)
                return out

        return step

    def full(self) -> dict[str, Call]:
        """Full attention over as many keys, contiguous by head, in every form there is."""
        size = (1, self.shape.num_kv_heads, self.length + self.new, self.shape.head_dim)
        self._generator.manual_seed(self.seed + 1)
        # In memory of the cache's kind, which may lie in large pages.
        keys, values = (empty(size, self.dtype, self.device).copy_(self._randn(*size)) for _ in range(2))
        return full_forms(self.query, keys, values)

    def append(self) -> Callable[[], Any]:
        """Appending one token, the index included."""
        layer = self.layer("esa")

        def run() -> None:
            with torch.inference_mode():
                layer.update(self.keys, self.values)
                layer.crop(-self.new)

        return run
