"""The rows of the paper's table: complete, labelled, and all structural ones matching."""

from __future__ import annotations

from augshortcut.cli import main
from augshortcut.paper.rows import ORDER, PAPER, paper_rows
from effkit.rows import evaluate
from effkit.testing import assert_installed, assert_rows_are_complete, composed_commands

ROWS = paper_rows()


def test_tables_are_there_and_each_figure_once():
    assert_rows_are_complete(ROWS, ORDER)
    assert_installed(PAPER)
    table2 = [row for row in paper_rows(2) if row.evidence == "printed"]
    assert len(table2) == 6 * 2 * 3
    printed = {(row.name, row.metric): row.paper for row in table2}
    assert printed["Aug-T2T-24", "top-1"] == 83.6
    assert printed["Aug-ViT-B, 384", "MACs, paper-style"] == 55.8


def test_all_that_can_be_counted_matches():
    outcomes = evaluate([row for row in ROWS if row.compute is not None])
    assert [(o.table, o.name, o.metric, o.reason) for o in outcomes if o.verdict != "match"] == []
    assert len(outcomes) > 60


def test_commands_of_empty_rows_exist():
    commands = [command for command, _ in composed_commands(main, ROWS)]
    assert len(commands) == 6
