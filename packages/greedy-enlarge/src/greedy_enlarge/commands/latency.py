"""Measuring the latencies of a network's parts on this machine, for a maximum beside the MACs budget."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from effkit.cli import run_dir
from effkit.device import resolve_device
from effkit.outputs import check_output_file
from effkit.progress import report_progress, shown
from effkit.provenance import commit_hash, cpu_name, now
from effkit.report import Report, Table
from effkit.report.files import write_text
from effkit.timing import compare
from greedy_enlarge.commands.build import make_moves, plain, read_spec
from greedy_enlarge.commands.fresh import whole
from greedy_enlarge.families import macs
from greedy_enlarge.networks.build import build
from greedy_enlarge.networks.parts import block_inputs, stage_blocks
from greedy_enlarge.search.latency import LatencyTable, grid_points
from greedy_enlarge.spec import ArchSpec

__all__ = ["measure_parts", "measure_table", "run"]


@torch.no_grad()
def measure_parts(spec: ArchSpec, how: Mapping[str, Any], batch: int) -> dict[str, float]:
    """Seconds of a network and of the first two blocks of each stage, timed in turns.

    Args:
        spec: The network.
        how: Arguments of :func:`effkit.timing.compare`.
        batch: Pictures at once.

    Returns:
        ``whole``, ``0.0`` for the first block of the first stage, ``0.1`` for its second, ...
    """
    device = how["device"]
    model = build(spec).eval().to(device)
    picture = torch.randn(batch, spec.in_chans, spec.resolution, spec.resolution, device=device)
    calls = {"whole": partial(model, picture)}
    for i, (blocks, inputs) in enumerate(zip(stage_blocks(model), block_inputs(model, picture), strict=True)):
        for j, (block, given) in enumerate(zip(blocks[:2], inputs[:2], strict=True)):
            calls[f"{i}.{j}"] = partial(block, given)
    return {name: t.median for name, t in compare(calls, memory=False, **how).timings.items()}


def measure_table(
    spec: ArchSpec, widths: Sequence[Sequence[int]], sides: Sequence[int], how: Mapping[str, Any], batch: int
) -> tuple[list[Any], list[Any], Any]:
    """Every part at every point, from as few networks as hold them all.

    Stages take turns between two points, so that each pair of neighbouring widths stands in one network.

    Args:
        spec: What the networks share.
        widths: Of each stage.
        sides: Of the picture.
        how: Arguments of :func:`effkit.timing.compare`.
        batch: Pictures at once.

    Returns:
        Seconds as in :class:`~greedy_enlarge.search.latency.LatencyTable`: first, further, ends.
    """
    most, stages = max(map(len, widths)), spec.stages
    found: dict[tuple[Any, ...], list[float]] = {}
    points = list(itertools.product(range(most), range(most), range(len(sides))))
    for number, (a, b, r) in enumerate(points):
        at = [min((a, b)[i % 2], len(widths[i]) - 1) for i in range(stages)]
        net = spec.replace(
            depths=(2,) * stages, widths=tuple(widths[i][k] for i, k in enumerate(at)), resolution=sides[r]
        )
        report_progress(f"network {number + 1} of {len(points)}", number / len(points))
        times = measure_parts(net, how, batch)
        inside = 0.0
        for i in range(stages):
            before = at[i - 1] if i else 0
            found.setdefault(("first", i, before, at[i], r), []).append(times[f"{i}.0"])
            found.setdefault(("further", i, at[i], r), []).append(times[f"{i}.1"])
            inside += times[f"{i}.0"] + times[f"{i}.1"]
        found.setdefault(("ends", at[-1], r), []).append(max(0.0, times["whole"] - inside))
    shapes = [(len(widths[i - 1]) if i else 1, len(widths[i]), len(sides)) for i in range(stages)]
    first, further = [np.zeros(s) for s in shapes], [np.zeros(s[1:]) for s in shapes]
    ends = np.zeros(shapes[-1][1:])
    for key, seconds in found.items():
        value = float(np.median(seconds))
        if key[0] == "first":
            first[key[1]][key[2:]] = value
        elif key[0] == "further":
            further[key[1]][key[2:]] = value
        else:
            ends[key[1:]] = value
    return first, further, ends


def _between(spec: ArchSpec, widths: Sequence[Sequence[int]], sides: Sequence[int], step: int) -> list[ArchSpec]:
    """Networks to hold predictions against: the start, the largest, and two between measured points."""
    middle = [w[0] + (w[-1] - w[0]) // (3 * step) * step for w in widths]
    upper = [w[0] + 2 * (w[-1] - w[0]) // (3 * step) * step for w in widths]
    largest = spec.replace(widths=tuple(w[-1] for w in widths), resolution=sides[-1])
    return [
        spec,
        spec.replace(widths=tuple(middle), depths=tuple(d + 2 for d in spec.depths), resolution=sides[len(sides) // 2]),
        spec.replace(widths=tuple(upper), depths=(3, *spec.depths[1:])),
        largest.replace(depths=tuple(d + 1 for d in spec.depths)),
    ]


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge latency`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain(cfg)
    spec = read_spec(options["spec"])
    moves = make_moves(options["moves"], spec)
    moves.check(spec)
    batch = whole("batch", options["batch"], 1)
    widths, sides = grid_points(spec, moves, whole("points", options["points"], 2))
    out = check_output_file("out", options["out"], [".json"]) if options["out"] else run_dir() / "latency.json"
    how = {key: options[key] for key in ("threads", "min_rounds", "min_seconds")}
    how["device"] = resolve_device(options["device"])
    with shown("latency"):
        first, further, ends = measure_table(spec, widths, sides, how, batch)
        table = LatencyTable({}, spec, widths, sides, first, further, ends)
        rows: list[list[Any]] = []
        for net in _between(spec, widths, sides, moves.width_step_of(spec)):
            measured, predicted = measure_parts(net, how, batch)["whole"], table.seconds(net)
            sizes = [str(list(net.depths)), str(list(net.widths)), net.resolution, macs(net)]
            rows.append([*sizes, 1e3 * measured, 1e3 * predicted, round(100 * (predicted / measured - 1), 1)])
    about = {
        "machine": cpu_name() if how["device"].type == "cpu" else torch.cuda.get_device_name(how["device"]),
        "device": str(how["device"]), "threads": options["threads"] or torch.get_num_threads(), "batch": batch,
        "torch": torch.__version__, "date": now(), "commit": commit_hash(__file__),
        "off_by_percent": [row[-1] for row in rows],
    }  # fmt: skip
    file = write_text(out, LatencyTable(about, spec, widths, sides, first, further, ends).to_json())
    columns = ["depths", "widths", "side", "MACs", "measured, ms", "from the table, ms", "off by %"]
    note = f"{about['machine']}, {about['threads']} thread(s), {batch} picture(s) at once."
    table_of_checks = Table("Whole networks beside the sum of their parts", columns, rows, note)
    return Report("greedy-enlarge latency", [table_of_checks], data={"about": about}, files=[file])
