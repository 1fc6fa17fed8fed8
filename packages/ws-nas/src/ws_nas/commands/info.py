"""What a search space holds, and what networks of it cost."""

from __future__ import annotations

from typing import Any

from effkit.report import Report, Table
from ws_nas.commands.build import make_space, plain, read_genotypes

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``ws-nas info`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the space or a genotype is not known.
    """
    options = plain(cfg)
    space = make_space(options["space"])
    chosen = {space.format(g): g for g in read_genotypes(space, options["genotypes"])} or dict(space.named)
    costs = {name: space.cost(genotype) for name, genotype in chosen.items()}
    layout = space.layout
    facts: list[list[Any]] = [
        ["genotypes", f"{space.size():,}"],
        ["genes", len(space.choices)],
        ["pictures", f"{layout.in_channels} x {layout.resolution} x {layout.resolution}"],
        ["classes", layout.classes],
        *([key, str(value)] for key, value in space.sizes.items()),
    ]
    rows = [[name, space.format(chosen[name]), cost.params, cost.macs] for name, cost in costs.items()]
    tables = [Table(f"space {space.name}", ["", ""], facts)]
    if rows:
        tables.append(Table("Networks", ["name", "genotype", "params", "MACs"], rows))
    data = {
        "space": space.name,
        "hash": space.hash,
        "size": space.size(),
        "params": {name: cost.params for name, cost in costs.items()},
        "macs": {name: cost.macs for name, cost in costs.items()},
        "genotypes": {name: space.format(genotype) for name, genotype in chosen.items()},
    }
    return Report("ws-nas info", tables, data=data)
