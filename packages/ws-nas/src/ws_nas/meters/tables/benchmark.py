"""A table of trained networks: which figures it has, and what they are for a genotype."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effkit.errors import UserError, choose
from ws_nas.meters.tables.columns import Column, TestAccuracy, ValidationAccuracy, read_column
from ws_nas.meters.tables.reading import about_of, read_columns
from ws_nas.spaces.registry import get_space
from ws_nas.spaces.space import Genotype, Space

__all__ = ["ArchIndex", "TabularBenchmark"]

_CODES = ("ops", "arch")  # columns that hold genotypes, a digit a gene


@dataclass(frozen=True)
class ArchIndex:
    """A row of a table, with the space whose order it counts in: bare numbers of two spaces cannot be told apart.

    Attributes:
        space_id: Name and hash of the space.
        number: The table's own number of the architecture.
    """

    space_id: str
    number: int


class TabularBenchmark:
    """Figures of networks trained before, from a CSV file.

    Opening reads the heading only; codes and columns are read when they are first asked for, into one array each.

    Args:
        path: A CSV file with a column ``ops`` or ``arch`` (one digit a gene, read as text) and columns named as
            :func:`~ws_nas.meters.tables.columns.read_column` knows them.
        space: The space its codes are of, or its name.

    Raises:
        UserError: If there is no such file, it is no such table, or it says that it is of another space.

    Example:
        >>> from ws_nas.meters.tables.shipped import digits_table
        >>> table = digits_table()
        >>> len(table), table.space.name
        (81, 'digits_chain')
    """

    def __init__(self, path: str | os.PathLike[str], space: Space | str) -> None:
        self.path = Path(path).expanduser()
        self.space = get_space(space) if isinstance(space, str) else space
        if not self.path.is_file():
            raise UserError(f"table={str(path)!r} " + ("is no file" if self.path.exists() else "does not exist"))
        self.about, heading = about_of(self.path)
        names = next(csv.reader([heading]), [])
        self._code = next((name for name in _CODES if name in names), "")
        self.columns: dict[str, Column] = {n: column for n in names if (column := read_column(n)) is not None}
        if not self._code or not self.columns:
            raise UserError(
                f"table={str(path)!r} has no column ops or arch with codes beside figures: {heading[:80]!r}"
            )
        if len(set(names)) < len(names):
            raise UserError(f"table={str(path)!r} has a column twice: {', '.join(names)}")
        told = self.about.get("space_id")
        if told is not None and told != self.space.space_id:
            raise UserError(f"table={str(path)!r} is of space {told}, not of {self.space.space_id}")
        self._numbered = "index" in names
        self._codes: np.ndarray | None = None
        self._kept = np.empty(0, dtype=bool)
        self._numbers: np.ndarray | None = None
        self._rows: dict[bytes, int] = {}
        self._figures: dict[str, np.ndarray] = {}

    def _read(self) -> np.ndarray:
        """Codes ``[n, genes]`` as bytes of one digit each, checked against the space."""
        if self._codes is None:
            names = [self._code, "index"] if self._numbered else [self._code]
            texts = read_columns(self.path, names)
            genes = len(self.space.choices)
            most = np.array(self.space.choices)
            for row, code in enumerate(texts[0]):
                if len(code) != genes or not code.isascii() or not code.isdigit():
                    raise self._bad(row, code, f"{genes} digits are needed")
            codes = np.frombuffer("".join(texts[0]).encode(), np.uint8).reshape(-1, genes) - ord("0")
            if len(wrong := np.flatnonzero((codes >= most).any(1))):
                raise self._bad(int(wrong[0]), texts[0][wrong[0]], f"genes have {self.space.choices} choices")
            if len({code.tobytes() for code in codes}) < len(codes):
                raise UserError(f"table={str(self.path)!r} holds a genotype twice")
            numbers = np.array([int(t) for t in texts[1]] if self._numbered else range(len(codes)), dtype=np.int64)
            if len(np.unique(numbers)) < len(numbers):
                raise UserError(f"table={str(self.path)!r} holds an index twice")
            # A space may have fewer genotypes than its table: connected cells only.
            self._kept = np.array([self.space.is_valid(tuple(code)) for code in codes.tolist()])
            codes, numbers = codes[self._kept], numbers[self._kept]
            self._rows = {code.tobytes(): row for row, code in enumerate(codes)}
            self._numbers, self._codes = numbers, codes
        return self._codes

    def _bad(self, row: int, code: str, why: str) -> UserError:
        return UserError(
            f"table={str(self.path)!r}: {code!r} of row {row + 1} is no genotype of {self.space.name}: {why}"
        )

    def __len__(self) -> int:
        return len(self._read())

    def __iter__(self) -> Iterator[Genotype]:
        """The genotypes of the space that are in the table, in the order of the file."""
        for code in self._read():
            yield tuple(code.tolist())

    def __contains__(self, genotype: Genotype) -> bool:
        self._read()
        return bytes(genotype) in self._rows

    def at(self, index: ArchIndex) -> Genotype:
        """The genotype of the table's own index.

        Raises:
            UserError: If the index is a bare number, of another space, or not in the table.
        """
        if not isinstance(index, ArchIndex):
            raise UserError(
                f"index={index!r} must say of which space it is: ArchIndex(table.space.space_id, {index!r})"
            )
        if index.space_id != self.space.space_id:
            raise UserError(f"index {index.number} is of space {index.space_id}, this table of {self.space.space_id}")
        codes = self._read()
        assert self._numbers is not None
        found = np.flatnonzero(self._numbers == index.number)
        if not len(found):
            raise UserError(f"index={index.number} is not in table={str(self.path)!r}, which has {len(codes)} rows")
        return tuple(codes[found[0]].tolist())

    def index(self, genotype: Sequence[int]) -> ArchIndex:
        """The table's own index of a genotype.

        Raises:
            UserError: If it is none of the space, or not in the table.
        """
        row = self._row(genotype)
        assert self._numbers is not None
        return ArchIndex(self.space.space_id, int(self._numbers[row]))

    def query(self, genotype: Sequence[int] | str | ArchIndex, metric: str) -> float:
        """A figure of one network.

        Args:
            genotype: A genotype, its text, or an index of this table.
            metric: A column by its whole name: a data set alone does not say split and protocol.

        Raises:
            UserError: If the metric or the genotype is not in the table; never another one instead.
        """
        genes: Any = genotype
        if isinstance(genotype, str):
            genes = self.space.parse(genotype)
        elif isinstance(genotype, ArchIndex):
            genes = self.at(genotype)
        return float(self.values(metric)[self._row(genes)])

    def values(self, metric: str, genotypes: Sequence[Genotype] | None = None) -> np.ndarray:
        """A column.

        Args:
            metric: Its name.
            genotypes: Whose figures; all of the table, in its order, if not given.

        Returns:
            ``[n]`` float64, in the column's unit.

        Raises:
            UserError: If the metric or a genotype is not in the table.
        """
        choose("metric", metric, list(self.columns))
        self._read()
        if metric not in self._figures:
            (texts,) = read_columns(self.path, [metric])
            try:
                self._figures[metric] = np.array(texts, dtype=np.float64)[self._kept]
            except ValueError as error:
                raise UserError(f"table={str(self.path)!r}, column {metric}: {error}") from error
        found = self._figures[metric]
        return found if genotypes is None else found[[self._row(g) for g in genotypes]]

    def seeds(self, metric: str) -> list[str]:
        """The columns of single seeds of a metric: of ``c10_test`` those named ``c10_test_seed0`` and so on."""
        return [
            name for name in self.columns if name.startswith(f"{metric}_seed") and name[len(metric) + 5 :].isdigit()
        ]

    def truth(self, metric: str, genotypes: Sequence[Genotype] | None = None) -> np.ndarray:
        """Stand-alone figures, all seeds of them.

        Args:
            metric: A column, or what columns of several seeds have in common.
            genotypes: Whose; all if not given.

        Returns:
            ``[n]``, or ``[seeds, n]`` where the table has seeds.

        Raises:
            UserError: If there is no such metric.
        """
        if seeds := self.seeds(metric):
            return np.stack([self.values(name, genotypes) for name in seeds])
        choose("metric", metric, [*self.columns, *self.groups()])
        return self.values(metric, genotypes)

    def groups(self) -> list[str]:
        """What columns of several seeds have in common."""
        seeded = [c for c in self.columns.values() if isinstance(c, ValidationAccuracy | TestAccuracy)]
        return list(dict.fromkeys(c.name.rpartition("_seed")[0] for c in seeded if c.seed is not None))

    def kind(self, metric: str) -> type:
        """The type of a column, or of columns of several seeds.

        Raises:
            UserError: If there is no such metric.
        """
        return type(
            self.columns[(self.seeds(metric) or [choose("metric", metric, [*self.columns, *self.groups()])])[0]]
        )

    def _row(self, genotype: Sequence[int]) -> int:
        genes = self.space.check(genotype)
        self._read()
        row = self._rows.get(bytes(genes))
        if row is None:
            raise UserError(
                f"genotype={self.space.str(genes)} is not in table={str(self.path)!r}, which has {len(self)} rows"
            )
        return row
