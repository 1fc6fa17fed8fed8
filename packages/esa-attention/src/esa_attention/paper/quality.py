"""Rows of answers: Tables 5 to 9, Figure 2, Counting-Stars.

They need the weights of a model of 7 or 8 billion parameters and a benchmark's files, which are no part of this
package; each says so and names the command that reads them, or comes closest. What can be checked without them is
checked: that printed averages are those of the printed rows. Such a check says nothing about a model, and its metric is
called "average of the printed rows". Tables 1 to 4 are not legible in our copy of the paper: a row for each says so,
nothing is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from effkit.rows import Row, Tolerance
from esa_attention.paper import figures as paper

__all__ = ["figure_rows", "longbench_rows", "needlebench_rows", "star_rows", "unreadable_rows"]

NAMES = {"llama3_8b": "Llama-3-8B-Instruct", "mistral_7b": "Mistral-7B-Instruct-v0.2"}
NOT_PART = "which are not part of this package"
NEEDS_LONGBENCH = f"needs the weights and LongBench's files, {NOT_PART}; the command reads and scores them"
NEEDS_LARGEST = f"needs the weights and LongBench, {NOT_PART}; ESA sums over heads, and so does every command"
NEEDS_RETRIEVE_KV = (
    f"needs the weights and InfiniteBench's kv_retrieval.jsonl, {NOT_PART}; the command reads and scores it"
)
NEEDS_NEEDLEBENCH = (
    f"needs the weights and NeedleBench's files, {NOT_PART}; the command reads and scores them, with prompts of ours; "
    "which of its tasks are in the figure is not legible in our copy"
)
NEEDS_STARS = (
    "a setting, whose results are not legible in our copy; needs the weights and the benchmark's essays, "
    f"{NOT_PART}; the command scatters as many stars over another text"
)
NEEDS_BOOKS3 = (
    "needs the weights; Books3 may not be distributed: the command reads another text, and its recall is another figure"
)
UNNAMED = (
    "needs the weights, a benchmark that our notes do not name, and 5 middle tokens, which our baseline does not read"
)
UNREADABLE = "not readable in our copy; copy by hand from the PDF"
CHECK = "average of the printed rows"
# What `calibrate` wrote, and the user's own text, in commands.
MAPS, PROMPT, ONLY = "compressor.path=PATH", "prompt_file=PATH", "methods=[esa]"
LONGBENCH_FILES = dict(
    zip(
        paper.LONGBENCH,
        (
            *("narrativeqa", "qasper", "multifieldqa_en", "musique", "hotpotqa", "2wikimqa", "gov_report", "qmsum"),
            *("multi_news", "trec", "triviaqa", "samsum", "passage_retrieval_en", "passage_count", "lcc"),
            "repobench-p",
        ),
        strict=True,
    )
)


def _row(table: str, name: str, metric: str, figure: float | None, reason: str, **more: Any) -> Row:
    defaults: dict[str, Any] = {"unit": "%", "source": f"Table {table}", "evidence": "printed"}
    return Row(table=table, name=name, metric=metric, paper=figure, not_measured=reason, **{**defaults, **more})


def _average(table: str, name: str, figure: float, values: Sequence[float], decimals: int, **more: Any) -> Row:
    """A printed average against the printed rows."""
    defaults: dict[str, Any] = {"unit": "%", "source": f"Table {table}", "evidence": "printed", "metric": CHECK}
    checked = {"compute": lambda: fmean(values), "tolerance": Tolerance("rounds_to", decimals=decimals)}
    return Row(table=table, name=name, paper=figure, **{**defaults, **checked, **more})


def _command(command: str, model: str, *words: str) -> dict[str, str]:
    """A command of ours in which the weights are still to be named."""
    return {"command": " ".join([f"esa-attention {command} model={model} model.path=PATH", *words])}


def _lengths(numbers: Sequence[int]) -> str:
    return f"lengths=[{','.join(map(str, numbers))}]"


def _benchmark(model: str, task: str, datasets: Sequence[str], *words: str) -> dict[str, str]:
    """The command that answers a benchmark of the user's folder."""
    named = [f"task.datasets=[{','.join(datasets)}]"] if datasets else []
    return _command("eval", model, f"task={task}", "task.folder=PATH", *named, ONLY, *words)


def unreadable_rows() -> list[Row]:
    """Tables 1 to 4, one row each."""
    return [_row(table, "all of it", "figures", None, UNREADABLE, unit="") for table in paper.UNREADABLE]


def needlebench_rows() -> list[Row]:
    """Proximity (Table 5) and NeedleBench by length (Table 7), both of Mistral."""
    rows: list[Row] = []
    for eps, percent in paper.PROXIMITY_RETRIEVE_KV.items():
        how = _benchmark("mistral_7b", "infinitebench", ["kv_retrieval"], MAPS, f"esa.proximity={eps}")
        rows.append(_row("5", f"proximity {eps}", "Retrieve.KV", percent, NEEDS_RETRIEVE_KV, **how))
    lengths = [1000 * thousands for thousands in paper.NEEDLEBENCH]
    for eps, average in paper.PROXIMITY_NEEDLEBENCH.items():
        how = _benchmark(
            "mistral_7b", "needlebench", [], f"task.options.{_lengths(lengths)}", MAPS, f"esa.proximity={eps}"
        )
        reason = UNREADABLE if average is None else NEEDS_NEEDLEBENCH
        rows.append(_row("5", f"proximity {eps}", "NeedleBench, average", average, reason, **how))
    scores, total = list(paper.NEEDLEBENCH.values()), paper.NEEDLEBENCH_AVERAGE
    # The main setting is stated nowhere; that both tables have the same average is why we take 3.
    rows.append(_average("5", "proximity 3", total, scores, 0, metric="NeedleBench, average of Table 7's rows"))
    for thousands, score in paper.NEEDLEBENCH.items():
        at = f"task.options.{_lengths([1000 * thousands])}"
        how = _benchmark("mistral_7b", "needlebench", [], at, MAPS, "esa.proximity=3")
        rows.append(_row("7", f"{thousands}k tokens", "score", score, NEEDS_NEEDLEBENCH, **how))
    return [*rows, _average("7", "all lengths", total, scores, 0)]


def longbench_rows() -> list[Row]:
    """LongBench: Tables 6 and 8, the cost of compression, LM-Infinite with middle tokens (Table 9)."""
    rows: list[Row] = []
    both = {"source": "Tables 6 and 8, which our notes give as one list"}
    most = "max_prompt_tokens=32000"  # "at 32k": the number itself is not legible in our copy
    for i, kind in enumerate(("individual (largest over heads)", "uniform (sum over heads)")):
        for name, scores in paper.LONGBENCH.items():
            file = LONGBENCH_FILES[name]
            how = _benchmark("llama3_8b", "longbench", [file], "compressor=exact", most) if i else {}
            rows.append(_row("6", name, kind, scores[i], NEEDS_LONGBENCH if i else NEEDS_LARGEST, **both, **how))
        values, average = [scores[i] for scores in paper.LONGBENCH.values()], paper.LONGBENCH_AVERAGES[i]
        rows.append(_average("6", "all 16 sets", average, values, 2, metric=f"{kind}: {CHECK}", **both))
    difference, gap = paper.COMPRESSION_COST, paper.GAP_TO_FULL
    every = _benchmark("llama3_8b", "longbench", list(LONGBENCH_FILES.values()), MAPS, most)
    text = {"source": "section 4, text", "unit": "points", **every}
    inferred = {
        "metric": f"uniform: {CHECK}, less what compression costs",
        "source": "inferred from 44.83 and 0.39; our copy reads 44.1",
        "evidence": "unverified",
    }
    less = [scores[1] - difference for scores in paper.LONGBENCH.values()]
    rows += [
        _row("6", "all 16 sets", "what compression costs", difference, NEEDS_LONGBENCH, **text),
        _row("6", "all 16 sets", "behind the best full attention, less than", gap, NEEDS_LONGBENCH, **text),
        _average("6", "all 16 sets, compressed", paper.LLAMA_LONGBENCH_COMPRESSED, less, 2, **inferred),
    ]
    reason = "our notes give the figures of Tables 6 and 8 as one list: they all stand under table 6"
    rows.append(_row("8", "all of it", "figures", None, reason, unit="", command="esa-attention reproduce table=6"))
    for model, figure in paper.LM_INFINITE.items():
        how = _command("generate", model, "method=sinks_local", PROMPT)
        rows.append(_row("9", f"LM-Infinite, {NAMES[model]}", "average", figure, UNNAMED, **how))
    return rows


def figure_rows() -> list[Row]:
    """Recall of the compressed choice (Figure 2): read off a plot and its text, so a bound and no figure."""
    # 2,000 tokens at 23,000-25,000 choose among those before them; the paper's maps are trained by gradient descent.
    words = "k=2048", "num_queries=2000", "length=25000", "text=PATH"
    rows = []
    for name, method, metric in (
        ("ESA", "sgd_paper", "recall in most layers, above"),
        ("key PCA", "key_pca", "recall in about half of the layers, below"),
    ):
        how = _command("recall", "mistral_7b", f"methods=[{method}]", *words)
        rows.append(_row("fig2", name, metric, paper.RECALL, NEEDS_BOOKS3, source="Figure 2 and its text", **how))
    return rows


def star_rows() -> list[Row]:
    """Settings of Counting-Stars, and the longest input on one GPU."""
    rows: list[Row] = []
    for length, samples, stars, legible in paper.COUNTING_STARS:
        words = _lengths([1000 * length]), f"task.options.num_stars={stars}", f"samples={samples}"
        how = {"unit": "", **_command("counting-stars", "mistral_7b", MAPS, ONLY, *words)}
        how |= {"source": "section 4"} if legible else {"source": "section 4, not clear", "evidence": "unverified"}
        metric, name = "stars", f"{length}k tokens, {samples} samples"
        rows.append(_row("counting-stars", name, metric, stars, NEEDS_STARS, **how))
    how = {
        "unit": "",
        "source": 'section 4; our copy reads "7000+", most likely cut short',
        "evidence": "unverified",
        **_command("generate", "llama3_8b", MAPS, "cache=offload", PROMPT),
    }
    name, reason = "keys and values in host memory", "needs the weights and an A800 with 80 GB"
    return [*rows, _row("settings", name, "tokens, more than", paper.OFFLOADED, reason, **how)]
