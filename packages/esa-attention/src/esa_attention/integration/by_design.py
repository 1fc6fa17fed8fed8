"""What differs from plain greedy decoding because of what the method is, and is said once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from effkit.notes import say_once
from esa_attention.config import ESAConfig

__all__ = ["say_by_design"]


def say_by_design(config: ESAConfig, generation: Any, mode: Any, length: int, mask: Tensor | None) -> None:
    """Say it where a call of ``generate`` reads tokens in other parts than plain decoding does.

    Tokens that are read together share their segments and their choice, as the paper has it; so what a token sees
    depends on what it is read with, once there is more than the local part.

    Args:
        config: Sizes and options in force.
        generation: The generation config of the call.
        mode: How tokens are generated, as transformers names it.
        length: Most tokens there will be.
        mask: Padding mask of the prompt.
    """
    if config.step_size == 1 or config.method == "full" or length <= config.num_local:
        return
    what = ""
    chunk = getattr(generation, "prefill_chunk_size", None)
    if "assisted" in str(getattr(mode, "value", mode)):
        what = "assisted decoding checks several tokens at once"
    elif chunk and (chunk % config.step_size or (mask is not None and not bool(mask.all()))):
        what = f"prefill_chunk_size={chunk} cuts the prompt at other tokens than chunk_size={config.chunk_size}"
    if what:
        say_once(
            f"ESA with selection={config.selection!r}: {what}, so the text may differ from plain greedy decoding by "
            "design, since tokens of a chunk choose together; selection='strict_causal' gives equal text",
            "esa_attention",
        )
