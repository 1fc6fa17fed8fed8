"""What a command has to say: tables, lines and files, for people and for machines, and plots in one style.

A `Report` is built from plain values (numbers, strings, paths). The same values become a terminal table, Markdown, CSV
or JSON, so a figure is never typed twice. Rich and matplotlib are imported where they are used: every command imports
this module, few of them draw.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table as RichTable

__all__ = ["Report", "Table", "figure", "format_cell", "plain", "save_png", "write_bytes", "write_json", "write_text"]

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

# One look for every plot. The eight colours are Okabe and Ito's, told apart also by colour-blind readers.
PLOT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
_PLOT_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "savefig.facecolor": "white",
}
_MAX_PNG_BYTES = 300 * 1024


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold; paths become strings, NaN and infinities `None`."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # numpy and torch scalars
        return plain(value.item())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def format_cell(value: Any) -> str:
    """Show one value to a person: thousands separated, four significant digits for floats, nothing for `None`."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if value and (abs(value) < 1e-3 or abs(value) >= 1e15):
            return f"{value:.3g}"
        if value == int(value) and abs(value) >= 1000:
            return f"{int(value):,}"
        if abs(value) >= 1000:
            return f"{value:,.1f}"
        return f"{value:.4g}"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file so that nobody ever sees half of it: under a temporary name beside the target, then renamed."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """As `write_text`, for bytes; missing parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; reports are to be read by others
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return path


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write `plain(value)` as indented JSON, atomically."""
    return write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


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
            any(_is_number(c) for c in column) and all(c is None or _is_number(c) for c in column) for column in cells
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


@contextlib.contextmanager
def figure(width: float = 7.0, height: float = 4.0) -> Iterator[Figure]:
    """Open a matplotlib figure in the house style, without pyplot and so without global figures.

    Draw and save inside the block: matplotlib reads some settings only when the figure is drawn.

    Args:
        width: Inches.
        height: Inches.

    Example:
        >>> with figure(width=4, height=3) as fig:  # doctest: +SKIP
        ...     fig.subplots().plot([1, 2], [3, 4])
        ...     save_png(fig, "line.png")
    """
    if width <= 0 or height <= 0:
        raise UserError(f"figure size must be positive inches, got width={width}, height={height}")
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    style: Any = {**_PLOT_STYLE, "axes.prop_cycle": cycler(color=PLOT_COLOURS)}
    with matplotlib.rc_context(style):
        yield Figure(figsize=(width, height), layout="constrained")


def save_png(fig: Figure, path: str | os.PathLike[str], dpi: int = 120) -> Path:
    """Save a figure as PNG, atomically and below 300 kB.

    A larger picture is first reduced to 256 colours (which plots do not show), then to fewer dots per inch.

    Args:
        fig: A figure from `figure`.
        path: Where to; missing folders are made.
        dpi: Dots per inch to begin with.

    Returns:
        The path.
    """
    from PIL import Image

    while True:
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})  # no version: same plot, same bytes
        if buffer.tell() >= _MAX_PNG_BYTES:
            picture = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB").quantize(256)
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG", optimize=True)
        if buffer.tell() < _MAX_PNG_BYTES or dpi <= 40:
            return write_bytes(path, buffer.getvalue())
        dpi = int(dpi * 0.8)
