"""A titled table of plain values: for terminals, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effkit.report.cells import format_cell, is_number, plain
from effkit.report.files import write_text

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["WORD_STYLES", "Table"]

# Words that mean the same in every table of the house, with the colour a terminal gives them (the word always stays).
WORD_STYLES = {
    "match": "green",
    "holds": "green",
    "yes": "green",
    "differs": "bold red",
    "does not hold": "bold red",
    "crashed": "bold red",
    "no": "red",
    "not measured here": "dim",
    "skipped": "dim",
}


@dataclass
class Table:
    """A titled table of plain values.

    Args:
        title: One line above the table.
        columns: Column headings.
        rows: One list per row, as long as `columns`; numbers, strings, booleans, paths or `None` (an empty cell).
        note: A remark below the table.
    """

    title: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    note: str = ""

    def _checked(self) -> list[list[Any]]:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: row {number} has {len(row)} cells, expected {len(self.columns)} "
                    f"({', '.join(self.columns)})"
                )
        return self.rows

    def numeric_columns(self) -> list[bool]:
        """Which columns hold numbers only (empty cells aside): they are set flush right."""
        cells = [[plain(row[i]) for row in self._checked()] for i in range(len(self.columns))]
        return [
            any(is_number(c) for c in column) and all(c is None or is_number(c) for c in column) for column in cells
        ]

    def to_dict(self) -> dict[str, Any]:
        """Values as JSON can hold them, unformatted."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [[plain(c) for c in row] for row in self._checked()],
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Table:
        """The inverse of `to_dict`."""
        return cls(value["title"], list(value["columns"]), [list(r) for r in value["rows"]], value.get("note", ""))

    def to_markdown(self) -> str:
        """A GitHub-flavoured Markdown table, without the title; ends with a newline."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(c.replace("|", "\\|").replace("\n", "<br>") for c in cells) + " |"

        rule = ["---:" if numeric else "---" for numeric in self.numeric_columns()]
        lines = [line(self.columns), line(rule), *(line([format_cell(c) for c in row]) for row in self._checked())]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Comma-separated values, unformatted, with a heading line; also written to `path` if given."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([[plain(c) for c in row] for row in self._checked()])
        if path is not None:
            write_text(path, text.getvalue())
        return text.getvalue()

    def to_rich(self) -> RichTable:
        """A terminal table; words such as "match" and "differs" are coloured."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=Text(self.title) if self.title else None,
            caption=Text(self.note) if self.note else None,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for name, numeric in zip(self.columns, self.numeric_columns(), strict=True):
            # On a narrow terminal words may wrap, a figure must not.
            table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
        for row in self._checked():
            cells = [format_cell(c) for c in row]
            table.add_row(*(Text(c, style=WORD_STYLES.get(c, "")) for c in cells))  # Text: no markup in user strings
        return table
