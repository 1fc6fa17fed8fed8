"""What holds for the rows of every paper."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effkit.cli import App
    from effkit.papers import Paper
    from effkit.rows import Row

__all__ = ["assert_installed", "assert_rows_are_complete", "compose_command", "composed_commands"]


def compose_command(app: App, command: str) -> Any:
    """Compose the config of a row's command; ``PATH`` stands for a file that the user has.

    Args:
        app: The paper's program.
        command: E.g. ``"tnt-vit train experiment=digits"``.
    """
    program, name, *words = shlex.split(command)
    assert program == app.prog, f"{command!r} is none of {app.prog}"
    return app.compose(name, [word.replace("PATH", "'/nowhere'") for word in words])


def composed_commands(app: App, rows: Iterable[Row]) -> Iterator[tuple[str, Any]]:
    """Compose every command that rows name, once for all that differ in figures only.

    Composing takes a while: a command of which every word has been accepted before (figures aside) composes too.

    Args:
        app: The paper's program.
        rows: The rows.

    Yields:
        Command and config.
    """
    seen: set[tuple[str, str]] = set()
    for command in sorted({row.command for row in rows if row.command}):
        _, name, *words = shlex.split(command)
        alike = {(name, re.sub(r"=[\d.]+$", "=", word)) for word in words or [""]}
        if not alike <= seen:
            seen |= alike
            yield command, compose_command(app, command)


def assert_rows_are_complete(rows: Iterable[Row], tables: list[str], *, alike: Iterable[str] = ()) -> None:
    """Assert that all tables are there in reading order, each figure once, and that empty rows say why.

    Args:
        rows: All rows of a paper.
        tables: The tables, in reading order.
        alike: Tables in which rows may differ in their figure only.
    """
    rows = list(rows)
    assert list(dict.fromkeys(row.table for row in rows)) == tables
    keys = Counter((r.table, r.name, r.metric, r.unit, r.paper if r.table in set(alike) else None) for r in rows)
    assert [key for key, count in keys.items() if count > 1] == []
    assert [r.name for r in rows if r.compute is None and len(r.not_measured) <= 30] == []


def assert_installed(paper: Paper) -> None:
    """Assert that a paper is found under its name by its entry point, with a claim and all its rows."""
    from effkit.papers import load_paper, select_papers

    found = load_paper(select_papers(paper.name)[paper.name])
    assert found is paper
    assert paper.claim is not None
    assert list(paper.rows())
