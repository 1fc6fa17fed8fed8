"""A causal language model whose weights are about to be overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    M = TypeVar("M", bound=PreTrainedModel)

__all__ = ["blank_model", "placed"]


def blank_model(model_class: type[M], config: PreTrainedConfig, *, seed: int = 0) -> M:
    """Build ``model_class(config)`` in evaluation mode and leave the caller's random numbers alone.

    transformers draws initial weights from torch's global generator; whoever seeded it expects to find it as it was.

    Args:
        model_class: A transformers model class.
        config: Its configuration.
        seed: Of the initial weights, for callers that keep them.

    Returns:
        The model on the CPU in float32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()


def placed(model: M, device: torch.device | str, dtype: torch.dtype) -> M:
    """Move a model; in one place because the type hints of transformers lose ``to``."""
    mover: Any = model
    return mover.to(device=device, dtype=dtype)
