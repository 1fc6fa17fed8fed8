"""One operator (or policy) at one magnitude: its figures with intervals, class by class, and its worst views."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from kd_autoaug.analysis.bootstrap import Estimate
from kd_autoaug.analysis.calibration import Reliability

__all__ = ["CLEAN", "POLICY", "STATISTICS", "Cell", "Statistic", "Worst", "magnitude_name"]

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

    def to_json(self) -> dict[str, Any]:
        """All figures as plain values, without pictures."""
        return {
            "operator": self.operator,
            "magnitude": self.magnitude,
            "estimates": {k: e._asdict() for k, e in self.estimates.items()},
            "per_class": self.per_class,
            "teacher_mass_on_top_k": self.mass,
            "t_stddev": self.stddev,
            "blank_share": self.blank,
            "temperature": self.temperature,
            "reliability": None if self.reliability is None else asdict(self.reliability),
            "worst": [{"index": w.index, "draw": w.draw, "label": w.label, "top": w.top} for w in self.worst],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Cell:
        """The inverse of :meth:`to_json`, but for the views that it leaves out."""

        def number(x: float | None) -> float:
            return math.nan if x is None else x

        return cls(
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


def magnitude_name(magnitude: float) -> str:
    """As short as it is exact: 2 for 2.0."""
    return f"{magnitude:g}"
