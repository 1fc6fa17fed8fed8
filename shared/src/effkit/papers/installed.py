"""The installed papers, found by entry points."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from importlib.metadata import EntryPoint

from effkit.errors import UserError, choose
from effkit.papers.paper import Paper

__all__ = ["GROUP", "installed_papers", "load_paper", "select_papers"]

GROUP = "effkit.papers"


def installed_papers() -> dict[str, EntryPoint]:
    """Entry points of the installed papers by name, sorted; nothing is imported."""
    found: dict[str, EntryPoint] = {}
    for entry_point in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(entry_point.name, entry_point)  # the first on the path is the one that would be imported
    return dict(sorted(found.items()))


def select_papers(names: str | Iterable[str] | None = None) -> dict[str, EntryPoint]:
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
