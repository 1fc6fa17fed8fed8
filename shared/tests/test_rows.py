"""Rows, tolerances and outcomes."""

import json
import math

import pytest
import torch

from effkit.errors import UserError
from effkit.rows import Outcome, Row, Tolerance, evaluate, outcome_tables, table_title

ROUNDS_TO = Tolerance("rounds_to")


def row(paper=23.8, ours=23.77, tolerance=ROUNDS_TO, **changes) -> Row:
    fields = {
        "table": "1",
        "name": "TNT-S",
        "metric": "params",
        "paper": paper,
        "unit": "M",
        "source": "Table 1",
        "evidence": "printed",
        "compute": lambda: ours,
        "tolerance": tolerance,
    }
    return Row(**(fields | changes))


@pytest.mark.parametrize(
    ("tolerance", "paper", "ours", "good", "reason"),
    [
        (Tolerance(), 23_768_584, 23_768_584, True, "equal"),
        (Tolerance(), 23_768_584, 23_755_336, False, "off by -13,248"),
        (Tolerance("abs", 0.1), 81.5, 81.6, True, "within 0.1"),
        (Tolerance("abs", 0.1), 81.5, 81.7, False, "off by +0.2, allowed 0.1"),
        (Tolerance("rel", 0.01), 200, 198, True, "within 1 %"),
        (Tolerance("rel", 0.01), -200, -197, False, "off by 1.5 %, allowed 1 %"),
        (Tolerance("rel", 0.01), 0, 0, True, "within 1 %"),
        (Tolerance("rel", 0.01), 0, 1, False, "off by inf %, allowed 1 %"),
        (Tolerance("rounds_to"), 23.8, 23.768584, True, "rounds to 23.8"),
        (Tolerance("rounds_to"), 23.8, 23.75, True, "rounds to 23.8"),
        (Tolerance("rounds_to"), 23.8, 23.85, True, "rounds to 23.8"),
        (Tolerance("rounds_to"), 23.8, 23.7499, False, "rounds to 23.7, not 23.8"),
        (Tolerance("rounds_to"), 14.1, 14.049, False, "rounds to 14.0, not 14.1"),
        (Tolerance("rounds_to"), 4599, 4598.9, True, "rounds to 4,599"),
        (Tolerance("rounds_to"), 4599, 4598.4, False, "rounds to 4,598, not 4,599"),
        (Tolerance("rounds_to", decimals=2), 4.1, 4.14, False, "rounds to 4.14, not 4.10"),
        (Tolerance("rounds_to"), 1e-3, 1.4e-3, True, "rounds to 0.001"),
        (Tolerance("at_least"), 95.5, 95.5, True, "at least 95.5"),
        (Tolerance("at_least"), 95.5, 95.4, False, "below 95.5"),
        (Tolerance("at_least", 0.3), 95.5, 95.4, True, "at least 95.5 (slack 0.3)"),
        (Tolerance("at_most"), 4, 4.1, False, "above 4"),
        (Tolerance("at_most"), 4, 3, True, "at most 4"),
    ],
)
def test_tolerances(tolerance, paper, ours, good, reason) -> None:
    assert tolerance.check(ours, paper) == (good, reason)
    outcome = row(paper, ours, tolerance).evaluate()
    assert (outcome.verdict, outcome.reason) == ("match" if good else "differs", reason)


def test_outcome_keeps_what_the_row_said() -> None:
    outcome = row(command="tnt-vit reproduce table=1").evaluate()
    assert (outcome.table, outcome.name, outcome.metric, outcome.unit) == ("1", "TNT-S", "params", "M")
    assert (outcome.paper, outcome.ours, outcome.source) == (23.8, 23.77, "Table 1")
    assert (outcome.evidence, outcome.tolerance, outcome.command) == (
        "printed",
        "rounds_to",
        "tnt-vit reproduce table=1",
    )
    assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome


def test_scalars_of_torch_are_numbers() -> None:
    assert row(3, torch.tensor(3), Tolerance()).evaluate().verdict == "match"


@pytest.mark.parametrize(
    ("ours", "reason"),
    [(math.nan, "ours is nan"), (None, "returned NoneType"), ("23.8", "returned str"), (True, "returned bool")],
)
def test_what_is_no_number_differs(ours, reason) -> None:
    outcome = row(ours=ours).evaluate()
    assert (outcome.verdict, outcome.ours) == ("differs", None)
    assert reason in outcome.reason


def test_not_measured_and_nothing_to_compare() -> None:
    skipped = row(compute=None, not_measured="needs ImageNet").evaluate()
    assert (skipped.verdict, skipped.ours, skipped.reason) == ("not measured here", None, "needs ImageNet")
    alone = row(paper=None).evaluate()
    assert (alone.verdict, alone.ours) == ("nothing to compare", 23.77)


def test_one_bad_row_never_hides_the_others() -> None:
    def breaks() -> float:
        raise RuntimeError("out of\nmemory")

    before, bad, after = evaluate([row(), row(compute=breaks), row()])
    assert (before.verdict, after.verdict) == ("match", "match")
    assert (bad.verdict, bad.ours, bad.reason) == ("differs", None, "crashed: RuntimeError: out of")


def test_interrupting_is_not_an_outcome() -> None:
    def interrupted() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate([row(compute=interrupted)])


def test_selecting_tables() -> None:
    rows = [row(table=t, name=n) for t, n in [("1", "a"), ("5", "b"), ("fig2", "c"), ("5", "d")]]
    for tables, names in [(None, "abcd"), (5, "bd"), ("fig2", "c"), (["fig2", 1], "ac"), ([], "")]:
        assert "".join(o.name for o in evaluate(rows, tables)) == names
    with pytest.raises(UserError, match="table='fig3' is not known, choose one of 1, 5, fig2; did you mean 'fig2'"):
        evaluate(rows, "fig3")


def test_progress_is_told_before_each_row() -> None:
    told: list[tuple[int, int, str]] = []
    evaluate([row(name="a"), row(name="b")], progress=lambda i, n, r: told.append((i, n, r.name)))
    assert told == [(0, 2, "a"), (1, 2, "b")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evidence": "guessed"}, "evidence of row 'TNT-S' of table '1'='guessed'"),
        ({"compute": None}, "either compute or not_measured"),
        ({"not_measured": "why"}, "either compute or not_measured"),
    ],
)
def test_bad_rows(changes, message) -> None:
    with pytest.raises(UserError, match=message):
        row(**changes)


def test_bad_tolerances() -> None:
    with pytest.raises(UserError, match="did you mean 'at_least'"):
        Tolerance("atleast")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="must not be negative, got -1"):
        Tolerance("abs", -1)


def test_figures_of_different_standing_have_columns_of_their_own() -> None:
    rows = [
        row(),
        row(23_768_584, 23_768_584, Tolerance(), unit="", evidence="computed", source="closed form"),
        row(42.0, evidence="unverified", metric="AP", unit="", compute=None, not_measured="needs COCO"),
        row(table="claim", paper=95.5, ours=97.2, tolerance=Tolerance("at_least"), evidence="measured"),
    ]
    first, claim = outcome_tables(evaluate(rows))
    assert first.title == "Table 1"
    assert first.columns == [
        "row",
        "metric",
        "paper",
        "computed",
        "unverified",
        "ours",
        "verdict",
        "reason",
        "source",
    ]
    assert [r[1:6] for r in first.rows] == [
        ["params, M", 23.8, None, None, 23.77],
        ["params", None, 23_768_584, None, 23_768_584],
        ["AP", None, None, 42.0, None],
    ]
    assert [r[-1] for r in first.rows] == ["", "closed form", ""]
    assert claim.title == "Laptop-scale claim"
    assert claim.columns[2:4] == ["measured before", "ours"]


def test_a_table_does_not_repeat_its_own_name_as_the_source() -> None:
    (table,) = outcome_tables(evaluate([row(), row(name="TNT-B")]))
    assert table.columns == ["row", "metric", "paper", "ours", "verdict", "reason"]


@pytest.mark.parametrize(
    ("table", "title"),
    [("5", "Table 5"), ("12b", "Table 12b"), ("fig2", "Figure 2"), ("claim", "Laptop-scale claim"), ("speed", "speed")],
)
def test_table_titles(table, title) -> None:
    assert table_title(table) == title
