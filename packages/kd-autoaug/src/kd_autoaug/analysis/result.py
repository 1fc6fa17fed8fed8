"""What an analysis found: a grid of cells, and the tables and files made of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effkit.errors import UserError, choose
from effkit.report import Table
from kd_autoaug.analysis.bootstrap import Estimate
from kd_autoaug.analysis.cell import CLEAN, POLICY, STATISTICS, Cell, Statistic, Worst, magnitude_name

__all__ = [
    "CLEAN",
    "POLICY",
    "STATISTICS",
    "AnalysisResult",
    "Cell",
    "Statistic",
    "Worst",
    "magnitude_name",
    "read_analysis",
]


@dataclass
class AnalysisResult:
    """A grid of cells.

    Attributes:
        cells: Operators in order, magnitudes ascending inside each; then the policy's row.
        clean: The same figures without any augmentation: the point of reference.
        class_names: By label.
        label_entropy: ``H(Y)`` of the pictures' labels in bits, the upper end of label information.
        settings: How it was measured (space, draws, seed, numbers of pictures ...).
    """

    cells: list[Cell]
    clean: Cell
    class_names: list[str]
    label_entropy: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def operators(self) -> list[str]:
        """Rows of the grid, without the policy's."""
        return list(dict.fromkeys(c.operator for c in self.cells if c.operator != POLICY and c.magnitude is not None))

    @property
    def magnitudes(self) -> list[float]:
        """Columns of the grid."""
        return sorted({c.magnitude for c in self.cells if c.magnitude is not None})

    @property
    def has_probe(self) -> bool:
        """Whether adapted probes were trained."""
        return "information_probe" in self.clean.estimates

    @property
    def statistics(self) -> list[str]:
        """Names of the statistics that were measured."""
        return [name for name in STATISTICS if name in self.clean.estimates]

    def row(self, operator: str) -> list[Cell]:
        """Cells of one operator by ascending magnitude.

        Raises:
            UserError: If it was not analysed.
        """
        choose("operator", operator, list(dict.fromkeys(c.operator for c in self.cells)))
        return sorted((c for c in self.cells if c.operator == operator), key=lambda c: c.magnitude or 0.0)

    def cell(self, operator: str, magnitude: float) -> Cell:
        """One cell.

        Raises:
            UserError: If it was not analysed.
        """
        row = {c.magnitude: c for c in self.row(operator)}
        if magnitude not in row:
            raise UserError(f"magnitude={magnitude!r} was not analysed for {operator}; there is {sorted(row, key=str)}")
        return row[magnitude]

    def grid(self, statistic: str, operators: Iterable[str] | None = None) -> list[list[float]]:
        """Point estimates, one list per operator, one number per magnitude."""
        choose("statistic", statistic, list(STATISTICS))
        return [[c.value(statistic) for c in self.row(o)] for o in (self.operators if operators is None else operators)]

    def table(self, statistics: Sequence[str] | None = None) -> Table:
        """The grid for people: each figure with the half-width of its interval; one row where M does not matter."""
        names = self.statistics if statistics is None else [choose("statistic", s, self.statistics) for s in statistics]
        rows: list[list[Any]] = []
        before: Cell | None = None
        for cell in (self.clean, *self.cells):
            same = before is not None and cell.estimates is before.estimates
            before = cell
            if same:
                rows[-1][1] = "any"
                continue
            magnitude = "" if cell.magnitude is None else magnitude_name(cell.magnitude)
            rows.append([cell.operator, magnitude, *(_with_interval(cell.estimates[n]) for n in names)])
        return Table("What each operator does at each magnitude", ["operator", "M", *map(_heading, names)], rows)

    def csv_table(self) -> Table:
        """Everything about every cell but pictures and classes, one row each, unrounded: the CSV."""
        columns = ["operator", "magnitude"]
        for name in self.statistics:
            columns += [name, f"{name}_low", f"{name}_high"]
        columns += ["t_stddev", "blank_share", "temperature", "calibration_error", "top1_mass", "top5_mass"]
        columns += ["information_longer"]
        rows: list[list[Any]] = []
        for cell in (self.clean, *self.cells):
            row: list[Any] = [cell.operator, cell.magnitude]
            for name in self.statistics:
                row += list(cell.estimates[name])
            error = cell.reliability.error if cell.reliability else None
            row += [
                cell.stddev,
                cell.blank,
                cell.temperature,
                error,
                cell.mass[0],
                cell.mass[min(5, len(cell.mass)) - 1],
            ]
            longer = cell.estimates.get("information_longer")
            row.append(None if longer is None else longer.value)
            rows.append(row)
        return Table("grid", columns, rows)

    def to_json(self) -> dict[str, Any]:
        """All figures, per class too, without pictures; NaN becomes ``None`` when it is written."""
        return {
            "settings": self.settings,
            "class_names": self.class_names,
            "label_entropy_bits": self.label_entropy,
            "clean": self.clean.to_json(),
            "cells": [c.to_json() for c in self.cells],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AnalysisResult:
        """The inverse of :meth:`to_json`, but for the views of the gallery, which a file does not hold.

        Raises:
            UserError: If it is something else.
        """
        try:
            cells = [Cell.from_json(c) for c in value["cells"]]
            clean = Cell.from_json(value["clean"])
            return cls(cells, clean, list(value["class_names"]), value["label_entropy_bits"], dict(value["settings"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"this is no analysis as `kd-autoaug analyze` writes it: {error!r}") from None


def read_analysis(path: str | os.PathLike[str]) -> AnalysisResult:
    """Read what ``analyze`` wrote.

    Raises:
        UserError: If there is no such file, or it holds something else.
    """
    file = Path(path).expanduser()
    file = file / "analysis.json" if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"analysis={str(path)!r} does not exist: give the analysis.json of a run, or the run's folder")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"analysis={str(path)!r} is not JSON: {error}") from error
    return AnalysisResult.from_json(value)


def _heading(name: str) -> str:
    title, unit, _ = STATISTICS[name]
    return f"{title}, {unit}" if unit else title


def _with_interval(found: Estimate) -> str:
    if math.isnan(found.value):
        return ""
    return f"{found.value:.3f} ± {found.half_width:.3f}"
