"""How the attention of a transformers model is taken over and given back.

Three things are changed on one model object, never on a class: its rotary module gives no rotation (so that queries and
keys arrive as the projections made them), its decoder's attention implementation is ours, and the decoder shows every
call to us before it begins. :class:`Patch` does that and undoes it.

Nothing of a call is kept beside the call: a cache hands attention keys and values that say where they are from.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.compression.geometry import NoRotation, geometry
from esa_attention.integration.asked import by_name
from esa_attention.integration.interface import HANDLER, IMPLEMENTATION, register

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from esa_attention.attention.cache.passes import Handed

__all__ = ["Handler", "Patch"]


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
        handed: Handed | None,
    ) -> Tensor:
        """Attention of unrotated queries ``(B, H, T, D)`` over what is cached; returns ``(B, H, T, D)``."""
        ...

    @property
    def steps(self) -> Sequence[Any]:
        """Arguments of every layer's step while decoding steps are compiled whole; else empty."""
        ...

    def begin_step(self, kwargs: dict[str, Any]) -> None:
        """A decoder that is compiled whole begins a step."""
        ...

    def check_call(self, kwargs: dict[str, Any]) -> None:
        """Look at, and complete, the keyword arguments of the decoder's forward, before anything is changed."""
        ...

    def end_call(self, kwargs: dict[str, Any], failed: bool) -> None:
        """The decoder's forward has returned, or raised."""
        ...

    def begin_model(self, kwargs: dict[str, Any]) -> None:
        """A model around the decoder is called."""
        ...

    def end_model(self, kwargs: dict[str, Any], failed: bool) -> None:
        """It has returned, or raised."""
        ...


class Patch:
    """Takes over the attention of one model.

    Args:
        model: The model; it keeps its class and weights.
        handler: What computes instead.

    Raises:
        UserError: If the model is not supported or is taken over already.
    """

    def __init__(self, model: PreTrainedModel, handler: Handler) -> None:
        self.model, self.handler = model, handler
        self.geometry = geometry(model)
        base: Any = self.geometry.base
        if isinstance(base.rotary_emb, NoRotation):
            raise UserError("ESA is applied to this model already; call .remove() on the first handle")
        register()
        self.rotary = base.rotary_emb
        self.implementation = base.config._attn_implementation
        base.rotary_emb = NoRotation(self.rotary, self._table_dim())
        self._hooks = [
            base.register_forward_pre_hook(self._before_forward, with_kwargs=True, prepend=True),
            base.register_forward_hook(self._after_forward, with_kwargs=True, always_call=True),
        ]
        for module in self.geometry.attentions:
            setattr(module, HANDLER, handler)
        # Attributes of these objects, not of their classes: other models keep theirs.
        self._owners = _owners(model, base)
        for owner in self._owners:
            owner.__dict__["set_attn_implementation"] = functools.partial(self._set_implementation, owner)
            if owner is not base:
                self._hooks.append(owner.register_forward_pre_hook(self._before_model, with_kwargs=True))
                self._hooks.append(owner.register_forward_hook(self._after_model, with_kwargs=True, always_call=True))
        type(base).set_attn_implementation(base, IMPLEMENTATION)
        if base.config._attn_implementation != IMPLEMENTATION:
            self.remove()
            raise UserError(
                f"model={type(model).__name__} ({self.geometry.model_type}) is not supported: its attention cannot be "
                "exchanged (it does not go through AttentionInterface of transformers)"
            )

    def _table_dim(self) -> int:
        where = next(self.rotary.buffers()).device
        cos, _ = self.rotary(torch.zeros(1, 1, device=where), torch.zeros(1, 1, dtype=torch.long, device=where))
        return int(cos.shape[-1])

    @property
    def owners(self) -> list[Any]:
        """The models around the decoder, itself included, outermost first."""
        return self._owners

    # A compiler does not look into what these do, unless the step is one that is compiled whole.

    def _before_forward(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_compiling() and self.handler.steps:
            self.handler.begin_step(kwargs)
            return None
        return self._before_forward_as_it_is(module, args, kwargs)

    def _after_forward(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if not (torch.compiler.is_compiling() and self.handler.steps):
            self._after_forward_as_it_is(module, args, kwargs, output)

    def _before_model(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if not (torch.compiler.is_compiling() and self.handler.steps):
            self._before_model_as_it_is(module, args, kwargs)

    def _after_model(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if not (torch.compiler.is_compiling() and self.handler.steps):
            self._after_model_as_it_is(module, args, kwargs, output)

    @torch.compiler.disable
    def _before_forward_as_it_is(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        implementation = getattr(module.config, "_attn_implementation", None)
        if implementation != IMPLEMENTATION:
            raise UserError(
                f"the attention implementation was set to {implementation!r} while ESA is applied, and the model's "
                "rotary embedding is still ESA's; call handle.remove() first"
            )
        kwargs = by_name(module, args, dict(kwargs))
        self.handler.check_call(kwargs)
        return (), kwargs

    @torch.compiler.disable
    def _after_forward_as_it_is(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        self.handler.end_call(kwargs, failed=output is None)

    @torch.compiler.disable
    def _before_model_as_it_is(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.handler.begin_model(by_name(module, args, kwargs))

    @torch.compiler.disable
    def _after_model_as_it_is(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        self.handler.end_model(by_name(module, args, kwargs), failed=output is None)

    def _set_implementation(self, owner: Any, implementation: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of a model's ``set_attn_implementation``: another attention takes ESA off properly."""
        if implementation != IMPLEMENTATION:
            self.remove()
        return type(owner).set_attn_implementation(owner, implementation, *args, **kwargs)

    def remove(self) -> None:
        """Give the model back as it was; doing it twice is harmless."""
        base: Any = self.geometry.base
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for module in self.geometry.attentions:
            delattr(module, HANDLER)
        for owner in self._owners:
            owner.__dict__.pop("set_attn_implementation", None)
            owner.__dict__.pop("_prepare_cache_for_generation", None)
        base.rotary_emb = self.rotary
        type(base).set_attn_implementation(base, self.implementation)


def _owners(model: nn.Module, base: nn.Module) -> list[Any]:
    from transformers import PreTrainedModel

    return [m for m in model.modules() if isinstance(m, PreTrainedModel) and any(x is base for x in m.modules())]
