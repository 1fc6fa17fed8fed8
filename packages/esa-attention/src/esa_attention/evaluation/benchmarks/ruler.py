"""RULER (Hsieh et al. 2024): 13 synthetic tasks, prepared by its own scripts for a tokenizer and a length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from effkit.errors import UserError
from esa_attention.evaluation.benchmarks.benchmark import Benchmark, Means, choose_datasets
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.metrics.matching import printable, string_match_all, string_match_part
from esa_attention.evaluation.benchmarks.record import Line, Question, Record, read_json_lines

__all__ = ["DATASETS", "ruler"]

_KINDS: dict[str, tuple[str, int, Callable[[str, Sequence[str]], float]]] = {
    "niah": ("string_match_all", 128, string_match_all),
    "vt": ("string_match_all", 30, string_match_all),
    "cwe": ("string_match_all", 120, string_match_all),
    "fwe": ("string_match_all", 50, string_match_all),
    "qa": ("string_match_part", 32, string_match_part),
}
DATASETS = (
    *("niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3"),
    *("niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"),
)
_TAIL = 200  # characters at the end of a prompt that are taken for its question: the files do not say where it begins


def ruler(folder: Path, datasets: Sequence[str] | None, prompts: str | None) -> Benchmark:
    """RULER in a folder: one length.

    Args:
        folder: With ``NAME/validation.jsonl`` (or ``test.jsonl``), as RULER's ``prepare.py`` writes them, or
            ``NAME.jsonl``.
        datasets: Names; ``None`` for all that are there.
        prompts: Must be ``None``: prompts are in the records.

    Raises:
        UserError: If something is missing or unknown.
    """
    if prompts is not None:
        raise UserError(f"task.prompts={prompts!r}: RULER's records are whole prompts, leave task.prompts out")
    files = choose_datasets(
        folder, datasets, DATASETS, lambda name: [f"{name}/validation.jsonl", f"{name}/test.jsonl", f"{name}.jsonl"]
    )

    def read(name: str, codec: Codec | None) -> Iterator[Record]:
        for number, line in enumerate(read_json_lines(files[name])):
            yield _record(name, number, line)

    metrics = {name: _kind(name)[0] for name in files}
    return Benchmark("ruler", metrics, "as prepared in the records", read, _overall)


def _kind(name: str) -> tuple[str, int, Callable[[str, Sequence[str]], float]]:
    return _KINDS[name.partition("_")[0]]


def _overall(means: Means) -> dict[str, float | None]:
    return {"mean of the tasks": sum(means.values()) / len(means)}


def _record(name: str, number: int, line: Line) -> Record:
    _, longest, metric = _kind(name)
    wanted = line.texts("outputs")
    prompt = line.text("input") + line.text("answer_prefix", "")
    return Record(
        dataset=name,
        number=number,
        question=Question(prompt, prompt[-_TAIL:], max_new_tokens=longest),
        score=lambda said: metric(printable(said), wanted),
        details={"index": line.values.get("index", number), "outputs": wanted, "length": line.values.get("length")},
    )
