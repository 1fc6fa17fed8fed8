"""Where ESA meets a transformers model: what must be true of it, and how attention is taken over and given back.

Three things are changed on one model object, never on a class: its rotary module gives no rotation (so that queries and
keys arrive as the projections made them), its attention implementation is ours, and each attention module says before
it runs which cache it will use. :class:`Patch` does that and undoes it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from effkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Handler", "ModelGeometry", "NoRotation", "Patch", "cache_argument", "geometry", "observe"]

IMPLEMENTATION = "esa"
CACHE_NAMES = ("cache", "past_key_values")  # the first since transformers 5.24


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


@dataclass(frozen=True)
class ModelGeometry:
    """What ESA needs to know of a model.

    Attributes:
        base: The decoder that owns the rotary module.
        attentions: Its attention modules in order.
        model_type: As transformers calls it.
        num_heads: Query heads (H).
        num_kv_heads: Key-value heads (K).
        head_dim: Dimension of a head (D).
        rotary_dim: Rotated dimensions of a head.
        trained_context: Longest sequence the model was trained on.
    """

    base: nn.Module = field(repr=False)
    attentions: list[nn.Module] = field(repr=False)
    model_type: str
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int
    trained_context: int

    @property
    def num_layers(self) -> int:
        """Attention layers."""
        return len(self.attentions)

    @property
    def group(self) -> int:
        """Query heads that share a key-value head (G)."""
        return self.num_heads // self.num_kv_heads

    @property
    def key_dim(self) -> int:
        """Length of a token's keys over all heads (d_G)."""
        return self.num_kv_heads * self.head_dim


def _decoder(model: nn.Module) -> nn.Module:
    """The module that calls the rotary embedding."""
    found = [
        m for m in model.modules() if isinstance(getattr(m, "rotary_emb", None), nn.Module) and hasattr(m, "layers")
    ]
    name = type(model).__name__
    if not found:
        raise UserError(
            f"model={name} has no rotary embedding that its decoder calls (rotary_emb beside layers); "
            "ESA needs a model with RoPE, e.g. Llama, Mistral, Qwen2, Qwen3"
        )
    if len(found) > 1:
        raise UserError(
            f"model={name} has {len(found)} decoders with a rotary embedding; give the language model alone"
        )
    return found[0]


def _refuse_unsupported(config: Any, base: Any, attentions: list[nn.Module], name: str) -> None:
    """Name what ESA cannot do, instead of computing something else."""

    def refuse(why: str) -> None:
        raise UserError(f"model={name} ({config.model_type}) is not supported: {why}")

    if config.model_type.startswith("gemma3") or len(inspect.signature(base.rotary_emb.forward).parameters) != 2:
        refuse("its rotary embedding differs by layer type (as in Gemma-3)")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    if kinds:
        refuse(f"it has layers of type {', '.join(sorted(kinds))}, and ESA needs full attention in all")
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        refuse(
            f"its attention has a sliding window of {window} tokens (load it with sliding_window=None if it was "
            "trained without)"
        )
    if getattr(config, "attn_logit_softcapping", None) is not None:
        refuse("its attention scores are capped (attn_logit_softcapping)")
    if any(hasattr(m, "sinks") for m in attentions):
        refuse("its attention has learned sinks")
    if getattr(config, "kv_lora_rank", None) is not None:
        refuse("its keys are latent (multi-head latent attention)")
    if 0 in (getattr(config, "no_rope_layers", None) or [1]):
        refuse("some of its layers have no RoPE")
    if getattr(config, "is_encoder_decoder", False):
        refuse("it is an encoder-decoder")
    if getattr(config, "attention_chunk_size", None) is not None:
        refuse("its attention is chunked")
    if getattr(config, "kv_sharing_modes", None) or getattr(config, "num_kv_shared_layers", None):
        refuse("its layers share keys and values")


def geometry(model: PreTrainedModel | nn.Module) -> ModelGeometry:
    """Look a model over.

    Args:
        model: A transformers causal language model, or its decoder.

    Raises:
        UserError: If ESA cannot be applied to it; says why.
    """
    base = _decoder(model)
    config: Any = base.config
    name = type(model).__name__
    attentions = [m for m in base.modules() if hasattr(m, "layer_idx") and hasattr(m, "num_key_value_groups")]
    attentions.sort(key=lambda m: int(m.layer_idx))  # type: ignore[arg-type]
    _refuse_unsupported(config, base, attentions, name)
    if [m.layer_idx for m in attentions] != list(range(config.num_hidden_layers)):
        raise UserError(
            f"model={name} ({config.model_type}) is not supported: found {len(attentions)} attention modules with "
            f"grouped keys in {config.num_hidden_layers} layers"
        )
    rotary: Any = base.rotary_emb
    if isinstance(rotary, NoRotation):
        rotary = rotary.original
    head_dim = int(getattr(attentions[0], "head_dim", config.hidden_size // config.num_attention_heads))
    inv_freq = getattr(rotary, "inv_freq", None)
    if not isinstance(inv_freq, Tensor):
        raise UserError(f"model={name} ({config.model_type}) is not supported: its rotary embedding has no inv_freq")
    return ModelGeometry(
        base=base,
        attentions=attentions,
        model_type=config.model_type,
        num_heads=int(config.num_attention_heads),
        num_kv_heads=int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads),
        head_dim=head_dim,
        rotary_dim=2 * inv_freq.shape[-1],
        trained_context=_trained_context(config),
    )


def _trained_context(config: Any) -> int:
    """The longest position the weights have seen; a scaled RoPE keeps it under another name."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original = rope.get("original_max_position_embeddings") if isinstance(rope, dict) else None
    longest = int(config.max_position_embeddings)
    # llama3 scaling was trained on; YaRN, dynamic and longrope stretch a shorter one.
    if original is not None and rope.get("rope_type") in ("yarn", "dynamic", "longrope", "linear"):
        return int(original)
    return longest


def cache_argument(model: nn.Module) -> str:
    """Name of the argument of a model's forward that takes the cache: it changed in transformers 5.24.

    Args:
        model: A causal language model or its decoder.

    Returns:
        ``"cache"`` or ``"past_key_values"``.
    """
    names = inspect.signature(type(model).forward).parameters
    for name in CACHE_NAMES:
        if name in names:
            return name
    raise UserError(f"model={type(model).__name__} takes no cache in its forward")


class NoRotation(nn.Module):
    """Stands in for a rotary module: cosines 1, sines 0, so that queries and keys pass unrotated.

    Args:
        original: The module it stands in for.
        rotary_dim: Last dimension of what the original returns.
    """

    def __init__(self, original: nn.Module, rotary_dim: int) -> None:
        super().__init__()
        self._original = (original,)  # in a tuple: no submodule, or state dicts and .to() would find it twice
        self.rotary_dim = rotary_dim

    @property
    def original(self) -> nn.Module:
        """The module it stands in for."""
        return self._original[0]

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Ones and zeros ``(B, T, rotary_dim)`` in the type of ``x``."""
        shape = (*position_ids.shape[-2:], self.rotary_dim)
        return torch.ones(shape, dtype=x.dtype, device=x.device), torch.zeros(shape, dtype=x.dtype, device=x.device)


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


class _Observer:
    """Stock attention at true positions that shows its unrotated queries and keys."""

    def __init__(self, callback: Callable[[int, Tensor, Tensor], None]) -> None:
        self.callback = callback
        self.rotary: Any = None

    def check_call(self, kwargs: dict[str, Any]) -> None:
        """No cache: a kept one would hold unrotated keys."""
        kwargs["use_cache"] = False
        if any(kwargs.get(name) is not None for name in CACHE_NAMES):
            raise UserError("queries and keys are observed without a cache; leave it out")

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
        """Show, rotate, attend."""
        if mask is not None and not bool(mask.all()):
            raise UserError(
                "queries and keys are observed on sequences without padding, got an attention mask with zeros"
            )
        self.callback(int(module.layer_idx), query.detach(), key.detach())  # type: ignore[arg-type]
        query, key = self.rotary.rotate(query, 0), self.rotary.rotate(key, 0)
        return nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=query.shape[2] > 1, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )


@contextlib.contextmanager
def observe(model: PreTrainedModel, callback: Callable[[int, Tensor, Tensor], None]) -> Iterator[ModelGeometry]:
    """Let the model run as ever, and see the queries and keys of every layer before they are rotated.

    Args:
        model: The model.
        callback: Gets layer index, queries ``(B, H, T, D)`` and keys ``(B, K, T, D)`` of every forward pass; calls
            inside the block must start at position 0 and have no padding.

    Yields:
        The model's geometry.

    Raises:
        UserError: If the model is not supported or taken over already.
    """
    from esa_attention.attention.rope import RopeTables

    observer = _Observer(callback)
    patch = Patch(model, observer)
    try:
        observer.rotary = RopeTables(patch.rotary, next(patch.rotary.buffers()).device)
        yield patch.geometry
    finally:
        patch.remove()
