"""Speed of counting and of proposing candidates, beside a counter that runs the network."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from effkit.bench import Bench
from effkit.cli import run_dir
from effkit.report import Report
from greedy_enlarge import reference
from greedy_enlarge.commands.build import plain, read_spec
from greedy_enlarge.families import count_many, macs
from greedy_enlarge.networks.build import build
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.propose import propose
from greedy_enlarge.spec import ArchSpec

__all__ = ["population", "run"]


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


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge bench`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain(cfg)
    how = {key: options[key] for key in ("threads", "min_rounds", "min_seconds")}
    bench = Bench("greedy-enlarge", device="cpu", precision="fp32", **how)
    data: dict[str, Any] = {}
    for name in options["specs"]:
        spec = read_spec(name)
        model, arrays = build(spec, device="meta"), population(spec, options["population"])
        moves = Moves(capped=False)
        budget = round(1.155 * macs(spec))
        single = {
            "ours": partial(macs, spec),
            "counter": partial(reference.macs, model, spec.resolution, spec.in_chans),
        }
        one = bench.run(single, case=name, mode="count", x=1, title=f"{name}: one network", baseline="counter")
        many = bench.run(
            {"ours": partial(count_many, spec, *arrays)}, case=name, mode="count population",
            x=options["population"], title=f"{name}: {options['population']:,} networks", baseline="ours",
        )  # fmt: skip
        step = bench.run(
            {"ours": partial(propose, spec, budget, 0.05, moves)}, case=name, mode="propose", x=1,
            title=f"{name}: the candidates of one step", baseline="ours",
        )  # fmt: skip
        data[name] = {
            "seconds_single": one.seconds["ours"],
            "networks_per_second": options["population"] / many.seconds["ours"],
            "seconds_step": step.seconds["ours"],
        }
    folder = run_dir()
    return bench.report("greedy-enlarge bench", data, csv=options["csv"] or folder / "bench.csv", folder=folder)
