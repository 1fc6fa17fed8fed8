"""The two functions that transformers knows ESA by: attention, and the mask that goes with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import causal_mask_function

from effkit.errors import UserError
from esa_attention.attention.engine.step_fixed import decode_step

__all__ = ["HANDLER", "IMPLEMENTATION", "register"]

IMPLEMENTATION = "esa"
# Where an attention module keeps what computes for it. An attribute and no global table: it goes with the model.
HANDLER = "_esa_handler"


def register() -> None:
    """Make both known to transformers, under the name ``esa``."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Attention of one layer in one pass; see ``ESAHandle.decoding`` for the only pass that is compiled whole."""
    handler = getattr(module, HANDLER, None)
    if torch.compiler.is_compiling() and handler is not None and handler.steps:
        scaling = kwargs.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        before, after = handler.steps[module.layer_idx]
        return decode_step(query, key, value, *before, scaling, *after).transpose(1, 2), None
    return _attention_as_it_is(module, query, key, value, *args, **kwargs)


@torch.compiler.disable  # a break in the graph: what follows depends on lengths and on what was cached
def _attention_as_it_is(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer in one pass."""
    handler = getattr(module, HANDLER, None)
    if handler is None:
        raise UserError(
            "attention implementation 'esa' is set on a model that ESA was not applied to; call apply_esa(model)"
        )
    if dropout:
        raise UserError(f"attention dropout is {dropout} in training mode, which ESA does not have; call model.eval()")
    if kwargs.get("output_attentions"):
        raise UserError("output_attentions=True cannot be had with ESA: no matrix of attention weights exists")
    if kwargs.get("sliding_window") is not None:
        raise UserError(f"a sliding window of {kwargs['sliding_window']} tokens cannot be combined with ESA")
    if attention_mask is not None and attention_mask.ndim != 2:
        raise UserError(
            f"{type(module).__name__} attends with a mask that is not plainly causal (windows, packed sequences, "
            "images that see each other), which ESA does not know"
        )
    handed = getattr(key, "esa_handed", None)
    # A model may work on its keys or values between cache and attention. Then the cache's are not what it attends to.
    if getattr(value, "esa_handed", None) is not handed or (handed is None and key.shape[2] != query.shape[2]):
        raise UserError(
            f"{type(module).__name__} attends to other keys or values than those it caches, which ESA does not know"
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = handler.attend(module, query, key, value, attention_mask, scaling, handed)
    if torch.is_grad_enabled() and query.requires_grad:
        out = _NoBackward.apply(out, query, key, value)
    return out.transpose(1, 2), None


def _mask(*args: Any, mask_function: Any = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """See :func:`_mask_as_it_is`, which a compiler need not look into."""
    if torch.compiler.is_compiling() and attention_mask is None and mask_function is causal_mask_function:
        return None
    return _mask_as_it_is(*args, mask_function=mask_function, attention_mask=attention_mask, **kwargs)


@torch.compiler.disable
def _mask_as_it_is(
    batch_size: int = 0,
    q_length: int = 0,
    kv_length: int = 0,
    *args: Any,
    mask_function: Any = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """The padding mask as it is (ESA knows what is causal); without this function transformers would drop it.

    For anything but a causal mask (windows, packed sequences, images that see each other) it gives one of five axes,
    which attention refuses: some models make such masks and use them in no layer.
    """
    if mask_function is not None and mask_function is not causal_mask_function:
        return torch.empty(0, 0, 0, 0, 0)
    return attention_mask


class _NoBackward(torch.autograd.Function):
    """A gradient that leaves attention out would be wrong without a sound."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, *inputs: Tensor) -> Tensor:
        """Pass the output on."""
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Refuse."""
        raise UserError("ESA has no backward pass: it reads a trained model; remove it (handle.remove()) to train")
