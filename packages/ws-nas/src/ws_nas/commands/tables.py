"""From keys of a config to tables, genotypes and their figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effkit.arguments import input_file
from effkit.errors import UserError, written
from ws_nas.commands.build import make_space
from ws_nas.meters.tables.benchmark import TabularBenchmark
from ws_nas.meters.tables.shipped import digits_table
from ws_nas.spaces.registry import get_space
from ws_nas.spaces.space import Genotype, Space

__all__ = ["SHIPPED", "chosen_genotypes", "open_table", "space_of", "text", "whole"]

SHIPPED = "digits"


def space_of(options: Mapping[str, Any], found: Space | None = None) -> Space:
    """The space a command is about: that of a run, that of the group ``space``, or the digits chain.

    Args:
        options: The config.
        found: The run's, if there is one.

    Raises:
        UserError: If both are named and differ.
    """
    if options["space"] is None:
        return get_space("digits_chain") if found is None else found
    space = make_space(options["space"])
    if found is not None and found.space_id != space.space_id:
        raise UserError(
            f"space={space.name} ({space.space_id}) is not that of run={options['run']!r}: {found.space_id}"
        )
    return space


def open_table(field: str, value: Any, space: Space) -> TabularBenchmark:
    """The table that a key names: ``digits``, which comes with the package, or a CSV file.

    Raises:
        UserError: If there is none, or it is of another space.
    """
    if value == SHIPPED:
        table = digits_table()
        if table.space.space_id != space.space_id:
            raise UserError(f"{field}=digits is of space {table.space.space_id}, not of {space.space_id}: give a file")
        return table
    return TabularBenchmark(input_file(field, value), space)


def text(field: str, value: Any) -> str:
    """A name that a key holds.

    Raises:
        UserError: If it is no text.
    """
    if not isinstance(value, str) or not value:
        raise UserError(f"{field}={written(value)} must be the name of a column")
    return value


def whole(field: str, value: Any, least: int) -> int:
    """A whole number that a key holds.

    Raises:
        UserError: If it is none, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{field}={written(value)} must be a whole number of at least {least}")
    return value


def chosen_genotypes(table: TabularBenchmark, count: Any, seed: int) -> list[Genotype]:
    """All genotypes of a table, or some drawn at random.

    Args:
        table: The table.
        count: How many; ``None`` for all.
        seed: Of the draw.

    Raises:
        UserError: If there are not so many.
    """
    every = list(table)
    if count is None:
        return every
    if whole("count", count, 1) > len(every):
        raise UserError(f"count={count} is more than the {len(every)} architectures of the table")
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [every[i] for i in sorted(torch.randperm(len(every), generator=generator)[:count].tolist())]
