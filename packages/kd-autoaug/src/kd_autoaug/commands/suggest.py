"""``kd-autoaug suggest``: advice on magnitude, operators and K, from a new measurement or that of an earlier run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments, named_path, renamed
from effkit.cli import run_dir
from effkit.errors import UserError
from effkit.lightning.optim import plain_options
from effkit.progress import shown
from effkit.report import Report, write_json
from kd_autoaug.analysis.measure import measure
from kd_autoaug.analysis.result import read_analysis
from kd_autoaug.analysis.subject import Subject
from kd_autoaug.analysis.suggest import check_advice, suggest
from kd_autoaug.commands.subject import MEASURED, build_subject, measure_options
from kd_autoaug.plots.analysis import plot_heat, plot_k

__all__ = ["run", "suggest_report"]


def run(cfg: Any) -> Report:
    """``kd-autoaug suggest``; measures nothing if ``analysis`` names an earlier run.

    Args:
        cfg: Composed from ``suggest.yaml``.

    Raises:
        UserError: If a value does not fit.
    """
    advice = {k: v for k, v in plain_options(cfg).items() if k in ("budget", "use_upper", "mass")}
    check_arguments(suggest_report, advice)
    check_advice(advice["budget"], advice["mass"])
    if cfg.get("analysis") is not None:
        return suggest_report(run_dir(), analysis=named_path("analysis", cfg["analysis"]), **advice)
    options = measure_options(cfg)
    subject = build_subject(cfg)
    with shown("suggest"), renamed(MEASURED):
        return suggest_report(run_dir(), subject=subject, **advice, **options)


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
        **options: Of :func:`~kd_autoaug.analysis.measure.measure`.

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
