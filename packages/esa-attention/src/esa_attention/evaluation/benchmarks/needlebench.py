"""NeedleBench (Li et al. 2024, OpenCompass): one needle, several, and reasoning over 2 to 5, by length and depth."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effkit.errors import UserError, choose
from esa_attention.evaluation.benchmarks.benchmark import Benchmark, Means
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.metrics.needles import (
    key_word_or_alike,
    key_words_share,
    words_of_answer_share,
)
from esa_attention.evaluation.benchmarks.needles import apart, at_depth, at_depths, haystack, unique_needles
from esa_attention.evaluation.benchmarks.prompts import PLAIN, Template, load_templates
from esa_attention.evaluation.benchmarks.record import Line, Question, Record, read_json_lines

__all__ = ["DATASETS", "needlebench"]

REASONING = tuple(f"{count}_needle_reasoning" for count in (2, 3, 4, 5))
DATASETS = ("single_retrieval", "multi_retrieval", *REASONING)
DEPTHS = tuple(int(100 * i / 19) for i in range(20))  # percent, as published
_METRICS = {
    "single_retrieval": "key word, else likeness",
    "multi_retrieval": "key words",
} | dict.fromkeys(REASONING, "words of the answer")
_REPEATS = {"single_retrieval": 10, "multi_retrieval": 25} | dict.fromkeys(REASONING, 10)
_LANGUAGES = {"English": ("PaulGrahamEssays.jsonl", "en", 600), "Chinese": ("zh_finance.jsonl", "zh", 200)}
_GAP = 10  # percent of the context between two needles to reason over
_WEIGHTS = {"single_retrieval": 0.4, "multi_retrieval": 0.3, "reasoning": 0.3}
_LONGEST = 128  # published runs take that of each model's configuration


def needlebench(
    folder: Path,
    datasets: Sequence[str] | None,
    prompts: str | None,
    *,
    lengths: Sequence[int] = (1000, 2000, 3000, 4000),
    depths: Sequence[float] = DEPTHS,
    repeats: int | None = None,
    language: str = "English",
    buffer: int | None = None,
    seed: int = 0,
) -> Benchmark:
    """NeedleBench in a folder. Lengths are in tokens of the model (published: of GPT-4).

    Args:
        folder: With ``needles.jsonl``, the haystack (``PaulGrahamEssays.jsonl`` or ``zh_finance.jsonl``) and
            ``multi_needle_reasoning_en.json`` (or ``_zh``), as published.
        datasets: Names; ``None`` for all whose files are there.
        prompts: A JSON file of templates by data set, which may name ``context`` and ``question``. ``None`` or
            ``plain``: bare ones of ours, as the published ones stand in code.
        lengths: Of the prompts, with ``buffer`` for question and answer.
        depths: In percent.
        repeats: Contexts of each length and depth; published 10, for multiple retrieval 25.
        language: ``English`` or ``Chinese``.
        buffer: Tokens of a length that are left for question and answer; published 600, in Chinese 200.
        seed: Of which needles are retrieved together.

    Raises:
        UserError: If something is missing, unknown or out of range.
    """
    choose("task.options.language", language, _LANGUAGES)
    hay_file, short, default = _LANGUAGES[language]
    buffer = default if buffer is None else buffer
    _check(lengths, depths, repeats, buffer)
    files = _Files(folder, hay_file, f"multi_needle_reasoning_{short}.json", language)
    names = files.datasets(datasets)
    templates, source = _templates(names, prompts)
    files.check(names, len(depths))

    def read(name: str, codec: Codec | None) -> Iterator[Record]:
        if codec is None:
            return  # the files were read above; what is missing is a model's tokens
        grid = _Grid(tuple(lengths), tuple(depths), _REPEATS[name] if repeats is None else repeats, buffer, seed)
        for number, record in enumerate(_records(name, files, templates[name], grid, codec)):
            yield record(number)

    return Benchmark("needlebench", {name: _METRICS[name] for name in names}, source, read, _overall)


@dataclass(frozen=True)
class _Grid:
    """Which contexts."""

    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    repeats: int
    buffer: int
    seed: int


@dataclass(frozen=True)
class _Files:
    """The files of one language."""

    folder: Path
    hay: str
    reasoning: str
    language: str

    def datasets(self, asked: Sequence[str] | None) -> list[str]:
        if not self.folder.is_dir():
            there = "is no folder" if self.folder.exists() else "does not exist"
            raise UserError(f"task.folder={str(self.folder)!r} {there}")
        if asked is not None and (not asked or len(set(asked)) != len(asked)):
            raise UserError(f"task.datasets={list(asked)} must name data sets, each once")
        names = [choose("task.datasets", name, DATASETS) for name in (DATASETS if asked is None else asked)]
        missing = {name: self._missing(name) for name in names}
        if asked is None and any(not left for left in missing.values()):
            return [name for name in names if not missing[name]]
        lacking = next((left for left in missing.values() if left), [])
        if lacking:
            raise UserError(f"task.folder={str(self.folder)!r} holds no {lacking[0]}")
        return names

    def _missing(self, name: str) -> list[str]:
        needed = (self.hay, self.reasoning if name in REASONING else "needles.jsonl")
        return [file for file in needed if not (self.folder / file).is_file()]

    def check(self, names: Sequence[str], num_depths: int) -> None:
        """Read everything once, so that what is wrong is said before a model is loaded."""
        self.texts()
        if not set(names) <= set(REASONING):
            found = unique_needles(self.needles(), num_depths, 0)
            if "multi_retrieval" in names and len(found) < num_depths:
                raise UserError(
                    f"{self.folder / 'needles.jsonl'} holds {len(found)} different {self.language} needles, "
                    f"multi_retrieval needs one for each of {num_depths} depths: give fewer task.options.depths"
                )
        for name in names:
            if name in REASONING:
                self.chains(int(name[0]))

    def texts(self) -> list[str]:
        return [line.text("text") for line in read_json_lines(self.folder / self.hay)]

    def needles(self) -> list[dict[str, str]]:
        path = self.folder / "needles.jsonl"
        fields = ("needle", "arg1", "arg2", "retrieval_question", "language")
        every = [{field: line.text(field) for field in fields} for line in read_json_lines(path)]
        found = [needle for needle in every if needle["language"] == self.language]
        if not found:
            raise UserError(f"{path} holds no needle with language {self.language!r}")
        return found

    def chains(self, count: int) -> list[dict[str, Any]]:
        path = self.folder / self.reasoning
        try:
            every = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no JSON: {error}") from error
        if not isinstance(every, list) or not all(isinstance(chain, dict) for chain in every):
            raise UserError(f"{path} must hold a list of objects")
        found = []
        for number, chain in enumerate(every):
            if chain.get("derivation_count") == count:
                line = Line(f"{path}, entry {number}", chain)
                answer, asked = line.text("answer"), line.text("question")
                if not answer.split():
                    raise line.wrong("answer", "at least one word", answer)
                found.append({"needles": line.texts("derivations"), "answer": answer, "question": asked})
        if not found:
            raise UserError(f"{path} holds nothing with derivation_count {count}")
        return found


def _check(lengths: Sequence[int], depths: Sequence[float], repeats: int | None, buffer: int) -> None:
    if buffer < 0:
        raise UserError(f"task.options.buffer={buffer} must be at least 0")
    if not lengths or min(lengths) <= buffer:
        raise UserError(f"task.options.lengths={list(lengths)} must be above buffer={buffer} tokens, at least one")
    if not depths or not all(0 <= depth <= 100 for depth in depths):
        raise UserError(f"task.options.depths={list(depths)} must be percents, 0 to 100, at least one")
    if repeats is not None and repeats < 1:
        raise UserError(f"task.options.repeats={repeats} must be at least 1")


def _templates(names: Sequence[str], prompts: str | None) -> tuple[dict[str, Template], str]:
    texts, source = dict.fromkeys(DATASETS, "{context}\n\n{question}\n"), "bare prompts of ours"
    if prompts not in (None, PLAIN):
        path = Path(str(prompts)).expanduser()
        texts, source = load_templates(path), path.name
    for name in names:
        if name not in texts:
            raise UserError(f"task.prompts={prompts!r} has no template for {name}")
    allowed = ("context", "question")
    return {n: Template.parse(texts[n], allowed, f"{source}: the template of {n}") for n in names}, source


def _overall(means: Means) -> dict[str, float | None]:
    """The three tasks, and their weighted sum, as in the first release (later ones weigh all alike)."""
    reasoning = [value for name, value in means.items() if name in REASONING]
    parts: dict[str, float | None] = {name: means.get(name) for name in ("single_retrieval", "multi_retrieval")}
    parts["reasoning"] = sum(reasoning) / len(reasoning) if reasoning else None
    out: dict[str, float | None] = {"mean of the reasoning tasks": parts["reasoning"]} if reasoning else {}
    values = {name: value for name, value in parts.items() if value is not None}
    if len(values) == len(_WEIGHTS):
        out["overall, weights 0.4, 0.3, 0.3"] = sum(_WEIGHTS[name] * value for name, value in values.items())
        out["overall, equal weights"] = sum(values.values()) / len(values)
    return out


def _records(name: str, files: _Files, template: Template, grid: _Grid, codec: Codec) -> Iterator[Any]:
    """Makers of records, waiting for their numbers."""
    hay = files.texts()
    needles = files.needles() if name not in REASONING else []
    chains = files.chains(int(name[0])) if name in REASONING else []
    together = unique_needles(needles, len(grid.depths), grid.seed) if name == "multi_retrieval" else []

    @functools.cache  # the same texts in another order, again and again
    def encode(text: str) -> list[int]:
        return codec.encode(text, begin=False)

    for length in grid.lengths:
        for depth in (None,) if name == "multi_retrieval" else grid.depths:
            order = list(hay)
            for repeat in range(grid.repeats):
                random.Random(repeat).shuffle(order)  # on top of the shuffles before, as published
                if name == "single_retrieval":
                    needle = random.Random(repeat).choice(needles)
                    hidden, asked = [needle["needle"]], needle["retrieval_question"]
                    wanted: Any = [f"\n{needle['needle']}\n", needle["arg2"]]
                elif name == "multi_retrieval":
                    chosen = list(together)
                    random.Random(repeat).shuffle(chosen)
                    hidden, asked = [n["needle"] for n in chosen], _questions(chosen)
                    wanted = [n["arg2"] for n in chosen]
                else:
                    chain = random.Random(repeat).choice(chains)
                    hidden, asked, wanted = chain["needles"], chain["question"], chain["answer"]
                pieces = [encode(f"\n{text}\n") for text in hidden]
                room = max(0, length - grid.buffer - sum(map(len, pieces)))
                ids = haystack(order, room, encode)
                if ids is None:
                    raise UserError(
                        f"{files.folder / files.hay} holds fewer than {room:,} tokens, task.options.lengths={length} "
                        "needs more"
                    )
                if depth is None:
                    mixed = at_depths(ids, pieces, grid.depths)
                elif name == "single_retrieval":
                    mixed = at_depth(ids, pieces[0], depth)
                else:
                    mixed = apart(ids, pieces, depth, _GAP)
                text = {"context": codec.decode(mixed), "question": asked}
                yield _maker(name, template.fill(text), wanted, length, depth)


def _maker(name: str, filled: tuple[str, str], wanted: Any, length: int, depth: float | None) -> Any:
    def score(said: str) -> float:
        if name == "single_retrieval":
            return key_word_or_alike(said, *wanted)
        return key_words_share(said, wanted) if name == "multi_retrieval" else words_of_answer_share(said, wanted)

    def make(number: int) -> Record:
        return Record(
            dataset=name,
            number=number,
            question=Question(*filled, max_new_tokens=_LONGEST),
            score=score,
            group=f"{length:,} tokens",
            details={"wanted": wanted, "length": length, "depth": depth},
        )

    return make


def _questions(needles: Sequence[Mapping[str, str]]) -> str:
    """Questions up to their marks, and the forms of answers that they quote, in one."""
    texts = [needle["retrieval_question"] for needle in needles]
    asked = [next((text[: text.index(mark) + 1] for mark in "?\uff1f" if mark in text), text) for text in texts]
    forms = [text.split("'")[1].rstrip(".\u3002") for text in texts if text.count("'") > 1]
    return " ".join(asked) + (f" Answer in this form: '{'; '.join(forms)}'" if len(forms) == len(texts) else "")
