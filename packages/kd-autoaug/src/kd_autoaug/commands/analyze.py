"""``kd-autoaug analyze``: what each operator destroys at each magnitude, as tables, plots and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from effkit.arguments import renamed
from effkit.cli import run_dir
from effkit.progress import shown
from effkit.report import Report, Table, write_json
from kd_autoaug.analysis.flags import flags
from kd_autoaug.analysis.measure import measure
from kd_autoaug.analysis.result import POLICY, AnalysisResult, Cell, magnitude_name
from kd_autoaug.analysis.subject import Subject
from kd_autoaug.analysis.suggest import suggest
from kd_autoaug.commands.subject import MEASURED, build_subject, measure_options
from kd_autoaug.plots.analysis import plot_classes, plot_heat, plot_k, plot_reliability
from kd_autoaug.plots.gallery import plot_gallery

__all__ = ["analyze_report", "run"]

_HEATS = ("confidence_drop", "outlier_rate", "information_teacher", "information_probe")
_CAUTION = (
    "A frozen teacher's drop mixes two things: views unlike any that it was trained on, and views that no longer show "
    "the label. Only the adapted probe, trained on such views, tells them apart."
)


def run(cfg: Any) -> Report:
    """``kd-autoaug analyze``.

    Args:
        cfg: Composed from ``analyze.yaml``.

    Raises:
        UserError: If a value does not fit.
    """
    options = measure_options(cfg)
    subject = build_subject(cfg)
    with shown("analyze"), renamed(MEASURED):
        return analyze_report(subject, run_dir(), **options)


def analyze_report(subject: Subject, folder: str | os.PathLike[str], **options: Any) -> Report:
    """Measure, and write tables, plots, ``analysis.json`` and ``grid.csv``.

    Args:
        subject: Pictures, teacher, and what a probe is made of.
        folder: Where the files go.
        **options: Of :func:`~kd_autoaug.analysis.measure.measure`.

    Returns:
        The grid, the flagged cells, and the files.

    Raises:
        UserError: As :func:`~kd_autoaug.analysis.measure.measure`.
    """
    result = measure(subject, **options)
    folder = Path(folder)
    files = [write_json(folder / "analysis.json", result.to_json()), folder / "grid.csv"]
    result.csv_table().to_csv(files[1])
    files += draw(result, folder)
    found = flags(result)
    lost = Table(
        "Is more than half of the label information gone?",
        ["operator", "M", "mostly gone", "why"],
        [
            [
                f.operator,
                "" if f.magnitude is None else magnitude_name(f.magnitude),
                "yes" if f.certain else "undecided",
                f.reason,
            ]
            for f in found
        ],
        "A probe's figure is a lower bound: what one network did not learn another may.",
    )
    main = ["confidence_drop", "outlier_rate", "view_kl", "teacher_entropy", "information_teacher"]
    main += ["information_probe", "probe_accuracy"] if result.has_probe else []
    percent = f"{100 * result.settings['level']:g} %"
    table = result.table(main)
    table.note = f"± is half of the {percent} interval over pictures. H(Y) = {result.label_entropy:.3f} bit."
    guessing = suggest(result).guessing
    lines = [*subject.notes, *([guessing] if guessing else []), _CAUTION]
    if not result.has_probe:
        lines.append("No probe was trained (probe=false), so no operator is judged by what it leaves of the label.")
    elif not found:
        lines.append("No cell is flagged: the probe still finds the label in every one.")
    tables = [table, *([lost] if found else []), _views_table(result)]
    data = {"settings": result.settings, "flags": [f._asdict() for f in found], **_without_views(result)}
    return Report("kd-autoaug analyze", tables, data=data, files=files, lines=lines)


def draw(result: AnalysisResult, folder: Path) -> list[Path]:
    """All plots of an analysis."""
    files = [plot_heat(result, s, folder / f"{s}.png") for s in _HEATS if s in result.statistics]
    cell = _middle(result)
    files.append(plot_classes(result, cell, "outlier_rate", folder / "classes.png"))
    files.append(plot_k(suggest(result), folder / "k.png"))
    files.append(plot_reliability(result, folder / "reliability.png"))
    if any(c.worst for c in result.cells):
        files.append(plot_gallery(result, folder / "gallery.png"))
    return files


def _middle(result: AnalysisResult) -> Cell:
    """The policy (or the first operator) at the middle magnitude, where classes differ most visibly."""
    row = result.row(POLICY if any(c.operator == POLICY for c in result.cells) else result.cells[0].operator)
    return row[len(row) // 2]


def _views_table(result: AnalysisResult) -> Table:
    """What does not come with an interval: T. stddev, blank views, calibration, mass on the first classes."""
    columns = [
        "operator",
        "M",
        "T. stddev",
        "blank views",
        "temperature",
        "calibration error",
        "top-1 mass",
        "top-5",
    ]
    rows: list[list[Any]] = []
    for cell in (result.clean, *(c for c in result.cells if c.operator == POLICY or c.magnitude is None)):
        error = cell.reliability.error if cell.reliability else None
        magnitude = "" if cell.magnitude is None else magnitude_name(cell.magnitude)
        stddev = None if cell.stddev is None else round(cell.stddev, 5)
        figures = [cell.blank, cell.temperature, error, cell.mass[0], cell.mass[min(5, len(cell.mass)) - 1]]
        rows.append([cell.operator, magnitude, stddev, *(None if f is None else round(f, 4) for f in figures)])
    note = "T. stddev (Wang et al. 2022): lower suits distillation better. Other operators: grid.csv."
    return Table("The teacher on whole policies", columns, rows, note)


def _without_views(result: AnalysisResult) -> dict[str, Any]:
    value = result.to_json()
    value.pop("settings")
    return value
