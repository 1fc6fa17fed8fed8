"""Tables as HTML that fit their box on every screen, and are tables for a screen reader too.

Where there is no room for all columns a row becomes a card of named values. At which width, is reckoned from what the
cells hold: the page has no script that could measure it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from unicodedata import east_asian_width

from effkit.page.markup import BADGES, badge
from effkit.report import Table, format_cell

__all__ = ["html_table"]

_BADGED = ("verdict", "laptop-scale claim", "status")  # columns whose words are badges
_LETTER, _PADDING = 8.6, 24  # pixels: a letter of the widest usual font, and what is left free in a cell
_FEW_LETTERS = 14  # of a cell with sentences, below which they become hard to read
_SHORT = 20  # letters of what is not wrapped
# Pixels that a table needs, to the class of those that have them on all screens but narrower ones (see `style`).
_ROOM = (
    (290, ""),
    (355, "cards slim"),
    (580, "cards"),
    (720, "cards wide"),
    (910, "cards wider"),
    (1120, "cards widest"),
)


def html_table(
    table: Table,
    name: str,
    *,
    link: Callable[[str], str] | None = None,
    below: Mapping[str, str] | None = None,
    again: Sequence[str] = (),
) -> str:
    """A table.

    Args:
        table: The table; its title is not shown.
        name: What to call it for those who do not see what stands above it, unlike any other of the page.
        link: Turns first cells into links.
        below: Columns to show below another, in its cells: other column to such a column.
        again: A command for each row, shown below it; none for an empty one.

    Returns:
        HTML. A table that is wider than every screen scrolls sideways, in a box that the keyboard reaches.
    """
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    if not table.rows:
        return f'<p class="note">No rows.</p>{note}'
    below = {upper: lower for upper, lower in (below or {}).items() if {upper, lower} <= set(table.columns)}
    shown = [i for i, column in enumerate(table.columns) if column not in below.values()]
    kinds, room = _measured(table, shown)
    layout = next((layout for most, layout in _ROOM if room <= most), None)
    cards = layout != ""
    words = {i: _heading(table.columns[i], below) for i in shown}

    def role(word: str) -> str:  # styles that make cards take the meaning of a table away
        return f' role="{word}"' if cards else ""

    def cell(row: Sequence[object], i: int) -> str:
        text = format_cell(row[i])
        inside = escape(text)
        if table.columns[i] in _BADGED and text in BADGES:
            inside = badge(text)
        elif i == 0 and link is not None:
            inside = f'<a href="{escape(link(text))}">{inside}</a>'
        if lower := below.get(table.columns[i]):
            under = format_cell(row[table.columns.index(lower)])
            inside = f"{inside}<small>{escape(under)}</small>" if under else inside
        if not inside:
            return f'<td class="{kinds[i]}"{role("cell")}></td>'
        # A card begins with what its row is about; of a bare figure it has to be said which.
        named = cards and not (i == 0 and (link is not None or lower))
        label = f' data-name="{escape(words[i])}"' if named else ""
        return f'<td class="{kinds[i]}"{role("cell")}{label}><div>{inside}</div></td>'

    lines = []
    for number, row in enumerate(table.rows):
        lines.append(f"<tr{role('row')}>{''.join(cell(row, i) for i in shown)}</tr>")
        if command := again[number] if again else "":
            code = f'<td colspan="{len(shown)}"{role("cell")}>Re-run: <code>{escape(command)}</code></td>'
            lines.append(f'<tr class="again"{role("row")}>{code}</tr>')
    head = "".join(f'<th scope="col" class="{kinds[i]}"{role("columnheader")}>{escape(words[i])}</th>' for i in shown)
    inside = f"<thead{role('rowgroup')}><tr{role('row')}>{head}</tr></thead>"
    inside += f"<tbody{role('rowgroup')}>{''.join(lines)}</tbody>"
    kind = f' class="{layout or "cards widest"}"' if cards else ""
    called = escape(name)
    if layout is None:
        box = f'<div class="box scroll" tabindex="0" role="region" aria-label="{called}, scrolls sideways">'
    else:
        box = '<div class="box">'
    return f'{box}<table{kind}{role("table")} aria-label="{called}">{inside}</table></div>{note}'


def _heading(column: str, below: Mapping[str, str]) -> str:
    return f"{column} and {below[column]}" if column in below else column


def _measured(table: Table, shown: Sequence[int]) -> tuple[dict[int, str], float]:
    """The kind of each column (number, short, text), and the pixels that all need beside each other."""
    kinds, room = {}, 0.0
    numeric = table.numeric_columns()
    for i in shown:
        longest = max(_letters(format_cell(row[i])) for row in table.rows)
        # Names of columns wrap between words, and inside of very long ones.
        heading = min(_SHORT, max(map(_letters, table.columns[i].split()), default=0))
        kinds[i] = "number" if numeric[i] else "short" if longest <= _SHORT else "text"
        letters = min(longest, _FEW_LETTERS) if kinds[i] == "text" else longest
        if table.columns[i] in _BADGED:
            letters += 3  # the sign
        room += _LETTER * max(letters, heading) + _PADDING
    return kinds, room


def _letters(text: str) -> int:
    """How wide a text is, in Latin letters."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
