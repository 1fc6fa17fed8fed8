"""How the attention of a transformers model is taken over and given back.

Three things are changed on one model object, never on a class: its rotary module gives no rotation (so that queries and
keys arrive as the projections made them), its attention implementation is ours, and each attention module says before
it runs which cache it will use. :class:`Patch` does that and undoes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.compression.geometry import NoRotation, geometry
from esa_attention.integration.cache_argument import CACHE_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Handler", "Patch"]

IMPLEMENTATION = "esa"


class Handler(Protocol):
    """Computes attention in place of the model."""

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
        """Attention of unrotated queries ``(B, H, T, D)`` over what is cached; returns ``(B, H, T, D)``."""
        ...

    def check_call(self, kwargs: dict[str, Any]) -> None:
        """Look at, and complete, the keyword arguments of the decoder's forward."""
        ...


# Where an attention module keeps the patch that computes for it. An attribute and no global table: it goes with the
# model.
_PATCH = "_esa_patch"


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function registered with transformers under the name ``esa``."""
    patch: Patch | None = getattr(module, _PATCH, None)
    if patch is None:
        raise UserError(
            "attention implementation 'esa' is set on a model that ESA was not applied to; call apply_esa(model)"
        )
    if dropout:
        raise UserError(f"attention dropout is {dropout} in training mode, which ESA does not have; call model.eval()")
    if kwargs.get("output_attentions"):
        raise UserError("output_attentions=True cannot be had with ESA: no matrix of attention weights exists")
    if kwargs.get("sliding_window") is not None:
        raise UserError(f"a sliding window of {kwargs['sliding_window']} tokens cannot be combined with ESA")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = patch.handler.attend(module, query, key, value, attention_mask, scaling, patch.caches.pop(id(module), None))
    if torch.is_grad_enabled() and query.requires_grad:
        out = _NoBackward.apply(out, query, key, value)
    return out.transpose(1, 2), None


def _mask(
    batch_size: int = 0,
    q_length: int = 0,
    kv_length: int = 0,
    *args: Any,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """The padding mask as it is (ESA knows what is causal); without this function transformers would drop it."""
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


class Patch:
    """Takes over the attention of one model.

    Args:
        model: The model; it keeps its class and weights.
        handler: What computes instead.

    Raises:
        UserError: If the model is not supported or is taken over already.
    """

    def __init__(self, model: PreTrainedModel, handler: Handler) -> None:
        from transformers import AttentionInterface, AttentionMaskInterface

        self.model, self.handler = model, handler
        self.geometry = geometry(model)
        base: Any = self.geometry.base
        if isinstance(base.rotary_emb, NoRotation):
            raise UserError("ESA is applied to this model already; call .remove() on the first handle")
        AttentionInterface.register(IMPLEMENTATION, _attention)
        AttentionMaskInterface.register(IMPLEMENTATION, _mask)
        self.caches: dict[int, Any] = {}
        self.rotary = base.rotary_emb
        self._implementation = base.config._attn_implementation
        base.rotary_emb = NoRotation(self.rotary, self._table_dim())
        self._hooks = [base.register_forward_pre_hook(self._before_forward, with_kwargs=True, prepend=True)]
        for module in self.geometry.attentions:
            setattr(module, _PATCH, self)
            self._hooks.append(module.register_forward_pre_hook(self._before_attention, with_kwargs=True))
        model.set_attn_implementation(IMPLEMENTATION)

    def _table_dim(self) -> int:
        where = next(self.rotary.buffers()).device
        cos, _ = self.rotary(torch.zeros(1, 1, device=where), torch.zeros(1, 1, dtype=torch.long, device=where))
        return int(cos.shape[-1])

    def _before_forward(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        self.handler.check_call(kwargs)
        return args, kwargs

    def _before_attention(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.caches[id(module)] = next((kwargs[n] for n in CACHE_NAMES if kwargs.get(n) is not None), None)

    def remove(self) -> None:
        """Give the model back as it was; doing it twice is harmless."""
        base: Any = self.geometry.base
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for module in self.geometry.attentions:
            delattr(module, _PATCH)
        base.rotary_emb = self.rotary
        self.model.set_attn_implementation(self._implementation)
