"""The command ``eval``: a published benchmark from local files, answered by every method, scored as published."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments, named_path
from effkit.cli import run_dir
from effkit.errors import UserError, choose
from effkit.executors import Choice
from effkit.lock import locked
from effkit.notes import say_once
from effkit.outputs import check_output_folder
from effkit.progress import part
from effkit.report import Report
from esa_attention.commands.answering import STOCK, Asking, answer_pending
from esa_attention.commands.answers import AnswerFile, check_settings
from esa_attention.commands.build import build_subject, in_keys, plain
from esa_attention.commands.evaluate_tables import Scores, score_report
from esa_attention.commands.methods import METHODS, check_group, kind_of, method_setup
from esa_attention.commands.subject import Subject
from esa_attention.commands.way import Way
from esa_attention.compression.compressor import Compressors, load_compressors, save_compressors
from esa_attention.compression.fingerprint import fingerprint
from esa_attention.evaluation.benchmarks.benchmark import Benchmark
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.opening import BENCHMARKS, open_benchmark

__all__ = ["evaluate_report", "run"]


@in_keys
def run(cfg: Any) -> Report:
    """Run the command with a composed config."""
    options = plain(cfg)
    choice = Choice.from_config(options, run_dir() / "jobs")
    task, group = options["task"], options["compressor"]
    choose("task.name", task["name"], BENCHMARKS)
    given = {k: options[k] for k in ("methods", "limit")}
    check_arguments(evaluate_report, given)
    check_arguments(open_benchmark, task, "task.")
    asked = {f.name: options[f.name] for f in dataclasses.fields(Asking)}
    check_arguments(Asking, asked)
    check_group(group)
    _check(asked, **given)
    out = run_dir() / "answers" if options["out"] is None else check_output_folder("out", options["out"])
    if task["folder"] is not None:
        named_path("task.folder", task["folder"])
    benchmark = open_benchmark(**task)
    for name in benchmark.metrics:  # what is wrong in a file is said before a model is loaded
        for _ in islice(benchmark.read(name, None), given["limit"]):
            pass
    return evaluate_report(
        build_subject(cfg),
        benchmark,
        compressor=group,
        asking=Asking(**asked),
        folder=run_dir(),
        out=out,
        choice=choice,
        **given,
    )


def _check(asked: Mapping[str, Any], methods: Sequence[str], limit: int | None) -> None:
    if not methods or len(set(methods)) != len(methods):
        raise UserError(f"methods={list(methods)} must name methods, each once")
    for name in methods:
        choose("methods", name, (STOCK, *METHODS))
    choose("question", asked["question"], ("block", "tokens"))
    for name, value, least in (
        ("limit", limit, 1),
        ("max_prompt_tokens", asked["max_prompt_tokens"], 2),
        ("max_new_tokens", asked["max_new_tokens"], 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{name}={value} must be at least {least}")


def evaluate_report(
    subject: Subject,
    benchmark: Benchmark,
    *,
    methods: Sequence[str],
    limit: int | None,
    compressor: dict[str, Any],
    asking: Asking,
    folder: Path,
    out: Path,
    choice: Choice | None = None,
) -> Report:
    """Let every method answer every record; what is answered in ``out`` already is not asked again.

    Args:
        subject: The model.
        benchmark: From :func:`esa_attention.evaluation.benchmarks.opening.open_benchmark`.
        methods: ``stock`` and names of :data:`esa_attention.commands.methods.METHODS`.
        limit: The first records of every data set only.
        compressor: Config group ``compressor``.
        asking: How questions are put.
        folder: Gets the tables.
        out: Holds answers and compressors.
        choice: Where records are answered; in this process if not given.

    Returns:
        Scores by data set and method.

    Raises:
        UserError: If a value does not fit, a record cannot be asked, or ``out`` holds answers given otherwise.
    """
    _check(dataclasses.asdict(asking), methods, limit)
    if subject.name == "constructed_induction":
        raise UserError("model='constructed_induction' reads numbers of tokens, and a benchmark is text: take another")
    codec = Codec(subject.model, subject.tokenizer)
    if asking.chat_template:
        codec.check_chat()
    choice = Choice() if choice is None else choice
    scores = Scores(benchmark, tuple(methods))
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, say_once, "out"):
        ways = _ways(subject, benchmark, methods, compressor, asking, out)
        parts = len(benchmark.metrics) * len(methods)
        for i, name in enumerate(benchmark.metrics):
            records = list(islice(benchmark.read(name, codec), limit))
            if not records:
                raise UserError(f"{name} has no records")
            for j, method in enumerate(methods):
                begin = i * len(methods) + j
                with part("", begin / parts, (begin + 1) / parts):
                    file = AnswerFile(out / method / f"{name}.jsonl", records, say_once)
                    answer_pending(ways[method], method, records, file, asking, choice)
                scores.add(method, records, file.answers)
    return score_report(subject, scores, ways, asking, folder, out)


def _ways(
    subject: Subject, benchmark: Benchmark, methods: Sequence[str], group: dict[str, Any], asking: Asking, out: Path
) -> dict[str, Way]:
    """How each method reads. Compressors that are made here are kept with the answers, for a run that goes on."""
    made: dict[str, Compressors] = {}
    ways = {}
    for name in methods:
        kind = kind_of(name, group)
        uses_file = kind is not None and group["path"] is not None and kind == group["method"]
        settings: dict[str, Any] = {
            "task": benchmark.name,
            "prompts": benchmark.prompts,
            "model": fingerprint(subject.model),
            "dtype": str(subject.model.dtype).removeprefix("torch."),
            **dataclasses.asdict(asking),
        }
        if name != STOCK:
            settings["esa"] = dataclasses.asdict(subject.config)
        if kind is not None:
            settings["compressor"] = {**group, "path": _digest(group["path"]) if uses_file else None}
        check_settings(out / name, settings)
        kept = None if kind in (None, "exact") or uses_file else out / f"compressors_{kind}.safetensors"
        if kept is not None and kind is not None and kind not in made and kept.exists():
            made[kind] = load_compressors(kept, subject.model, strict=group["strict"])
        config, maps = (subject.config, None) if name == STOCK else method_setup(subject, name, group, made)
        if kept is not None and maps is not None and not kept.exists():
            save_compressors(maps, kept)
        ways[name] = Way(subject, config, maps, strict=group["strict"])
    return ways


def _digest(path: str | Path) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"compressor.path={str(path)!r} cannot be read: {error.strerror or error}") from error
