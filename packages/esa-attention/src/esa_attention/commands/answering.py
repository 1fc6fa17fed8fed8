"""Answering what is left of a data set with one method, here or on workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from effkit.executors import Choice, Task
from effkit.executors import run as run_tasks
from effkit.progress import part
from esa_attention.commands.answers import AnswerFile
from esa_attention.commands.way import Way
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.completion import complete, make_request
from esa_attention.evaluation.benchmarks.record import Question, Record
from esa_attention.evaluation.tasks.runner import new_cache
from esa_attention.integration.apply import apply_esa

__all__ = ["STOCK", "Asking", "answer_pending"]

STOCK = "stock"  # the model as it is
_STOCK_BLOCK = 512


@dataclass(frozen=True)
class Asking:
    """How questions are put, the same for all methods.

    Args:
        question: ``block`` or ``tokens``: how what stands behind the context is read.
        max_prompt_tokens: Most tokens of a prompt; a longer one loses its middle.
        max_new_tokens: Longest answer; the benchmark's if ``None``.
        chat_template: Put prompts into the tokenizer's chat template, where the benchmark does.
    """

    question: Any
    max_prompt_tokens: int | None
    max_new_tokens: int | None
    chat_template: bool


def answer_pending(
    way: Way, method: str, records: Sequence[Record], file: AnswerFile, asking: Asking, choice: Choice
) -> None:
    """Answer the records that have none yet, and keep each answer when it is there.

    Args:
        way: The model and how it reads.
        method: Name of the method.
        records: The data set.
        file: Its answers.
        asking: How questions are put.
        choice: Where; answers do not depend on it.

    Raises:
        UserError: If a record cannot be asked.
    """
    numbers = file.pending()
    if not numbers:
        return
    names = [f"{method}, {records[n].dataset} {n + 1} of {len(records)}" for n in numbers]
    if choice.executor == "serial":
        with _opened(way, method) as make_cache:
            for done, (number, name) in enumerate(zip(numbers, names, strict=True)):
                with part(name, done / len(numbers), (done + 1) / len(numbers)):
                    answer = _answer(way, method, make_cache, records[number].question, asking)
                file.add(records[number], **answer)
        return
    content = way.packed()
    tasks = [Task(name, content, method, records[n].question, asking) for n, name in zip(numbers, names, strict=True)]
    with choice.open(tasks=len(tasks)) as pool:
        results = run_tasks(pool, _in_worker, tasks, window=4 * pool.workers)
        for number, answer in zip(numbers, results, strict=True):
            file.add(records[number], **answer)


@contextlib.contextmanager
def _opened(way: Way, method: str) -> Iterator[Callable[[], Any]]:
    """What makes empty caches, with the method in force."""
    model = way.subject.model
    if method == STOCK:
        yield lambda: new_cache(model)
        return
    with apply_esa(model, way.config, way.maps, strict=way.strict) as handle:
        yield handle.new_cache


def _answer(way: Way, method: str, make_cache: Callable[[], Any], question: Question, asking: Asking) -> dict[str, Any]:
    subject = way.subject
    codec = Codec(subject.model, subject.tokenizer)
    request = make_request(
        question,
        codec,
        max_prompt_tokens=asking.max_prompt_tokens,
        max_new_tokens=asking.max_new_tokens,
        chat_template=asking.chat_template,
    )
    block = _STOCK_BLOCK if method == STOCK else way.block
    start = time.perf_counter()
    ids = complete(subject.model, request, make_cache(), block=block, question=asking.question)
    seconds = round(time.perf_counter() - start, 3)
    counts = {"prompt_tokens": len(request.ids), "left_out": request.cut, "new_tokens": len(ids), "seconds": seconds}
    return {"said": codec.decode(ids), **counts}


def _in_worker(content: bytes, method: str, question: Question, asking: Asking) -> dict[str, Any]:
    way = Way.unpacked(content)
    with _opened(way, method) as make_cache:
        return _answer(way, method, make_cache, question, asking)
