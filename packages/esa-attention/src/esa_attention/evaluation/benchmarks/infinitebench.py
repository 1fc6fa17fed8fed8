"""InfiniteBench (Zhang et al. 2024): 12 data sets of 100k tokens and more, ``NAME.jsonl``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from esa_attention.evaluation.benchmarks.benchmark import Benchmark, Means, choose_datasets, templates_of
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.metrics.infinitebench import (
    choice_named,
    first_number,
    function_named,
    last_whole_number,
    leading_share,
    number_named,
    speaker_named,
    value_found,
)
from esa_attention.evaluation.benchmarks.metrics.rouge import rouge_lsum
from esa_attention.evaluation.benchmarks.metrics.words import characters_f1, word_f1
from esa_attention.evaluation.benchmarks.prompts import Template
from esa_attention.evaluation.benchmarks.record import Line, Question, Record, read_json_lines

__all__ = ["DATASETS", "infinitebench"]

# Metric and longest answer of every data set, as published.
DATASETS: dict[str, tuple[str, int]] = {
    "passkey": ("accuracy", 6),
    "number_string": ("accuracy", 12),
    "kv_retrieval": ("accuracy", 50),
    "longbook_sum_eng": ("ROUGE-Lsum", 1200),
    "longbook_choice_eng": ("accuracy", 40),
    "longbook_qa_eng": ("F1", 40),
    "longbook_qa_chn": ("F1 of characters", 40),
    "longdialogue_qa_eng": ("accuracy", 40),
    "math_find": ("accuracy", 3),
    "math_calc": ("share of steps", 30000),
    "code_run": ("accuracy", 5),
    "code_debug": ("accuracy", 5),
}
_CHOICES = ("code_debug", "longbook_choice_eng")
_LETTERS = "ABCD"
_NAMES = (
    *("context", "input", "question", "prompt", "prefix", "func", "func_call"),
    *(f"OPTION_{letter}" for letter in _LETTERS),
)


def infinitebench(
    folder: Path,
    datasets: Sequence[str] | None,
    prompts: str | None,
    *,
    prompt_set: str = "yarn_mistral_templates",
) -> Benchmark:
    """InfiniteBench in a folder.

    Args:
        folder: With ``NAME.jsonl``, there or in ``data/``, and the benchmark's ``prompt.py``, there or in ``src/``.
        datasets: Names; ``None`` for all that are there.
        prompts: A file of templates; ``plain`` for bare ones of ours; ``None``: the folder's.
        prompt_set: Which dictionary of ``prompt.py``; this one is InfiniteBench's for open models.

    Raises:
        UserError: If something is missing or unknown.
    """
    files = choose_datasets(folder, datasets, tuple(DATASETS), lambda name: [f"{name}.jsonl", f"data/{name}.jsonl"])
    templates, source = templates_of(
        folder,
        prompts,
        files,
        _NAMES,
        own=("prompt.py", "src/prompt.py", "../src/prompt.py"),
        plain=_plain,
        source="InfiniteBench's src/prompt.py",
        prompt_set=prompt_set,
    )

    def read(name: str, codec: Codec | None) -> Iterator[Record]:
        for number, line in enumerate(read_json_lines(files[name])):
            yield _record(name, number, line, templates[name])

    return Benchmark("infinitebench", {name: DATASETS[name][0] for name in files}, source, read, _overall)


def _plain(name: str) -> str:
    options = "".join(f"{letter}. {{OPTION_{letter}}}\n" for letter in _LETTERS)
    return "{context}\n\n{input}\n" + (options if name in _CHOICES else "")


def _overall(means: Means) -> dict[str, float | None]:
    return {"mean of the data sets": sum(means.values()) / len(means)}


def _record(name: str, number: int, line: Line, template: Template) -> Record:
    wanted, score = _wanted(name, line)
    return Record(
        dataset=name,
        number=number,
        question=Question(*template.fill(_values(name, line)), max_new_tokens=DATASETS[name][1]),
        score=score,
        details={"id": number, "ground_truth": wanted},
    )


def _values(name: str, line: Line) -> dict[str, str]:
    """What a template may name, of a record."""
    asked = line.text("input", "")
    values = dict.fromkeys(_NAMES, "") | {"context": line.text("context"), "input": asked, "question": asked}
    if name in _CHOICES:
        options = line.texts("options", 4)
        values |= {f"OPTION_{letter}": text for letter, text in zip(_LETTERS, options, strict=False)}
    if name == "code_run":
        call = re.search(r"func_[0-9]+\(-?[0-9]+\)", asked)
        if call is None:
            raise line.wrong("input", "a call such as func_1(2)", asked)
        values |= {"func_call": call[0], "func": call[0].partition("(")[0]}
    if name == "math_find":
        target = re.search(r"The .+ of", asked)
        if target is None:
            raise line.wrong("input", "what to find, as in 'The largest number of'", asked)
        values["prompt"] = values["prefix"] = f"What is {target[0].lower()[:-3]} in the following list?"
    return values


def _wanted(name: str, line: Line) -> tuple[Any, Callable[[str], float]]:
    """The right answer, and the metric; a list of one answer is that answer where there is only one."""
    answer = line.values.get("answer")
    first = answer[0] if isinstance(answer, list) and answer else answer
    if name in ("passkey", "number_string", "kv_retrieval"):
        if not isinstance(first, str):
            raise line.wrong("answer", "text", answer)
        return first, lambda said: (value_found if name == "kv_retrieval" else first_number)(said, first)
    if name in ("code_run", "math_find"):
        if isinstance(first, bool) or not isinstance(first, int if name == "code_run" else int | float):
            raise line.wrong("answer", "a whole number" if name == "code_run" else "a number", answer)
        return first, lambda said: (last_whole_number if name == "code_run" else number_named)(said, first)
    if name == "math_calc":
        steps = first if isinstance(first, list) else answer
        if not isinstance(steps, list) or not steps or not all(type(step) is int for step in steps):
            raise line.wrong("answer", "a list of whole numbers", answer)
        return steps, lambda said: leading_share(said, steps)
    texts = line.texts("answer")
    if name in _CHOICES:
        options = line.texts("options", 4)
        if len(texts) == 2 and texts[1] in _LETTERS:
            pair = texts
        elif len(texts) == 1 and texts[0] in options[:4]:
            pair = [texts[0], _LETTERS[options.index(texts[0])]]
        else:
            raise line.wrong("answer", "one of the options", answer)
        return pair, lambda said: (function_named if name == "code_debug" else choice_named)(said, pair)
    if name == "longdialogue_qa_eng":
        return texts, lambda said: speaker_named(said, texts)
    metric = {"longbook_sum_eng": rouge_lsum, "longbook_qa_eng": word_f1, "longbook_qa_chn": characters_f1}[name]
    return texts, lambda said: max(metric(said, text) for text in texts)
