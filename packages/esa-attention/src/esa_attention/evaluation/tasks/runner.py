"""Reads contexts and answers questions with any causal language model of transformers, stock or under ESA.

The context is fed in blocks into a cache. The question then goes in as a block of its own: filler in the same block
would share ESA's selection, and its many exactly tied scores crowd out what the question asks for. Afterwards the cache
is cut back to the context: it is read once and asked many times.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from effkit.errors import UserError, choose
from effkit.progress import report_progress
from esa_attention.evaluation.tasks.sample import Sample
from esa_attention.integration.cache_argument import cache_argument

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

__all__ = ["Answer", "Result", "ask", "ask_block", "feed", "new_cache", "run_samples", "score", "step"]

QuestionMode = Literal["block", "tokens"]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model said.

    Attributes:
        ids: Its tokens.
        logits: ``(V,)`` float32 on the CPU, the logits from which the first token was chosen.
    """

    ids: list[int]
    logits: Tensor


@dataclass(frozen=True, eq=False)
class Result:
    """A sample with its answer and its score in 0..1."""

    sample: Sample
    answer: Answer
    score: float


def new_cache(model: PreTrainedModel) -> Cache:
    """The stock cache of transformers."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def step(model: PreTrainedModel, ids: Tensor, cache: Cache, logits_to_keep: int) -> Tensor:
    """One forward pass of ``(n,)`` ids; logits ``(logits_to_keep, V)``, or of all ``n`` positions for 0."""
    named: dict[str, Any] = {cache_argument(model): cache, "logits_to_keep": logits_to_keep, "use_cache": True}
    return model(ids[None].to(model.device), **named).logits[0]


@torch.no_grad()
def feed(model: PreTrainedModel, ids: Tensor, cache: Cache, block: int = 512) -> Tensor:
    """Read tokens into a cache, ``block`` at a time; only the last logits are ever computed.

    Args:
        model: A causal language model in evaluation mode.
        ids: ``(n,)``, at least one token.
        cache: Continued if it holds something already.
        block: Tokens of one forward pass. Under ESA best a multiple of its ``chunk_size``.

    Returns:
        ``(V,)`` logits after the last token, on the model's device.

    Raises:
        UserError: If there are no tokens or ``block`` is below 1.
    """
    if len(ids) == 0:
        raise UserError("ids must hold at least one token, got none")
    if block < 1:
        raise UserError(f"block must be at least 1, got {block}")
    for start in range(0, len(ids), block):
        stop = min(start + block, len(ids))
        logits = step(model, ids[start:stop], cache, logits_to_keep=1)
        report_progress(f"{stop:,} of {len(ids):,} tokens read", stop / len(ids))
    return logits[-1]


@torch.no_grad()
def ask(
    model: PreTrainedModel,
    cache: Cache,
    question_ids: Tensor,
    *,
    max_new_tokens: int = 1,
    question: QuestionMode = "block",
    allowed_ids: Tensor | None = None,
    stop_ids: Sequence[int] = (),
) -> Answer:
    """Put a question to a cache and decode the answer greedily; the cache comes back as it was.

    Args:
        model: A causal language model in evaluation mode.
        cache: Holds the context.
        question_ids: ``(n,)``, at least one token.
        max_new_tokens: Longest answer.
        question: ``block``: the question is one forward pass. ``tokens``: one pass a token, each with a selection of
            its own under ESA.
        allowed_ids: If given, only these ids may be chosen.
        stop_ids: Ids that end the answer; they are not part of it.

    Raises:
        UserError: If an argument is out of range.
    """
    choose("question", question, ("block", "tokens"))
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    logits = feed(model, question_ids, cache, block=len(question_ids) if question == "block" else 1)
    added = len(question_ids)
    first = logits.float().cpu()
    ids: list[int] = []
    while True:
        chosen = _greedy(logits, allowed_ids)
        if chosen in stop_ids:
            break
        ids.append(chosen)
        if len(ids) == max_new_tokens:
            break
        logits = step(model, torch.tensor([chosen]), cache, logits_to_keep=1)[-1]
        added += 1
    cache.crop(-added)
    return Answer(ids, first)


def _greedy(logits: Tensor, allowed_ids: Tensor | None) -> int:
    if allowed_ids is None:
        return int(logits.argmax())
    allowed = allowed_ids.to(logits.device)
    return int(allowed[logits[allowed].argmax()])


@torch.no_grad()
def ask_block(model: PreTrainedModel, cache: Cache, question_ids: Tensor) -> Tensor:
    """Feed questions of one token each as one block; the cache comes back as it was.

    Args:
        model: A causal language model in evaluation mode.
        cache: Holds the context.
        question_ids: ``(n,)``, see :func:`~esa_attention.evaluation.tasks.multi_needle.one_block`.

    Returns:
        ``(n,)`` the likeliest next token at every position, on the CPU.
    """
    logits = step(model, question_ids, cache, logits_to_keep=0)
    cache.crop(-len(question_ids))
    return logits.argmax(-1).cpu()


def score(sample: Sample, answer: Answer, decode: Callable[[Sequence[int]], str] | None = None) -> float:
    """How right an answer is.

    Under ``exact`` it is 1 if the answer begins with an acceptable one; as text, if it contains the right one. Under
    ``set`` it is the share of the right things named: as text, those that occur in the answer; as single tokens, those
    among as many largest logits as there are right things, since they are all equally good next tokens.

    Args:
        sample: The question.
        answer: The answer.
        decode: Ids to text; used where the sample has its answers as text.

    Returns:
        0 to 1.
    """
    if sample.answer_texts and decode is not None:
        said = decode(answer.ids)
        # Whole words: 1234567 does not contain the answer 123456.
        named = [re.search(rf"\b{re.escape(text)}\b", said) is not None for text in sample.answer_texts]
        return float(any(named)) if sample.scoring == "exact" else sum(named) / len(named)
    if sample.scoring == "exact":
        return float(any(answer.ids[: len(right)] == right for right in sample.answers))
    if any(len(right) != 1 for right in sample.answers):
        raise UserError("scoring='set' needs answers of one token, or text and a decode function")
    largest = set(answer.logits.topk(len(sample.answers)).indices.tolist())
    return sum(right[0] in largest for right in sample.answers) / len(sample.answers)


def run_samples(
    model: PreTrainedModel,
    samples: Sequence[Sample],
    *,
    make_cache: Callable[[], Cache] | None = None,
    decode: Callable[[Sequence[int]], str] | None = None,
    block: int = 512,
    question: QuestionMode = "block",
    restore: Literal["crop", "copy"] = "crop",
    stop_ids: Sequence[int] = (),
) -> Iterator[Result]:
    """Answer and score samples one after the other; a context shared by neighbours is read once.

    Args:
        model: A causal language model in evaluation mode.
        samples: From any of the tasks.
        make_cache: Makes an empty cache, e.g. ``handle.new_cache`` under ESA; the stock cache if not given.
        decode: The vocabulary's ``decode``.
        block: Tokens of one forward pass while reading.
        question: ``block`` or ``tokens``, see :func:`ask`.
        restore: ``crop``: the cache is cut back after a question. ``copy``: every question gets a copy of the cache,
            for caches that cannot be cut.
        stop_ids: Ids that end an answer.

    Yields:
        A result for every sample, in order.
    """
    choose("restore", restore, ("crop", "copy"))
    context: Tensor | None = None
    cache: Cache | None = None
    for sample in samples:
        if cache is None or sample.context_ids is not context:
            context, cache = sample.context_ids, (make_cache() if make_cache else new_cache(model))
            feed(model, context, cache, block)
        answer = ask(
            model,
            copy.deepcopy(cache) if restore == "copy" else cache,
            sample.question_ids,
            max_new_tokens=sample.max_new_tokens,
            question=question,
            allowed_ids=sample.allowed_ids,
            stop_ids=stop_ids,
        )
        yield Result(sample, answer, score(sample, answer, decode))
