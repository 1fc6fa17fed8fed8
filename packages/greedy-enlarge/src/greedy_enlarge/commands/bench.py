"""Speed of counting, of proposing candidates, of the search around its evaluations, and of two workers beside one."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from effkit.bench import Bench
from effkit.cli import run_dir
from effkit.executors import Choice
from effkit.outputs import check_output_file
from effkit.report import Report
from greedy_enlarge import reference
from greedy_enlarge.commands.build import plain, read_spec
from greedy_enlarge.commands.fresh import whole
from greedy_enlarge.families import base, count_many, macs
from greedy_enlarge.networks.build import build
from greedy_enlarge.search.evaluators import Synthetic
from greedy_enlarge.search.greedy import Settings, search
from greedy_enlarge.search.journal import Journal
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.propose import propose
from greedy_enlarge.spec import ArchSpec
from greedy_enlarge.training.proxy import ProxyTrain

__all__ = ["population", "run"]

BUDGET, MOVES = 280_000, Moves(width_step=4)


def population(spec: ArchSpec, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Networks around a network: depths ``(N, S)``, widths ``(N, S)``, resolutions ``(N,)``; always the same.

    Args:
        spec: The smallest of them.
        number: How many.
    """
    draw = np.random.default_rng(0)
    depths = np.array(spec.depths) + draw.integers(0, 5, (number, spec.stages))
    widths = np.array(spec.widths) + 8 * draw.integers(0, 5, (number, spec.stages))
    return depths, widths, spec.resolution + 8 * draw.integers(0, 9, number)


def _counting(bench: Bench, name: str, number: int) -> dict[str, float]:
    """Counting and proposing for one network."""
    spec = read_spec(name)
    model, arrays = build(spec, device="meta"), population(spec, number)
    budget = round(1.155 * macs(spec))
    single = {"ours": partial(macs, spec), "counter": partial(reference.macs, model, spec.resolution, spec.in_chans)}
    one = bench.run(single, case=name, mode="count", x=1, title=f"{name}: one network", baseline="counter")
    many = bench.run(
        {"ours": partial(count_many, spec, *arrays)}, case=name, mode="count population", x=number,
        title=f"{name}: {number:,} networks", baseline="ours",
    )  # fmt: skip
    step = bench.run(
        {"ours": partial(propose, spec, budget, 0.05, Moves(capped=False))}, case=name, mode="propose", x=1,
        title=f"{name}: the candidates of one step", baseline="ours",
    )  # fmt: skip
    return {
        "seconds_single": one.seconds["ours"],
        "networks_per_second": number / many.seconds["ours"],
        "seconds_step": step.seconds["ours"],
    }


def _controller(bench: Bench, folder: Path) -> dict[str, float]:
    """All that a search does around its evaluations, the journal on disk included."""
    settings = Settings(steps=3, delta=0.1, delta_final=0.1, moves=MOVES)
    numbers = itertools.count()

    def once() -> int:
        with Journal.open(folder / str(next(numbers)), {"bench": 1}) as journal:
            return search(base("tiny"), BUDGET, Synthetic(), settings, journal=journal).evaluated

    candidates = once()
    found = bench.run(
        {"ours": once}, case="tiny", mode="search", x=candidates, baseline="ours",
        title=f"tiny: a search of {candidates} candidates that cost nothing, with its journal",
        note="a whole search; x is its candidates",
    )  # fmt: skip
    return {"candidates": candidates, "seconds_per_candidate": found.seconds["ours"] / candidates}


def _workers(bench: Bench, workers: int, folder: Path) -> dict[str, Any]:
    """The same search by proxy training on one worker process and on several."""
    spec = base("tiny", resolution=16)
    data = {"name": "textures", "limit": 850, "batch_size": 64}
    evaluator = ProxyTrain.for_search(spec, folder=str(folder), data=data, epochs=1, inherits=False, threads=1)
    settings = Settings(steps=1, delta=0.1, delta_final=0.1, moves=MOVES, repeats=4)
    decisions: dict[str, tuple[str, ...]] = {}
    trained: list[int] = []
    calls: dict[str, Callable[[], Any]] = {}
    with contextlib.ExitStack() as stack:
        for number in (1, workers):
            pool = stack.enter_context(Choice("process", workers=number).open(threads_each=1))

            def once(name: str = f"{number} worker{'s' * (number > 1)}", pool: Any = pool) -> None:
                budget = round(1.3 * macs(spec))
                found = search(spec, budget, evaluator, settings, executor=pool)
                decisions[name] = found.decisions
                trained.append(found.evaluated)

            calls[f"{number} worker{'s' * (number > 1)}"] = once
        found = bench.run(
            calls, case="tiny on textures", mode="workers", x=workers, baseline="1 worker", warmup=1,
            title="one step of a search by proxy training, processes of one thread", note="x is workers",
        )  # fmt: skip
    return {
        "speedup": found.ratios[f"{workers} workers"],
        "same_decisions": len(set(decisions.values())) == 1,
        "trainings": min(trained),
        "seconds": found.seconds,
    }


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge bench`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain(cfg)
    how = {key: options[key] for key in ("threads", "min_rounds", "min_seconds")}
    number = whole("population", options["population"], 1)
    csv = check_output_file("csv", options["csv"], [".csv"], appends=True) if options["csv"] else None
    if options["workers"] is not None:
        whole("workers", options["workers"], 2)
    bench = Bench("greedy-enlarge", device="cpu", precision="fp32", memory=False, **how)
    data: dict[str, Any] = {name: _counting(bench, name, number) for name in options["specs"]}
    with tempfile.TemporaryDirectory() as temporary:
        data["search"] = _controller(bench, Path(temporary) / "journals")
        if options["workers"] is not None:
            data["workers"] = _workers(bench, options["workers"], Path(temporary) / "states")
    folder = run_dir()
    return bench.report("greedy-enlarge bench", data, csv=csv or folder / "bench.csv", folder=folder)
