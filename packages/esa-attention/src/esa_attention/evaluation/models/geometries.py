"""Configurations of models by name, without weights: what ``inspect`` and benchmarks need."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from effkit.errors import UserError, choose
from esa_attention.integration.model_shape import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["CONFIGS", "PUBLISHED", "TINY_FAMILIES", "config_for", "published_shape"]

# The published configurations, as far as they matter for attention and size.
PUBLISHED: dict[str, tuple[str, dict[str, Any], float]] = {
    "llama3_8b": (
        "Llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "bos_token_id": 128000,
            "eos_token_id": 128001,
        },
        5e5,
    ),
    "mistral_7b": (  # Instruct-v0.2: the first Mistral without a sliding window
        "Mistral",
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "sliding_window": None,
        },
        1e6,
    ),
    "qwen3_8b": (
        "Qwen3",
        {
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
        },
        1e6,
    ),
}
_TINY: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
}
TINY_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"use_sliding_window": False}),
    "qwen3": ("Qwen3", {}),
}


CONFIGS = (*PUBLISHED, "tiny_random", "constructed_induction", "byte_lm")


def published_shape(name: str) -> ModelShape:
    """The sizes of a published model, read off the numbers above: transformers takes seconds to import.

    Raises:
        UserError: If it is none of them.
    """
    return ModelShape.from_config(SimpleNamespace(**PUBLISHED[choose("model", name, list(PUBLISHED))][1]))


def config_for(name: str, *, family: str = "llama", **overrides: Any) -> PreTrainedConfig:
    """The transformers configuration of a named model, without any download or weights.

    Args:
        name: ``llama3_8b``, ``mistral_7b`` (v0.2), ``qwen3_8b``, ``tiny_random``, ``constructed_induction`` or
            ``byte_lm``.
        family: Of ``tiny_random``: ``llama``, ``mistral``, ``qwen2`` or ``qwen3``.
        **overrides: Fields of the configuration to change, e.g. ``num_hidden_layers=2``.

    Returns:
        The configuration.

    Raises:
        UserError: If a name is unknown, or the configuration stands in a file (``stories260k``).
    """
    if name == "stories260k":
        raise UserError("model='stories260k' has its configuration in stories260K.bin; use build_model with path=")
    if name == "causal_lm":
        raise UserError("model='causal_lm' has its configuration in its folder: give model.path=FOLDER")
    choose("model", name, CONFIGS)
    if name == "constructed_induction":
        from esa_attention.evaluation.models.constructed import constructed_config

        config: PreTrainedConfig = constructed_config()
    elif name == "byte_lm":
        from esa_attention.evaluation.models.byte_lm import byte_lm_config

        config = byte_lm_config()
    elif name == "tiny_random":
        choose("family", family, list(TINY_FAMILIES))
        kind, own = TINY_FAMILIES[family]
        return _config(kind, {**_TINY, **own, **overrides}, 1e4)
    else:
        kind, fields, theta = PUBLISHED[name]
        return _config(kind, {**fields, **overrides}, theta)
    return type(config)(**{**config.to_dict(), **overrides})


def _config(kind: str, fields: dict[str, Any], theta: float) -> PreTrainedConfig:
    import transformers

    rope = {"rope_type": "default", "rope_theta": theta}
    return getattr(transformers, f"{kind}Config")(**{"rope_parameters": rope, "tie_word_embeddings": False, **fields})
