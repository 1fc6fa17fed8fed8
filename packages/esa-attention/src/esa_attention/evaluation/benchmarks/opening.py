"""Benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose
from esa_attention.evaluation.benchmarks.benchmark import Benchmark
from esa_attention.evaluation.benchmarks.infinitebench import infinitebench
from esa_attention.evaluation.benchmarks.longbench import longbench
from esa_attention.evaluation.benchmarks.needlebench import needlebench
from esa_attention.evaluation.benchmarks.ruler import ruler

__all__ = ["BENCHMARKS", "open_benchmark"]

_OPENERS: dict[str, Callable[..., Benchmark]] = {
    "longbench": longbench,
    "infinitebench": infinitebench,
    "needlebench": needlebench,
    "ruler": ruler,
}
BENCHMARKS = tuple(_OPENERS)


def open_benchmark(
    name: str,
    folder: str | Path | None,
    datasets: Sequence[str] | None = None,
    prompts: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Benchmark:
    """A benchmark in a folder.

    Args:
        name: One of :data:`BENCHMARKS`.
        folder: Where its files are; nothing is downloaded.
        datasets: Which of its data sets; ``None`` for all that are there.
        prompts: A file of prompt templates, or ``plain``; ``None`` for the benchmark's own.
        options: Further arguments of the benchmark's function.

    Raises:
        UserError: If something is missing, unknown or out of range.
    """
    opener = _OPENERS[choose("task.name", name, BENCHMARKS)]
    if folder is None:
        raise UserError(f"task.folder= is empty: give the folder with {name}'s files; nothing is downloaded")
    given = dict(options or {})
    known = list(opener.__kwdefaults__ or {})
    for key in given:
        if not known:
            raise UserError(f"task.options.{key}: {name} takes no options")
        choose(f"key of task.options for {name}", key, known)
    check_arguments(opener, given, "task.options.")
    return opener(Path(folder).expanduser(), datasets, prompts, **given)
