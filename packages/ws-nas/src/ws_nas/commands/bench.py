"""Speed of scoring and of training many networks at once, beside one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effkit.bench import Bench
from effkit.cli import run_dir
from effkit.device import resolve_device
from effkit.errors import UserError, choose, written
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from ws_nas.commands.bench_search import recomputing, second_order
from ws_nas.commands.build import plain
from ws_nas.evaluation.scoring import Scores, score
from ws_nas.evaluation.splits import Splits, digits_splits
from ws_nas.evaluation.standalone import Recipe, train_standalone
from ws_nas.spaces.registry import get_space
from ws_nas.spaces.space import Space

__all__ = ["CASES", "run"]

CASES = ("batched", "prefix", "stacked", "second_order", "recompute")
_TOLERANCE = 1e-5  # of losses of a fast way against those of the loop
_LEARNT = 2e-3  # after an epoch of training in float32


def _count(field: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{field}={written(value)} must be a whole number of at least {least}")
    return value


def _scoring(bench: Bench, space: Space, how: str, count: int, pictures: int, device: torch.device) -> dict[str, Any]:
    """A fast way to score beside the loop: half of the pictures re-estimate statistics, half are scored on."""
    if count > space.size():
        raise UserError(f"networks={count} is more than the {space.size()} of space={space.name}")
    torch.manual_seed(0)
    supernet = space.supernet().to(device)
    layout = space.layout
    if layout.in_channels == 1:
        x, y = digits_splits().train
        x, y = x[:pictures], y[:pictures]
    else:
        x = torch.randn(pictures, layout.in_channels, layout.resolution, layout.resolution)
        y = torch.randint(layout.classes, (pictures,))
    half = len(x) // 2
    batches = [(x[:half].to(device), y[:half].to(device))]
    calibration = [x[half:].to(device)]
    genotypes = space.sample_many(count, 0)
    found: dict[str, Scores] = {}

    def way(method: str) -> Callable[[], Tensor]:
        def once() -> Tensor:
            found[method] = score(supernet, genotypes, batches, calibration, method=method)
            return found[method].loss

        return once

    measured = bench.run(
        {"loop": way("loop"), how: way(how)}, case=space.name, mode=f"score {how}", x=count, baseline="loop", warmup=1,
        title=f"{space.name}: {count} sub-networks scored on {half} pictures", note="x is sub-networks",
    )  # fmt: skip
    gap = float((found[how].loss - found["loop"].loss).abs().max())
    if gap > _TOLERANCE:
        raise AssertionError(f"{how} differs from the loop by {gap}")
    return {"speedup": measured.ratios[how], "largest_difference": gap, "networks": count, "seconds": measured.seconds}


def _training(bench: Bench, space: Space, count: int, pictures: int, device: torch.device) -> dict[str, Any]:
    """Stand-alone networks trained at once, beside one after another: one epoch."""
    x, y = digits_splits().train
    part = (x[:pictures], y[:pictures])
    data, recipe = Splits(part, part, part), Recipe(epochs=1, lr=0.01)
    genotypes = space.sample_many(count, 0)
    found: dict[str, Tensor] = {}

    def way(method: str) -> Callable[[], Tensor]:
        def once() -> Tensor:
            got = train_standalone(space, genotypes, [0], data, recipe, method=method, at_once=count, device=device)
            found[method] = got.val_loss
            return found[method]

        return once

    measured = bench.run(
        {"sequential": way("sequential"), "stacked": way("stacked")}, case=space.name, mode="train", x=count,
        baseline="sequential", warmup=1, title=f"{space.name}: {count} networks trained for an epoch",
        note="x is networks",
    )  # fmt: skip
    gap = float((found["stacked"] - found["sequential"]).abs().max())
    if gap > _LEARNT:
        raise AssertionError(f"stacked differs from sequential by {gap}")
    return {
        "speedup": measured.ratios["stacked"],
        "largest_difference": gap,
        "networks": count,
        "seconds": measured.seconds,
    }


def run(cfg: Any) -> Report:
    """Do what ``ws-nas bench`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain(cfg)
    how = {key: options[key] for key in ("threads", "min_rounds", "min_seconds")}
    if not isinstance(options["cases"], list) or not options["cases"]:
        raise UserError(f"cases={written(options['cases'])} must be a list of {', '.join(CASES)}")
    for case in options["cases"]:
        choose("cases", case, CASES)
    pictures, trained = _count("pictures", options["pictures"], 8), _count("trained", options["trained"], 2)
    cells, chains = _count("cells", options["cells"], 2), _count("chains", options["chains"], 2)
    wanted = check_output_file("csv", options["csv"], [".csv"], appends=True) if options["csv"] else None
    device = resolve_device(options["device"])
    bench = Bench("ws-nas", device=device, precision="fp32", memory=False, **how)
    data: dict[str, Any] = {}
    if "batched" in options["cases"]:
        space = get_space(choose("cell_space", options["cell_space"], ["nb201_tiny", "nas_bench_201"]))
        data["batched"] = _scoring(bench, space, "batched", cells, pictures, device)
    if "prefix" in options["cases"]:
        space = get_space(choose("chain_space", options["chain_space"], ["digits_chain", "nas_bench_macro"]))
        data["prefix"] = _scoring(bench, space, "prefix", chains, pictures, device)
    if "stacked" in options["cases"]:
        data["stacked"] = _training(bench, get_space("digits_chain"), trained, max(64, pictures), device)
    if "second_order" in options["cases"]:
        data["second_order"] = second_order(bench, _count("batch", options["batch"], 2), device)
    if "recompute" in options["cases"]:
        data["recompute"] = recomputing(bench, _count("batch", options["batch"], 2), device)
    folder = run_dir()
    report = bench.report("ws-nas bench", data, csv=wanted or folder / "bench.csv", folder=folder)
    if "recompute" in data:
        found = data["recompute"]
        rows = [[name, size if size is None else size / 2**20] for name, size in found["bytes"].items()]
        title = f"darts: peak memory of a forward and backward pass, {found['pictures']} pictures"
        share = "" if found["share"] is None else f"Recomputing an edge's operations takes {found['share']:.2f} of it."
        report.tables.append(Table(title, ["activations", "peak MiB"], rows, share))
    return report
