"""Is a patched layer still the model's layer? Short sequences are all local, where ESA is plain causal attention.

Rotary embeddings come in conventions (halves or neighbours, partial, scaled) that no attribute names. A wrong guess
gives fluent nonsense, so every layer is run on a few random vectors before and after, and compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.compression.geometry import ModelGeometry
from esa_attention.config import ESAConfig
from esa_attention.integration.handle import ESAHandle

__all__ = ["check_layers", "stock_outputs"]

_TOKENS = 12
# Largest difference over largest magnitude. A wrong convention gives about 1; what is allowed is rounding alone.
_ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}


@contextlib.contextmanager
def _implementation(model: Any, name: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _run(module: nn.Module, index: int, base: Any, tokens: int) -> Tensor:
    weight = next(p for p in module.parameters() if p.is_floating_point())
    generator = torch.Generator().manual_seed(index)
    width = base.config.hidden_size
    dtype = weight.dtype if weight.dtype in _ALLOWED else torch.float32
    hidden = torch.randn(1, tokens, width, generator=generator).to(device=weight.device, dtype=dtype)
    positions = torch.arange(tokens, device=weight.device)[None]
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            rotary = base.rotary_emb(hidden, positions)
            return module(hidden_states=hidden, position_embeddings=rotary, attention_mask=None)[0]
    finally:
        module.train(training)


def stock_outputs(model: Any, shape: ModelGeometry) -> list[Tensor]:
    """Outputs of every attention module of the unpatched model on a few random vectors."""
    with _implementation(model, "sdpa"):
        return [_run(m, i, shape.base, _TOKENS) for i, m in enumerate(shape.attentions)]


def check_layers(handle: ESAHandle, expected: list[Tensor]) -> None:
    """Compare the patched model's layers with what they gave before.

    Raises:
        UserError: If one differs by more than rounding.
    """
    # Sizes under which a few tokens are all local, whatever the user's are.
    config, handle.config = handle.config, ESAConfig(num_local=_TOKENS, chunk_size=_TOKENS)
    try:
        for index, module in enumerate(handle.geometry.attentions):
            ours = _run(module, index, handle.geometry.base, _TOKENS)
            difference = float((ours.double() - expected[index].double()).abs().max())
            size = float(expected[index].double().abs().max())
            if not difference <= _ALLOWED.get(ours.dtype, 1e-4) * max(size, 1e-30):
                raise UserError(
                    f"model={type(handle.model).__name__} ({handle.geometry.model_type}) is not supported: with ESA "
                    f"layer {index} differs from its own attention by {difference / max(size, 1e-30):.2g} of its size "
                    f"on {_TOKENS} tokens; its rotary embedding or attention is of a kind ESA does not know"
                )
    finally:
        handle.config = config
