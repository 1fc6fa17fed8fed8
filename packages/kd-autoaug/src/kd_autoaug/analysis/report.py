"""What ``kd-autoaug analyze`` and ``suggest`` do, over data and a teacher that are already there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.errors import UserError
from effkit.report import Report, Table, write_json
from kd_autoaug.analysis.flags import flags
from kd_autoaug.analysis.gallery import plot_gallery
from kd_autoaug.analysis.plots import plot_classes, plot_heat, plot_k, plot_reliability
from kd_autoaug.analysis.result import POLICY, AnalysisResult, Cell, magnitude_name
from kd_autoaug.analysis.subject import Subject
from kd_autoaug.analysis.suggest import suggest
from kd_autoaug.analysis.sweep import analyze

if TYPE_CHECKING:
    from kd_autoaug.policies.policy import Policy

__all__ = ["analyze_report", "measure", "read_analysis", "suggest_report"]

_HEATS = ("confidence_drop", "outlier_rate", "information_teacher", "information_probe")
LONGER = 4  # times the epochs of a probe that found little, before its cell is flagged
_CAUTION = (
    "A frozen teacher's drop mixes two things: views unlike any that it was trained on, and views that no longer show "
    "the label. Only the adapted probe, trained on such views, tells them apart."
)


def measure(
    subject: Subject,
    *,
    operators: Sequence[str] | None = None,
    magnitudes: Sequence[float],
    space: str,
    extrapolate: bool = False,
    draws: int = 4,
    seed: int = 0,
    probe: bool = False,
    probe_epochs: int = 40,
    policies: Sequence[Policy] = (),
    policy_layers: int = 2,
    batch_size: int = 256,
    resamples: int = 1000,
    level: float = 0.95,
) -> AnalysisResult:
    """Run ``analyze`` on a subject; ``operators`` of ``None`` are those of the space.

    Raises:
        UserError: As ``analyze``.
    """
    from kd_autoaug.policies.policy import Policy

    if not magnitudes:
        raise UserError("magnitudes is empty: give at least one, in the units of the space")
    if operators is None:
        operators = Policy.random(n=1, m=float(magnitudes[0]), space=space, extrapolate=extrapolate).operators()
    result = analyze(
        subject.teacher,
        subject.images,
        subject.labels,
        operators=list(operators),
        magnitudes=list(magnitudes),
        space=space,
        extrapolate=extrapolate,
        draws=draws,
        seed=seed,
        probe=subject.probe(probe_epochs, seed) if probe else None,
        confirm=subject.probe(LONGER * probe_epochs, seed) if probe else None,
        policies=policies,
        policy_layers=policy_layers,
        batch_size=batch_size,
        class_names=subject.class_names,
        index=subject.index,
        resamples=resamples,
        level=level,
    )
    result.settings |= {"data": subject.name, "teacher": subject.teacher_name}
    if probe:
        result.settings |= {"probe_epochs": probe_epochs, "probe_pictures": len(subject.train_images)}
    return result


def analyze_report(subject: Subject, folder: str | os.PathLike[str], **options: Any) -> Report:
    """Measure, and write tables, plots, ``analysis.json`` and ``grid.csv``.

    Args:
        subject: Pictures, teacher, and what a probe is made of.
        folder: Where the files go.
        **options: Of :func:`measure`.

    Returns:
        The grid, the flagged cells, and the files.

    Raises:
        UserError: As :func:`measure`.
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
    lines = [*subject.notes, _CAUTION]
    if not result.has_probe:
        lines.append("No probe was trained (probe=false), so no operator is judged by what it leaves of the label.")
    elif not found:
        lines.append("No cell is flagged: the probe still finds the label in every one.")
    tables = [table, *([lost] if found else []), _views_table(result)]
    data = {"settings": result.settings, "flags": [f._asdict() for f in found], **_without_views(result)}
    return Report("kd-autoaug analyze", tables, data=data, files=files, lines=lines)


def suggest_report(
    folder: str | os.PathLike[str],
    *,
    subject: Subject | None = None,
    analysis: str | os.PathLike[str] | None = None,
    budget: float = 0.05,
    use_upper: bool = False,
    mass: float = 0.9,
    **options: Any,
) -> Report:
    """Advise on magnitude, operators and K, from a new measurement or from the file of an earlier one.

    Args:
        folder: Where the files go.
        subject: What to measure; not needed with ``analysis``.
        analysis: ``analysis.json`` of an earlier run, or that run's folder.
        budget: Largest outlier rate to accept.
        use_upper: Require the interval's upper end to be within it.
        mass: Share of the teacher's probability that K classes have to hold.
        **options: Of :func:`measure`.

    Returns:
        The advice as tables and sentences, with ``suggestion.json`` and the plot of K(M).

    Raises:
        UserError: If there is neither a subject nor a file, the file is no analysis, or a number is out of range.
    """
    folder = Path(folder)
    notes: list[str] = []
    if analysis is not None:
        result = read_analysis(analysis)
    elif subject is not None:
        result = measure(subject, **options)
        notes = subject.notes
    else:
        raise UserError("analysis is not set: give analysis=FILE of an earlier run, or a subject to measure")
    advice = suggest(result, budget, use_upper=use_upper, mass=mass)
    files = [write_json(folder / "suggestion.json", {"settings": result.settings, **advice.to_json()})]
    if analysis is None:
        files.append(write_json(folder / "analysis.json", result.to_json()))
    files += [plot_k(advice, folder / "k.png"), plot_heat(result, "outlier_rate", folder / "outlier_rate.png")]
    if not result.has_probe:
        notes = [
            *notes,
            "No probe was trained, so 'label mostly lost' names operators only that leave one flat colour.",
        ]
    data = {"settings": result.settings, **advice.to_json()}
    return Report("kd-autoaug suggest", advice.tables(), data=data, files=files, lines=[*notes, *advice.lines()])


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
