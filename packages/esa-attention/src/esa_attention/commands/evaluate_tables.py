"""Scores of a benchmark by data set, method and group, as tables and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from effkit.report import Report, Table, write_json, write_text
from esa_attention.commands.answering import Asking
from esa_attention.commands.subject import Subject
from esa_attention.commands.way import Way
from esa_attention.evaluation.benchmarks.benchmark import Benchmark
from esa_attention.evaluation.benchmarks.record import Record
from esa_attention.plots import needle_heatmap

__all__ = ["Scores", "score_report"]


@dataclass
class Scores:
    """What was scored so far.

    Args:
        benchmark: The benchmark.
        methods: In the order of the columns.
    """

    benchmark: Benchmark
    methods: tuple[str, ...]
    means: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    groups: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    cells: dict[str, dict[tuple[int, float], list[float]]] = field(default_factory=dict)

    def add(self, method: str, records: Sequence[Record], answers: Mapping[int, Mapping[str, Any]]) -> None:
        """Score one method's answers to a data set.

        Args:
            method: The method.
            records: The data set.
            answers: By number, all of them.
        """
        name = records[0].dataset
        scores = [100 * record.score(answers[record.number]["pred"]) for record in records]
        self.means.setdefault(method, {})[name] = sum(scores) / len(scores)
        self.counts[name] = len(records)
        self.left_out[name] = sum(bool(answers[record.number].get("left_out")) for record in records)
        for record, score in zip(records, scores, strict=True):
            if record.details.get("depth") is not None and name == "single_retrieval":
                place = record.details["length"], record.details["depth"] / 100
                self.cells.setdefault(method, {}).setdefault(place, []).append(score / 100)
            if record.group:
                self.groups.setdefault((name, record.group), {}).setdefault(method, []).append(score)

    def by_dataset(self, note: str) -> Table:
        """A row a data set, then what sums them up."""
        rows: list[list[Any]] = [
            [name, metric, self.counts[name], *(self.means[method][name] for method in self.methods)]
            for name, metric in self.benchmark.metrics.items()
        ]
        sums = {method: self.benchmark.overall(self.means[method]) for method in self.methods}
        total = sum(self.counts.values())
        if len(rows) > 1:
            rows += [
                [label, "", total, *(sums[method][label] for method in self.methods)] for label in sums[self.methods[0]]
            ]
        columns = ["data set", "metric", "records", *self.methods]
        return Table(f"{self.benchmark.name}: scores, 0 to 100", columns, rows, note)

    def by_group(self) -> Table | None:
        """A row a data set and group, where there are groups."""
        if not self.groups:
            return None
        rows: list[list[Any]] = []
        for (name, group), values in self.groups.items():
            count = len(values[self.methods[0]])
            rows.append([name, group, count, *(sum(values[m]) / len(values[m]) for m in self.methods)])
        columns = ["data set", "length", "records", *self.methods]
        return Table(f"{self.benchmark.name}: the same by length", columns, rows)

    def panels(self) -> tuple[dict[str, list[list[float]]], list[int], list[float]] | None:
        """Single needles by method, depth and length, where there is more than one place."""
        places = sorted({place for cells in self.cells.values() for place in cells})
        if len(places) < 2:
            return None
        lengths, depths = sorted({length for length, _ in places}), sorted({depth for _, depth in places})
        return (
            {
                method: [[fmean(cells[length, depth]) for length in lengths] for depth in depths]
                for method, cells in self.cells.items()
            },
            lengths,
            depths,
        )


def score_report(
    subject: Subject, scores: Scores, ways: Mapping[str, Way], asking: Asking, folder: Path, out: Path
) -> Report:
    """Tables, for people and in files, with what the answers were given with.

    Args:
        subject: The model.
        scores: All scores.
        ways: How each method read.
        asking: How questions were put.
        folder: Gets ``scores.csv``, ``scores.md`` and ``scores.json``.
        out: Where the answers are.
    """
    benchmark = scores.benchmark
    tables = [scores.by_dataset(_note(subject, scores, ways, asking))]
    by_group = scores.by_group()
    tables += [] if by_group is None else [by_group]
    data = {
        "task": benchmark.name,
        "metrics": dict(benchmark.metrics),
        "scores": scores.means,
        "overall": {method: benchmark.overall(scores.means[method]) for method in scores.methods},
        "records": scores.counts,
        "left_out": scores.left_out,
        "prompts": benchmark.prompts,
        "trained_context": subject.shape.trained_context,
        "calibrated_on": {name: way.maps.text for name, way in ways.items() if way.maps is not None},
        "answers": str(out),
    }
    files = [folder / "scores.csv", folder / "scores.md", write_json(folder / "scores.json", data)]
    tables[0].to_csv(files[0])
    write_text(files[1], "\n".join(f"**{table.title}**\n\n{table.to_markdown()}" for table in tables))
    panels = scores.panels()
    if panels is not None:
        title = "NeedleBench, single retrieval, by length of the context and depth"
        picture = folder / "single_retrieval.png"
        files.append(needle_heatmap(*panels, picture, trained_context=subject.shape.trained_context, title=title))
    lines = [f"Every answer is in {out}; a run with out={out} goes on there."]
    return Report(f"esa-attention eval, {benchmark.name}, {subject.name}", tables, data=data, files=files, lines=lines)


def _note(subject: Subject, scores: Scores, ways: Mapping[str, Way], asking: Asking) -> str:
    c = subject.config
    cut = sum(scores.left_out.values())
    texts = sorted({way.maps.text for way in ways.values() if way.maps is not None and way.maps.text})
    return " ".join(
        (
            f"Prompts: {scores.benchmark.prompts}{', in the chat template' if asking.chat_template else ''}.",
            f"{cut} prompts lost their middle (max_prompt_tokens={asking.max_prompt_tokens})." if cut else "",
            f"Initial {c.num_initial}, selected {c.num_selected}, local {c.num_local}, chunk {c.chunk_size}, proximity "
            f"{c.proximity}, selection {c.selection}; trained context {subject.shape.trained_context}.",
            "The question is a block of its own." if asking.question == "block" else "The question is read by token.",
            f"Calibrated on {' and '.join(texts)}." if texts else "",
        )
    ).replace("  ", " ")
