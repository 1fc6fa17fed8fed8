"""Text written by a model itself: in-distribution data of any length where no corpus may be shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.progress import report_progress
from esa_attention.evaluation.models.llama2c_tokenizer import Llama2cTokenizer
from esa_attention.integration.cache_argument import cache_argument

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["sample_stories"]

_STORIES_AT_ONCE = 64


@torch.inference_mode()
def sample_stories(
    model: PreTrainedModel,
    tokenizer: Llama2cTokenizer,
    num_tokens: int,
    seed: int = 0,
    temperature: float = 1.0,
) -> Tensor:
    """Let the model write stories until they fill ``num_tokens``.

    Every story starts from the begin token and ends where the model says so (with the begin token of the next story, as
    this model family is trained, or an end token), at the latest at the model's context. The stories are joined in the
    order in which they were begun. None of their begin or end tokens is kept, except one begin token at the very front:
    a begin token inside would tell the model to forget what came before, which is what long-context runs measure.

    Sampling runs on the model's own device with its stock attention; a patched model must be restored first.

    Args:
        model: A causal language model; at its own context, never beyond.
        tokenizer: Names the begin and end tokens.
        num_tokens: How many ids to return, at least 1.
        seed: The same seed gives the same ids on the same machine, and a longer request begins with the shorter one.
        temperature: Above 0; 1 is the model's own distribution.

    Returns:
        ``(num_tokens,)`` ids, int64, on the CPU; the first is the begin token.

    Raises:
        UserError: If ``num_tokens`` or ``temperature`` is out of range.
    """
    if num_tokens < 1:
        raise UserError(f"num_tokens must be at least 1, got {num_tokens}")
    if not temperature > 0:
        raise UserError(f"temperature must be above 0, got {temperature}")
    generator = torch.Generator().manual_seed(seed)
    begin, stop = tokenizer.bos_id, torch.tensor([tokenizer.bos_id, tokenizer.eos_id])
    parts = [torch.tensor([begin])]
    have = 1
    while have < num_tokens:
        for story in _sample_batch(model, begin, stop, generator, temperature):
            parts.append(story)
            have += len(story)
        report_progress(f"{min(have, num_tokens):,} of {num_tokens:,} tokens written", min(1.0, have / num_tokens))
    return torch.cat(parts)[:num_tokens]


def _sample_batch(
    model: PreTrainedModel, begin: int, stop: Tensor, generator: torch.Generator, temperature: float
) -> list[Tensor]:
    """Write ``_STORIES_AT_ONCE`` stories side by side; finished ones leave the batch."""
    from transformers import DynamicCache

    context = model.config.max_position_embeddings
    # All random numbers up front: which stories have already ended must not change the others.
    uniform = torch.rand(_STORIES_AT_ONCE, context, generator=generator, dtype=torch.float64)
    written = torch.zeros(_STORIES_AT_ONCE, context, dtype=torch.long)
    lengths = torch.full((_STORIES_AT_ONCE,), context - 1)
    rows = torch.arange(_STORIES_AT_ONCE)
    ids = torch.full((_STORIES_AT_ONCE, 1), begin)
    cache = DynamicCache(config=model.config)
    for step in range(context - 1):
        logits = model(ids.to(model.device), **{cache_argument(model): cache}).logits[:, -1]
        probabilities = (logits.double().cpu() / temperature).softmax(-1)
        # Inverse of the distribution function; the sum may end a rounding error below one.
        new = torch.searchsorted(probabilities.cumsum(-1), uniform[rows, step, None]).clamp_(max=logits.shape[-1] - 1)
        ended = torch.isin(new[:, 0], stop)
        lengths[rows[ended]] = step
        going = (~ended).nonzero()[:, 0]
        if len(going) == 0:
            break
        if len(going) < len(rows):
            cache.batch_select_indices(going.to(model.device))
        rows, ids = rows[going], new[going]
        written[rows, step] = ids[:, 0]
    return [written[row, : lengths[row]] for row in range(_STORIES_AT_ONCE)]
