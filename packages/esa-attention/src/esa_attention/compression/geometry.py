"""What must be true of a transformers model, and the sizes ESA needs of it: the model that maps are made for."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ModelGeometry", "NoRotation", "geometry"]


# Models of several parts whose language model gets plain embeddings, positions and masks, as tests compare.
WITH_PARTS = ("llava",)


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
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if any("mrope" in str(word) for word in (*rope, *rope.values())):
        refuse("its positions have several axes (mrope, for images), and ESA counts tokens")
    if getattr(config, "kv_sharing_modes", None) or getattr(config, "num_kv_shared_layers", None):
        refuse("its layers share keys and values")


def _refuse_parts(model: nn.Module, base: nn.Module) -> None:
    """Other models beside the decoder (a vision tower) may change masks and positions; those tried do not."""
    from transformers import PreTrainedModel

    inside = set(map(id, base.modules()))
    parts = [
        type(m).__name__
        for m in model.modules()
        if isinstance(m, PreTrainedModel) and id(m) not in inside and not any(x is base for x in m.modules())
    ]
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if parts and kind not in WITH_PARTS:
        raise UserError(
            f"model={type(model).__name__} ({kind}) is not supported: it has {parts[0]} beside its language model, and "
            f"ESA knows this of {', '.join(WITH_PARTS)} only; give the language model alone to use it without"
        )


def geometry(model: PreTrainedModel | nn.Module) -> ModelGeometry:
    """Look a model over.

    Args:
        model: A transformers causal language model, or its decoder.

    Raises:
        UserError: If ESA cannot be applied to it; says why.
    """
    base = _decoder(model)
    _refuse_parts(model, base)
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
