"""LongBench and LongBench-E (Bai et al. 2023): 21 data sets, ``NAME.jsonl`` and ``NAME_e.jsonl``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from effkit.errors import UserError
from esa_attention.evaluation.benchmarks.benchmark import Benchmark, Means, choose_datasets, templates_of
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.metrics.matching import (
    classification,
    code_similarity,
    number_share,
    paragraph_number,
)
from esa_attention.evaluation.benchmarks.metrics.rouge import rouge_l
from esa_attention.evaluation.benchmarks.metrics.words import segmented_f1, word_f1
from esa_attention.evaluation.benchmarks.prompts import Template, find_file
from esa_attention.evaluation.benchmarks.record import Line, Question, Record, read_json_lines
from esa_attention.evaluation.benchmarks.segmenting import chinese_segmenter

__all__ = ["DATASETS", "longbench"]

# Metric and longest answer of every data set, as published.
DATASETS: dict[str, tuple[str, int]] = {
    "narrativeqa": ("F1", 128),
    "qasper": ("F1", 128),
    "multifieldqa_en": ("F1", 64),
    "multifieldqa_zh": ("F1 of Chinese words", 64),
    "hotpotqa": ("F1", 32),
    "2wikimqa": ("F1", 32),
    "musique": ("F1", 32),
    "dureader": ("ROUGE-L of Chinese words", 128),
    "gov_report": ("ROUGE-L", 512),
    "qmsum": ("ROUGE-L", 512),
    "multi_news": ("ROUGE-L", 512),
    "vcsum": ("ROUGE-L of Chinese words", 512),
    "trec": ("classification", 64),
    "triviaqa": ("F1", 32),
    "samsum": ("ROUGE-L", 128),
    "lsht": ("classification", 64),
    "passage_count": ("count", 32),
    "passage_retrieval_en": ("retrieval", 32),
    "passage_retrieval_zh": ("retrieval", 32),
    "lcc": ("edit similarity", 64),
    "repobench-p": ("edit similarity", 64),
}
_FIRST_LINE = ("trec", "triviaqa", "samsum", "lsht")  # only the answer's first line is scored
_NO_CHAT = (*_FIRST_LINE, "lcc", "repobench-p")  # examples or code to go on with
_OF_E = (
    *("qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec", "triviaqa", "samsum"),
    *("passage_count", "passage_retrieval_en", "lcc", "repobench-p"),
)
_PARAGRAPH = {"passage_retrieval_en": "Paragraph ", "passage_retrieval_zh": "\u6bb5\u843d"}
_CONFIG = "dataset2prompt.json"


def longbench(folder: Path, datasets: Sequence[str] | None, prompts: str | None) -> Benchmark:
    """LongBench in a folder.

    Args:
        folder: With ``NAME.jsonl``, there or in ``data/``, and ``dataset2prompt.json``, there or in ``config/``.
        datasets: Names; those of LongBench-E end in ``_e``. ``None``: all of LongBench that are there, and only if
            there is none of them those of LongBench-E.
        prompts: A file of templates; ``plain`` for bare ones of ours; ``None``: the folder's.

    Raises:
        UserError: If something is missing or unknown.
    """
    known = (*DATASETS, *(f"{name}_e" for name in _OF_E))
    if datasets is None and find_file(folder, [place for name in DATASETS for place in _places(name)]) is None:
        files = choose_datasets(folder, None, known, _places)
    else:
        files = choose_datasets(folder, datasets, tuple(DATASETS) if datasets is None else known, _places)
    templates, source = templates_of(
        folder,
        prompts,
        [_base(name) for name in files],
        ("context", "input"),
        own=(_CONFIG, f"config/{_CONFIG}", f"../config/{_CONFIG}"),
        plain=lambda name: "{context}\n\n{input}\n",
        source=f"LongBench's config/{_CONFIG}",
    )
    metrics = {name: DATASETS[_base(name)][0] for name in files}
    if any("Chinese" in metric for metric in metrics.values()):
        chinese_segmenter()  # refused before anything is read

    def read(name: str, codec: Codec | None) -> Iterator[Record]:
        template = templates[_base(name)]
        for number, line in enumerate(read_json_lines(files[name])):
            yield _record(name, number, line, template)

    return Benchmark("longbench", metrics, source, read, _overall)


def _places(name: str) -> list[str]:
    return [f"{name}.jsonl", f"data/{name}.jsonl"]


def _base(name: str) -> str:
    return name.removesuffix("_e")


def _overall(means: Means) -> dict[str, float | None]:
    return {"mean of the data sets": sum(means.values()) / len(means)}


def _record(name: str, number: int, line: Line, template: Template) -> Record:
    base = _base(name)
    metric, longest = DATASETS[base]
    answers = line.texts("answers")
    classes = line.texts("all_classes") if metric == "classification" else []
    length = line.values.get("length")
    if name != base and (isinstance(length, bool) or not isinstance(length, int)):
        raise line.wrong("length", "a whole number of words", length)
    prompt, tail = template.fill({"context": line.text("context"), "input": line.text("input", "")})
    question = Question(
        prompt,
        tail,
        max_new_tokens=longest,
        min_new_tokens=int(base == "samsum"),
        stop_at_line_end=base == "samsum",
        chat=base not in _NO_CHAT,
    )
    one = _score(base, line, answers, classes)

    def score(said: str) -> float:
        said = said.lstrip("\n").split("\n")[0] if base in _FIRST_LINE else said
        return max(one(said, wanted) for wanted in answers)

    return Record(
        dataset=name,
        number=number,
        question=question,
        score=score,
        group=_group(length) if name != base and isinstance(length, int) else "",
        details={"answers": answers, "all_classes": line.values.get("all_classes"), "length": length},
    )


def _score(base: str, line: Line, answers: Sequence[str], classes: Sequence[str]) -> Callable[[str, str], float]:
    """The metric of a data set, with what it needs of a record."""
    metric = DATASETS[base][0]
    if metric == "classification":
        return functools.partial(classification, classes=classes)
    if metric == "retrieval":
        word = _PARAGRAPH[base]
        for wanted in answers:
            if paragraph_number(wanted, word) is None:
                raise UserError(f"{line.where}: field 'answers' must name {word!r} and a number, got {wanted[:40]!r}")
        return lambda said, wanted: number_share(said, paragraph_number(wanted, word) or "")
    if metric == "F1 of Chinese words":
        return lambda said, wanted: segmented_f1(said, wanted, chinese_segmenter())
    if metric == "ROUGE-L of Chinese words":

        def of_words(said: str, wanted: str) -> float:
            cut = chinese_segmenter()
            return rouge_l(" ".join(cut(said)), " ".join(cut(wanted)))

        return of_words
    return {"F1": word_f1, "ROUGE-L": rouge_l, "count": number_share, "edit similarity": code_similarity}[metric]


def _group(words: int) -> str:
    """The bins of LongBench-E, by words (characters in Chinese)."""
    return "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"
