"""The commands ``needle`` and ``counting-stars``.

Needles, pass keys, stars and variables over lengths and depths, for several methods on one model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments, named_below
from effkit.cli import run_dir
from effkit.errors import UserError, choose
from effkit.executors import Choice, Task
from effkit.executors import run as run_tasks
from effkit.report import Report, Table, write_json
from effkit.report import plain as jsonable
from effkit.runs import given_words
from esa_attention.commands.build import build_subject, in_keys, plain
from esa_attention.commands.methods import check_group, method_setup
from esa_attention.commands.subject import Subject
from esa_attention.commands.way import Way
from esa_attention.compression.compressor import Compressors
from esa_attention.evaluation.tasks.counting_stars import counting_stars
from esa_attention.evaluation.tasks.multi_needle import multi_needle
from esa_attention.evaluation.tasks.needle import needle
from esa_attention.evaluation.tasks.passkey import passkey
from esa_attention.evaluation.tasks.runner import run_samples
from esa_attention.evaluation.tasks.sample import Sample
from esa_attention.evaluation.tasks.variable_tracking import variable_tracking
from esa_attention.integration.apply import apply_esa
from esa_attention.plots import needle_heatmap

__all__ = ["TASKS", "make_samples", "retrieval_report", "run"]

_MAKERS: dict[str, Callable[..., Any]] = {
    "needle": needle,
    "multi_needle": multi_needle,
    "passkey": passkey,
    "counting_stars": counting_stars,
    "variable_tracking": variable_tracking,
}
TASKS = tuple(_MAKERS)
SINGLE = ("needle", "passkey")  # one thing is hidden, at a depth


@in_keys
def run(cfg: Any) -> Report:
    """Run the command with a composed config."""
    options = plain(cfg)
    choice = Choice.from_config(options, run_dir() / "jobs")
    task = options["task"]
    if task["name"] not in SINGLE and "depths" in given_words():
        raise UserError(f"depths: {task['name']} spreads over the context, leave depths out")
    maker = _MAKERS[choose("task.name", task["name"], TASKS)]
    given = {k: options[k] for k in ("lengths", "depths", "methods", "samples", "question", "seed")}
    check_arguments(retrieval_report, given)
    check_arguments(retrieval_report, task, "task.")
    check_arguments(maker, task["options"], "task.options.")
    check_group(options["compressor"])
    return retrieval_report(
        build_subject(cfg),
        task["name"],
        options=task["options"],
        compressor=options["compressor"],
        folder=run_dir(),
        choice=choice,
        **given,
    )


def make_samples(task: str, vocab: Any, length: int, depth: float, options: dict[str, Any], seed: int) -> list[Sample]:
    """Samples of one cell of the grid.

    Args:
        task: One of :data:`TASKS`.
        vocab: The model's language.
        length: Tokens of the context.
        depth: Where a single needle is hidden, 0 to 1.
        options: The task's own numbers.
        seed: Of everything random.

    Raises:
        UserError: If the task is unknown or a number does not fit.
    """
    choose("task", task, TASKS)
    place = {"depth": depth} if task in SINGLE else {}
    with named_below("task.options.", options):
        made = _MAKERS[task](vocab, length, seed=seed, **place, **options)
    return made if isinstance(made, list) else [made]


def retrieval_report(
    subject: Subject,
    task: str,
    *,
    lengths: Sequence[int],
    depths: Sequence[float],
    methods: Sequence[str],
    samples: int,
    options: dict[str, Any],
    compressor: dict[str, Any],
    question: str,
    seed: int,
    folder: Path,
    choice: Choice | None = None,
) -> Report:
    """Ask every method the same questions.

    Args:
        subject: The model.
        task: One of :data:`TASKS`.
        lengths: Tokens of the contexts.
        depths: Places of a single needle, 0 to 1; tasks that spread many use none.
        methods: Of :data:`esa_attention.commands.methods.METHODS`.
        samples: Different contexts of each length and depth.
        options: Numbers of the task (``num_needles``, ``digits`` ...).
        compressor: Config group ``compressor``.
        question: ``block`` or ``tokens``: how the question is read.
        seed: Of contexts and needles.
        folder: Gets the picture and the answers.
        choice: Where contexts are read; in this process if not given. Answers do not depend on it.

    Returns:
        Score by method and length, and for single needles the heat map.

    Raises:
        UserError: If a value does not fit.
    """
    if samples < 1 or not lengths or not methods:
        raise UserError(
            f"samples must be at least 1 and lengths and methods not empty, got {samples}, {lengths}, {methods}"
        )
    single = task in SINGLE
    grid = list(depths) if single else [0.5]
    if not grid:
        raise UserError("depths is empty, give numbers in 0..1")
    made: dict[str, Compressors] = {}
    scores: dict[str, list[list[float]]] = {name: [[] for _ in lengths] for name in methods}
    answers: list[dict[str, Any]] = []
    cells = [(column, length, depth) for column, length in enumerate(lengths) for depth in grid]
    ways = {name: method_setup(subject, name, compressor, made) for name in methods}
    choice = Choice() if choice is None else choice
    tasks = []
    for name in methods:
        way = Way(subject, *ways[name], strict=compressor["strict"])
        content = way if choice.executor == "serial" else way.packed()
        for _, length, depth in cells:
            cell = (task, length, depth, samples, options, question, seed)
            tasks.append(Task(f"{name} at {length:,} tokens, depth {depth:g}", content, name, *cell))
    with choice.open(tasks=len(tasks)) as pool:
        results = run_tasks(pool, _cell, tasks)
        for (name, (column, _, _)), (score, said) in zip(product(methods, cells), results, strict=True):
            scores[name][column].append(score)
            answers += said
    files = []
    if single and (len(lengths) > 1 or len(grid) > 1):
        # One panel a method, length across, depth down.
        panels = {name: [list(column) for column in zip(*rows, strict=True)] for name, rows in scores.items()}
        context = subject.shape.trained_context
        title = f"{task.capitalize()} found, by length of the context and depth"
        picture = folder / f"{task}.png"
        files.append(needle_heatmap(panels, list(lengths), grid, picture, trained_context=context, title=title))
    files.append(write_json(folder / "answers.json", jsonable(answers)))
    table = Table(
        f"{task.replace('_', ' ')}: share answered, by tokens of the context",
        ["method", *(f"{n:,}" for n in lengths), "mean"],
        [
            [name, *(sum(row) / len(row) for row in rows), sum(map(sum, rows)) / sum(map(len, rows))]
            for name, rows in scores.items()
        ],
        _note(subject, question),
    )
    data = {"scores": scores, "lengths": list(lengths), "depths": grid, "task": task}
    return Report(f"esa-attention {task}, {subject.name}", [table], data=data, files=files)


def _cell(
    way: Way | bytes,
    name: str,
    task: str,
    length: int,
    depth: float,
    samples: int,
    options: dict[str, Any],
    question: Any,
    seed: int,
) -> tuple[float, list[dict[str, Any]]]:
    """One method on the samples of one length and depth: the mean score, and the answers."""
    way = Way.unpacked(way) if isinstance(way, bytes) else way
    subject = way.subject
    asked = [
        sample
        for trial in range(samples)
        for sample in make_samples(task, subject.vocab(), length, depth, options, seed + trial)
    ]
    with apply_esa(subject.model, way.config, way.maps, strict=way.strict) as handle:
        found = list(
            run_samples(
                subject.model,
                asked,
                make_cache=handle.new_cache,
                decode=subject.vocab().decode,
                block=way.block,
                question=question,
            )
        )
    return sum(r.score for r in found) / len(found), [_answer(name, length, depth, r, subject) for r in found]


def _note(subject: Subject, question: str) -> str:
    c = subject.config
    return (
        f"Initial {c.num_initial}, selected {c.num_selected}, local {c.num_local}, chunk {c.chunk_size}, proximity "
        f"{c.proximity}, selection {c.selection}; trained context {subject.shape.trained_context}. "
        + ("The question is a block of its own." if question == "block" else "The question is read token by token.")
    )


def _answer(name: str, length: int, depth: float, result: Any, subject: Subject) -> dict[str, Any]:
    sample = result.sample
    wanted = sample.answer_texts or [" ".join(map(str, a)) for a in sample.answers]
    return {
        "method": name,
        "length": length,
        "depth": sample.meta.get("depth", depth),
        "seed": sample.meta.get("seed"),
        "score": result.score,
        "answer": subject.decode(result.answer.ids),
        "wanted": wanted,
    }
