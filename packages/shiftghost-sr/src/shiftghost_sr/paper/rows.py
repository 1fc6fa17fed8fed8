"""Every published figure as a row that is checked, or that says why it cannot be here."""

from __future__ import annotations

from collections.abc import Iterable

from effkit.papers import Paper, collect_rows
from effkit.rows import Row
from shiftghost_sr.paper import figures

__all__ = ["ORDER", "PAPER", "paper_rows"]

ORDER = ["accuracy"]


def accuracy_rows() -> list[Row]:
    """What only trained networks can show."""
    rows = []
    for name, figure in figures.OFFICIAL_PSNR.items():
        rows.append(
            Row(
                "accuracy", f"EDSR-GhostSR x2, {name}", "PSNR", figure, "dB",
                source="readme of the official release, self-ensemble", evidence="found",
                not_measured=figures.NOT_AVAILABLE,
            )
        )  # fmt: skip
    return rows


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated.

    Args:
        table: Only these of :data:`ORDER`; all if not given.

    Raises:
        UserError: If there is no such table; names those that are.
    """
    return collect_rows([accuracy_rows], ORDER, table)


PAPER = Paper(
    name="shiftghost-sr",
    distribution="shiftghost-sr",
    title="GhostSR: Learning Ghost Features for Efficient Image Super-Resolution",
    reference="Nie, Han, Liu, Liu, Wang, TMLR 2022",
    rows=paper_rows,
    claim="shiftghost_sr.paper.claim:run_claim",
    command="shiftghost-sr reproduce",
)
