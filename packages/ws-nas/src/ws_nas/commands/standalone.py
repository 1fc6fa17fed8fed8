"""Train networks of a space alone, from nothing: the ground truth that a supernet's scores are held against."""

from __future__ import annotations

from typing import Any

from effkit.arguments import check_arguments, renamed
from effkit.cli import run_dir
from effkit.device import resolve_device, set_threads
from effkit.errors import UserError, written
from effkit.report import Report, Table, write_json
from ws_nas.commands.build import make_space, plain, read_genotypes
from ws_nas.commands.splits import make_splits
from ws_nas.evaluation.standalone import Recipe, train_standalone
from ws_nas.spaces.space import Genotype, Space

__all__ = ["RESULT", "make_recipe", "run"]

RESULT = "standalone.json"


def make_recipe(options: dict[str, Any]) -> Recipe:
    """The key ``recipe`` of a config.

    Raises:
        UserError: If a value is out of range.
    """
    check_arguments(Recipe, options["recipe"], "recipe.")
    return Recipe(**options["recipe"])


def _chosen(space: Space, options: dict[str, Any]) -> list[Genotype]:
    """The networks asked for, by what is written or by number."""
    numbers = options["arch"]
    found = read_genotypes(space, options["genotypes"])
    if numbers is not None:
        with renamed({"index": "arch"}):
            found += [space.from_index(n) for n in (numbers if isinstance(numbers, list) else [numbers])]
    if not found:
        raise UserError(f"genotypes=[] and arch={written(numbers)}: name at least one network to train")
    return found


def run(cfg: Any) -> Report:
    """Do what ``ws-nas standalone`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit, or a training diverges.
    """
    options = plain(cfg)
    set_threads(options["threads"])
    space = make_space(options["space"])
    genotypes, recipe = _chosen(space, options), make_recipe(options)
    found = train_standalone(
        space,
        genotypes,
        [options["seed"]],
        make_splits(options, space.layout),
        recipe,
        method=options["method"],
        at_once=options["at_once"],
        device=resolve_device(options["device"]),
    )
    names = ["genotype", "val_accuracy", "val_loss", "test_accuracy", "test_loss", "params", "macs"]
    rows = []
    for i, genotype in enumerate(genotypes):
        figures = [float(column[i, 0]) for column in found[:4]]
        rows.append([space.str(genotype), *figures, *space.cost(genotype)])
    data = {
        "space": space.name,
        "hash": space.hash,
        "seed": options["seed"],
        "recipe": options["recipe"],
        "networks": [dict(zip(names, row, strict=True)) for row in rows],
    }
    file = write_json(run_dir() / RESULT, data)
    title = f"{len(rows)} networks of {space.name}, trained alone with seed {options['seed']}"
    return Report("ws-nas standalone", [Table(title, names, rows)], data=data, files=[file])
