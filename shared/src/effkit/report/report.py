"""What a command returns: tables, lines and files, printed for people or as one JSON document for machines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.report.cells import plain
from effkit.report.table import Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

__all__ = ["Report"]


@dataclass
class Report:
    """What a command returns: printed as tables, or as one JSON document, with the process's exit code.

    Args:
        title: One line that names the run.
        tables: Tables in reading order.
        data: Further values for machines only (they appear in the JSON document).
        files: What was written.
        lines: Sentences for people, printed after the tables.
        exit_code: 0 all is well; 1 a check did not hold; 2 is reserved for mistakes of the user.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """The report as a dict that `json.dumps` accepts as it is (no NaN, no paths)."""
        return {
            "title": self.title,
            "data": plain(self.data),
            "tables": [t.to_dict() for t in self.tables],
            "files": [str(f) for f in self.files],
            "lines": list(self.lines),
            "exit_code": self.exit_code,
        }

    def print(self, console: Console | None = None) -> None:
        """Print for people. Written to a pipe or file, tables take the width they need instead of 80 columns.

        Args:
            console: A rich console; standard output if not given.
        """
        from rich.console import Console
        from rich.text import Text

        tables = [t.to_rich() for t in self.tables]
        if console is None:
            console = Console()
            if not console.is_terminal and "COLUMNS" not in os.environ:
                # rich takes 80 columns where there is no terminal, and would fold the figures of a wide table in a log.
                console = Console(width=_natural_width(tables))
        if self.title:
            console.print(Text(self.title, style="bold"))
        for table in tables:
            console.print()
            console.print(table)
        if self.lines:
            console.print()
        for line in self.lines:
            console.print(Text(line), soft_wrap=True)
        for file in self.files:
            console.print(Text(f"wrote {file}"), soft_wrap=True)


def _natural_width(tables: Sequence[RichTable], least: int = 80, most: int = 240) -> int:
    from rich.console import Console
    from rich.measure import Measurement

    wide = Console(width=most)
    widths = [Measurement.get(wide, wide.options, table).maximum for table in tables]
    return min(most, max([least, *widths]))
