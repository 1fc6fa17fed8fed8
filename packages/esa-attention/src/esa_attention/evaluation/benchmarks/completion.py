"""A prompt as tokens, cut in the middle where it is too long, and the likeliest answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from effkit.errors import UserError, choose
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.record import Question
from esa_attention.evaluation.tasks.runner import QuestionMode, feed, step

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

__all__ = ["Request", "complete", "make_request"]


@dataclass(frozen=True)
class Request:
    """What is asked of a model, in tokens.

    Args:
        ids: The prompt.
        tail: So many tokens at its end are the question.
        max_new_tokens: Longest answer.
        min_new_tokens: No end before so many.
        stop_ids: Tokens that end the answer; no part of it.
        cut: Tokens that were left out in the middle.
    """

    ids: list[int]
    tail: int
    max_new_tokens: int
    min_new_tokens: int
    stop_ids: tuple[int, ...]
    cut: int = 0


def make_request(
    question: Question,
    codec: Codec,
    *,
    max_prompt_tokens: int | None = None,
    max_new_tokens: int | None = None,
    chat_template: bool = False,
) -> Request:
    """Encode a question.

    A prompt that is too long loses its middle: as LongBench and InfiniteBench publish it, half of what is allowed is
    kept at either end, put together as text, and encoded again. A chat template goes around what is left.

    Args:
        question: What is asked.
        codec: The model's tokens.
        max_prompt_tokens: Most tokens of the prompt, before the chat template; all if not given.
        max_new_tokens: Longest answer; the benchmark's if not given.
        chat_template: Use the tokenizer's chat template where the benchmark does.

    Raises:
        UserError: If a number is out of range, there is no template, or a token is not the model's.
    """
    for name, value, least in (("max_prompt_tokens", max_prompt_tokens, 2), ("max_new_tokens", max_new_tokens, 1)):
        if value is not None and value < least:
            raise UserError(f"{name}={value} must be at least {least}")
    text, cut = question.prompt, 0
    ids = codec.encode(text)
    if max_prompt_tokens is not None and len(ids) > max_prompt_tokens:
        half = max_prompt_tokens // 2
        text, cut = codec.decode(ids[:half]) + codec.decode(ids[-half:]), len(ids) - 2 * half
        ids = codec.encode(text)
    tail = question.tail
    if chat_template and question.chat:
        text = codec.in_chat(text)
        ids = codec.encode(text, begin=False)  # the template has the begin token
        place = text.rfind(tail.strip()) if tail.strip() else -1
        tail = text[place:] if place >= 0 else ""
    stops = (*codec.stop_ids, codec.line_end()) if question.stop_at_line_end else codec.stop_ids
    return Request(
        ids=ids,
        # Where the question begins is only where one forward pass ends: its own spelling in tokens is near enough.
        tail=min(len(ids), max(1, len(codec.encode(tail, begin=False)))),
        max_new_tokens=question.max_new_tokens if max_new_tokens is None else max_new_tokens,
        min_new_tokens=question.min_new_tokens,
        stop_ids=tuple(stops),
        cut=cut,
    )


@torch.inference_mode()
def complete(
    model: PreTrainedModel, request: Request, cache: Cache, *, block: int = 512, question: QuestionMode = "block"
) -> list[int]:
    """The likeliest tokens, one after the other.

    Args:
        model: A causal language model in evaluation mode.
        request: The prompt and how long the answer may be.
        cache: Empty.
        block: Tokens of one forward pass while the context is read.
        question: ``block``: the question is one pass of its own; ``tokens``: one a token.

    Raises:
        UserError: If an argument is out of range.
    """
    choose("question", question, ("block", "tokens"))
    ids = torch.tensor(request.ids)
    context, asked = ids[: -request.tail], ids[-request.tail :]
    if len(context):
        feed(model, context, cache, block)
    logits = feed(model, asked, cache, len(asked) if question == "block" else 1)
    answer: list[int] = []
    while True:
        if len(answer) < request.min_new_tokens:
            logits = logits.clone()
            logits[_there(request.stop_ids, len(logits))] = -torch.inf
        chosen = int(logits.argmax())
        if chosen in request.stop_ids:
            return answer
        answer.append(chosen)
        if len(answer) == request.max_new_tokens:
            return answer
        logits = step(model, torch.tensor([chosen]), cache, logits_to_keep=1)[-1]


def _there(ids: Sequence[int], size: int) -> list[int]:
    """Ids that have a logit."""
    return [i for i in ids if 0 <= i < size]
