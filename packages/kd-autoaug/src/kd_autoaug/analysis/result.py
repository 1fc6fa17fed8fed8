"""What an analysis found: one cell per operator and magnitude, and the tables and files made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from effkit.errors import UserError, choose
from effkit.report import Table
from kd_autoaug.analysis.bootstrap import Estimate
from kd_autoaug.analysis.calibration import Reliability

__all__ = ["CLEAN", "POLICY", "STATISTICS", "AnalysisResult", "Cell", "Statistic", "Worst", "magnitude_name"]

CLEAN = "no augmentation"
POLICY = "policy"  # the row of all operators together


class Statistic(NamedTuple):
    """A column: its heading, its unit, and whether the frozen teacher or the adapted probe answered."""

    title: str
    unit: str
    by: str


STATISTICS: dict[str, Statistic] = {
    "confidence_drop": Statistic("confidence drop", "", "teacher"),
    "outlier_rate": Statistic("outlier rate", "", "teacher"),
    "view_kl": Statistic("view KL", "nat", "teacher"),
    "teacher_entropy": Statistic("teacher entropy", "nat", "teacher"),
    "teacher_accuracy": Statistic("teacher accuracy", "", "teacher"),
    "information_teacher": Statistic("label information, frozen teacher", "bit", "teacher"),
    "information_probe": Statistic("label information, adapted probe", "bit", "probe"),
    "probe_accuracy": Statistic("probe accuracy", "", "probe"),
}


@dataclass(frozen=True)
class Worst:
    """A view that the teacher got most wrong although it knew the picture.

    Attributes:
        picture: As it was, uint8 ``(C, H, W)``.
        view: As the teacher saw it.
        index: The picture's index.
        draw: The view's number.
        label: Its class.
        top: The teacher's five (or fewer) first answers on the view: class and probability.
    """

    picture: Tensor
    view: Tensor
    index: int
    draw: int
    label: int
    top: list[tuple[int, float]]


@dataclass
class Cell:
    """One operator (or the whole policy) at one magnitude.

    Attributes:
        operator: Its name; ``POLICY``, a policy's own name, or ``CLEAN``.
        magnitude: In the units of the space; ``None`` where there is none.
        estimates: By name in :data:`STATISTICS`; those of the probe are missing if none was trained.
        per_class: By the same names, one number per class, NaN for a class without pictures.
        mass: Mean teacher probability on its K largest classes, K = 1..C.
        stddev: T. stddev, ``None`` for too few views.
        blank: Share of the pictures' views that are one flat colour though the picture was not.
        temperature: Mean of the temperatures at which the frozen teacher's information was taken.
        reliability: Of the teacher on these views.
        worst: The views that it got most wrong, worst first.
    """

    operator: str
    magnitude: float | None
    estimates: dict[str, Estimate] = field(default_factory=dict)
    per_class: dict[str, list[float]] = field(default_factory=dict)
    mass: list[float] = field(default_factory=list)
    stddev: float | None = None
    blank: float = 0.0
    temperature: float = 1.0
    reliability: Reliability | None = None
    worst: list[Worst] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Operator and magnitude in words."""
        return self.operator if self.magnitude is None else f"{self.operator} at M={magnitude_name(self.magnitude)}"

    def value(self, statistic: str) -> float:
        """Point estimate, NaN if there is none."""
        found = self.estimates.get(statistic)
        return math.nan if found is None else found.value


def magnitude_name(magnitude: float) -> str:
    """As short as it is exact: 2 for 2.0."""
    return f"{magnitude:g}"


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
            rows.append(row)
        return Table("grid", columns, rows)

    def to_json(self) -> dict[str, Any]:
        """All figures, per class too, without pictures; NaN becomes ``None`` when it is written."""
        return {
            "settings": self.settings,
            "class_names": self.class_names,
            "label_entropy_bits": self.label_entropy,
            "clean": _cell_to_json(self.clean),
            "cells": [_cell_to_json(c) for c in self.cells],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AnalysisResult:
        """The inverse of :meth:`to_json`, but for the views of the gallery, which a file does not hold.

        Raises:
            UserError: If it is something else.
        """
        try:
            cells = [_cell_from_json(c) for c in value["cells"]]
            clean = _cell_from_json(value["clean"])
            return cls(cells, clean, list(value["class_names"]), value["label_entropy_bits"], dict(value["settings"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"this is no analysis as `kd-autoaug analyze` writes it: {error!r}") from None


def _heading(name: str) -> str:
    title, unit, _ = STATISTICS[name]
    return f"{title}, {unit}" if unit else title


def _with_interval(found: Estimate) -> str:
    if math.isnan(found.value):
        return ""
    return f"{found.value:.3f} ± {found.half_width:.3f}"


def _cell_to_json(cell: Cell) -> dict[str, Any]:
    return {
        "operator": cell.operator,
        "magnitude": cell.magnitude,
        "estimates": {k: e._asdict() for k, e in cell.estimates.items()},
        "per_class": cell.per_class,
        "teacher_mass_on_top_k": cell.mass,
        "t_stddev": cell.stddev,
        "blank_share": cell.blank,
        "temperature": cell.temperature,
        "reliability": None if cell.reliability is None else asdict(cell.reliability),
        "worst": [{"index": w.index, "draw": w.draw, "label": w.label, "top": w.top} for w in cell.worst],
    }


def _cell_from_json(value: dict[str, Any]) -> Cell:
    def number(x: float | None) -> float:
        return math.nan if x is None else x

    return Cell(
        value["operator"],
        value["magnitude"],
        {k: Estimate(*(number(e[f]) for f in Estimate._fields)) for k, e in value["estimates"].items()},
        {k: [number(x) for x in row] for k, row in value["per_class"].items()},
        list(value["teacher_mass_on_top_k"]),
        value["t_stddev"],
        value["blank_share"],
        value["temperature"],
        None if value["reliability"] is None else Reliability(**value["reliability"]),
    )
