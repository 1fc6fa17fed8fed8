"""Train every network of a small space with several seeds, and write a table that can be queried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effkit.arguments import named_path
from effkit.cli import run_dir
from effkit.device import resolve_device, set_threads
from effkit.errors import UserError, written
from effkit.outputs import check_output_file
from effkit.progress import part
from effkit.provenance import commit_hash, cpu_name, now, package_version
from effkit.report import Report, Table, write_json, write_text
from ws_nas.commands.build import make_space, plain
from ws_nas.commands.splits import make_splits, splits_name
from ws_nas.commands.standalone import make_recipe
from ws_nas.commands.tables import whole
from ws_nas.evaluation.standalone import train_standalone
from ws_nas.spaces.space import Space

__all__ = ["DONE", "run"]

DONE = "trained.json"
LARGEST = 20_000  # networks that one command may train


def _earlier(options: dict[str, Any], about: dict[str, Any]) -> dict[str, list[list[float]]]:
    """What an interrupted run has trained, if it did so in the same way."""
    if options["resume"] is None:
        return {}
    file = Path(named_path("resume", options["resume"])).expanduser() / DONE
    if not file.is_file():
        raise UserError(f"resume={options['resume']!r} holds no {DONE}: no run of build-table has trained there")
    held = json.loads(file.read_text(encoding="utf-8"))
    for key, value in about.items():
        if held["about"].get(key) != value:
            raise UserError(f"resume={options['resume']!r} has {key}={held['about'].get(key)}, not {value}")
    return held["trained"]


def _seeds(value: Any) -> list[int]:
    if not isinstance(value, list) or not value or len(set(value)) < len(value):
        raise UserError(f"seeds={written(value)} must be a list of different whole numbers")
    for seed in value:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(f"seeds: {written(seed)} must be a whole number of at least 0")
    return value


def _check(space: Space) -> None:
    if space.size() > LARGEST:
        raise UserError(
            f"space={space.name} has {space.size():,} networks, more than the {LARGEST:,} that a table may have: "
            "train some of them with ws-nas standalone"
        )
    if any(m > 10 for m in space.choices) or len(space.format(space.from_index(0))) != len(space.choices):
        raise UserError(f"space={space.name} does not write a genotype as one digit a gene, as tables need")


def run(cfg: Any) -> Report:
    """Do what ``ws-nas build-table`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit, the space is too large, or a training diverges.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    space, recipe, seeds = make_space(options["space"]), make_recipe(options), _seeds(options["seeds"])
    _check(space)
    out = check_output_file("out", options["out"], [".csv"]) if options["out"] else run_dir() / f"{space.name}.csv"
    about = {
        "space_id": space.space_id,
        "space": options["space"],
        "data": options["data"],
        "parts": options["parts"],
        "split_seed": options["split_seed"],
        "held_out": options["held_out"],
        "recipe": options["recipe"],
        "seeds": seeds,
    }
    at_once = whole("at_once", options["at_once"], 1)
    done = _earlier(options, about)
    data, device = make_splits(options, space.layout), resolve_device(options["device"])
    everything = list(space)
    missing = [g for g in everything if space.str(g) not in done]
    step = max(1, at_once // len(seeds))
    for start in range(0, len(missing), step):
        some = missing[start : start + step]
        with part("table", start / len(missing), (start + len(some)) / len(missing)):
            found = train_standalone(
                space, some, seeds, data, recipe, method=options["method"], at_once=options["at_once"], device=device
            )
        for i, genotype in enumerate(some):
            done[space.str(genotype)] = [[float(c[i, s]) for c in found[:4]] for s in range(len(seeds))]
        write_json(run_dir() / DONE, {"about": about, "trained": done})
    name = f"{splits_name(options)}_{{}}_{recipe.epochs}_seed{{}}"
    heading = ["arch", "params", "macs", *(name.format(split, s) for split in ("valid", "test") for s in seeds)]
    lines = [",".join(heading)]
    for genotype in everything:
        figures = done[space.str(genotype)]
        values = [f"{100 * row[k]:.4f}" for k in (0, 2) for row in figures]
        lines.append(",".join([space.str(genotype), *map(str, space.cost(genotype)), *values]))
    made = {"machine": cpu_name(), "commit": commit_hash(__file__), "torch": package_version("torch"), "date": now()}
    text = "# " + json.dumps({**about, **made}) + "\n" + "\n".join(lines) + "\n"
    file = write_text(out, text)
    rows = [["networks", len(everything)], ["seeds", len(seeds)], ["epochs", recipe.epochs]]
    summary = {"space": space.name, "networks": len(everything), "seeds": seeds, "table": str(file)}
    return Report("ws-nas build-table", [Table(f"Table of {space.name}", ["", ""], rows)], data=summary, files=[file])
