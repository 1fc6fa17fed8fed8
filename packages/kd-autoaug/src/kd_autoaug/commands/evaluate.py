"""``kd-autoaug eval``: a network on the clean test pictures of a data set."""

from __future__ import annotations

from typing import Any

from effkit.report import Report
from kd_autoaug.commands.build import build_data, build_student, set_up
from kd_autoaug.commands.trained import expected_rows, of_run

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Measure a network on the clean test pictures."""
    from effkit.lightning import evaluation_report

    cfg = of_run(cfg)
    set_up(cfg)
    data = build_data(cfg, fixed=True)
    model = build_student(cfg, data)
    lines = [] if cfg["model"].get("weights") else ["random weights: give model.weights=PATH"]
    published, evidence = expected_rows(cfg)
    return evaluation_report(
        "kd-autoaug eval", cfg, model, data,  # type: ignore[arg-type]
        name=cfg["model"]["name"], beside=published, lines=[*lines, *evidence],
    )  # fmt: skip
