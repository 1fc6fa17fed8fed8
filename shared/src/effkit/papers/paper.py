"""Papers: what a package declares, and how the installed ones are found.

A package names one `Paper` in its `pyproject.toml`; nothing in the core knows which papers exist:

    [project.entry-points."effkit.papers"]
    tnt-vit = "tnt_vit.rows:PAPER"
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path

from effkit.errors import UserError, choose
from effkit.report import Table
from effkit.rows import Outcome, Row

__all__ = ["GROUP", "Claim", "Paper", "installed_papers", "load_paper", "select_papers"]

GROUP = "effkit.papers"


@dataclass
class Claim:
    """What the laptop-scale run of a paper found.

    Args:
        rows: Judged figures, e.g. from `evaluate` or `Row.judge`; the claim holds if none differs.
        figures: PNG files inside the folder given to the run.
        tables: Further tables: the baseline beside ours, learning curves.
        notes: Sentences a reader needs to judge the figures fairly.
    """

    rows: list[Outcome]
    figures: list[Path] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Paper:
    """A paper that can be reproduced.

    Args:
        name: Short name, that of the command and of the entry point.
        distribution: The installed package.
        title: Title of the paper.
        reference: Citation line.
        rows: Returns the rows; called when they are wanted, so that importing the module costs nothing.
        claim: Runs the laptop-scale claim and writes into the folder it is given; `None` if there is none.
        command: What re-runs the rows: "tnt-vit reproduce".
    """

    name: str
    distribution: str
    title: str
    reference: str
    rows: Callable[[], list[Row]]
    claim: Callable[[Path], Claim] | None = None
    command: str = ""


def installed_papers() -> dict[str, EntryPoint]:
    """Entry points of the installed papers by name, sorted; nothing is imported."""
    found: dict[str, EntryPoint] = {}
    for entry_point in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(entry_point.name, entry_point)  # the first on the path is the one that would be imported
    return dict(sorted(found.items()))


def select_papers(names: str | Iterable[str] | None) -> dict[str, EntryPoint]:
    """Installed papers, or those named.

    Args:
        names: Names, or `None` for all.

    Returns:
        Entry points by name, in the order asked for.

    Raises:
        UserError: If a name is not installed; names those that are.
    """
    installed = installed_papers()
    if names is None:
        return installed
    asked = [names] if isinstance(names, str) else list(names)
    return {name: installed[choose("papers", name, list(installed))] for name in asked}


def load_paper(entry_point: EntryPoint) -> Paper:
    """Import the paper an entry point names.

    Args:
        entry_point: From `installed_papers`.

    Returns:
        The paper.

    Raises:
        UserError: If the entry point names something else.
    """
    paper = entry_point.load()
    if not isinstance(paper, Paper):
        raise UserError(
            f"entry point {entry_point.name} = {entry_point.value} must name an effkit Paper, got {paper!r}"
        )
    return paper
