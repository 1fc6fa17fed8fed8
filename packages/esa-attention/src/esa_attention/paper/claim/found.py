"""What both experiments of the claim need: a list of judged figures, a subject, shares of the time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from effkit.cli import compose
from effkit.rows import Kind, Outcome, Row, Tolerance
from esa_attention.commands.build import build_subject, plain
from esa_attention.commands.subject import Subject

__all__ = ["SHARES", "Found", "claim_subject"]

SHARES = {"needles": 0.55, "training": 0.3, "text": 0.15}  # of the time, for the progress bar


@dataclass
class Found:
    """Rows as they are found."""

    rows: list[Outcome] = field(default_factory=list)

    def add(
        self,
        name: str,
        metric: str,
        ours: float,
        figure: float | None,
        unit: str = "",
        kind: Kind = "at_least",
        source: str = "our claim",
        seconds: float = 0.0,
        command: str = "",
    ) -> None:
        """Judge one figure."""
        row = Row(
            "claim",
            name,
            metric,
            figure,
            unit,
            source,
            "measured",
            compute=lambda: ours,
            tolerance=Tolerance(kind),
            command=command,
        )
        self.rows.append(row.judge(ours, round(seconds, 1)))


def claim_subject(command: str, *overrides: str) -> tuple[Subject, dict[str, Any]]:
    """The model of a command, as if its words had been typed, and its config group ``compressor``."""
    cfg = compose("esa-attention", "esa_attention.configs", command, overrides)
    return build_subject(cfg), plain(cfg.compressor)
