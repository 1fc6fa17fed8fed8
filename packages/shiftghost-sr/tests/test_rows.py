"""The rows of the tables: complete, labelled, and all structural ones matching."""

from __future__ import annotations

from effkit.rows import evaluate
from effkit.testing import assert_installed, assert_rows_are_complete, composed_commands
from shiftghost_sr.cli import main
from shiftghost_sr.paper.rows import ORDER, PAPER, paper_rows

ROWS = paper_rows()


def test_tables_are_there_and_each_figure_once():
    assert_rows_are_complete(ROWS, ORDER)
    assert_installed(PAPER)
    assert len(paper_rows("models")) == 14 * 5
    assert len(paper_rows("deployed")) == 5 * 3


def test_what_a_model_counts_matches():
    """The counts themselves are tested one by one beside; here a table goes through the rows' own functions."""
    outcomes = evaluate([row for row in paper_rows("models") if row.name.startswith(("carn_m", "vdsr"))])
    assert [(o.name, o.metric, o.reason) for o in outcomes if o.verdict != "match"] == []
    assert len(outcomes) == 10
    saved = evaluate([row for row in paper_rows("abstract") if row.compute is not None])
    assert [o.verdict for o in saved] == ["match", "match"]


def test_commands_of_rows_exist():
    assert len(list(composed_commands(main, ROWS))) > 10
