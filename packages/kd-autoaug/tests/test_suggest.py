"""Advice read off an analysis: magnitudes within a budget, operators to drop, K(M)."""

from __future__ import annotations

import math

import pytest

from kd_autoaug.analysis.bootstrap import Estimate
from kd_autoaug.analysis.flags import flags
from kd_autoaug.analysis.result import CLEAN, POLICY, AnalysisResult, Cell
from kd_autoaug.analysis.suggest import suggest

MASS = {1: [0.95, 1.0, 1.0, 1.0], 2: [0.6, 0.92, 1.0, 1.0], 3: [0.5, 0.7, 0.92, 1.0], 4: [0.3, 0.5, 0.8, 1.0]}


def cell(name: str, m: float | None, rate: float, k: int = 1, half: float = 0.01, **more) -> Cell:
    estimates = {"outlier_rate": Estimate(rate, rate - half, rate + half)}
    for key in ("probe", "longer"):
        if key in more:
            value = more.pop(key)
            estimates[f"information_{key}"] = Estimate(value, value - 0.1, value + 0.1)
    return Cell(name, m, estimates, mass=MASS[k], **more)


def result(rows: dict[str, list[tuple[float, float, int]]]) -> AnalysisResult:
    cells = [cell(name, m, rate, k) for name, row in rows.items() for m, rate, k in row]
    return AnalysisResult(cells, cell(CLEAN, None, 0.0), ["a", "b", "c", "d"], 2.0)


@pytest.fixture
def found() -> AnalysisResult:
    return result(
        {
            "rotate": [(1, 0.01, 1), (2, 0.045, 2), (3, 0.2, 3)],
            "posterize": [(1, 0.9, 4), (2, 0.2, 2), (3, 0.0, 1)],  # runs backwards
            "invert": [(1, 0.3, 2), (2, 0.3, 2), (3, 0.3, 2)],
            POLICY: [(1, 0.02, 1), (2, 0.05, 2), (3, 0.4, 4)],
        }
    )


def test_the_largest_magnitude_within_the_budget(found) -> None:
    advice = suggest(found, 0.05)
    assert {o.operator: o.magnitude for o in advice.operators} == {"rotate": 2, "posterize": 3, "invert": None}
    assert advice.policy is not None
    assert advice.policy.magnitude == 2  # at the budget is within it
    assert advice.drop == ["invert"]
    assert advice.over_at == {1: ["posterize", "invert"], 2: ["posterize", "invert"], 3: ["rotate", "invert"]}


def test_the_careful_choice_asks_the_upper_end(found) -> None:
    advice = suggest(found, 0.05, use_upper=True)
    assert {o.operator: o.magnitude for o in advice.operators} == {"rotate": 1, "posterize": 3, "invert": None}
    assert advice.policy is not None
    assert advice.policy.magnitude == 1


def test_smaller_magnitudes_over_the_budget_are_named(found) -> None:
    gaps = {o.operator: o.gaps for o in suggest(found).operators}
    assert gaps == {"rotate": [], "posterize": [1, 2], "invert": []}


def test_a_larger_budget_never_suggests_less(found) -> None:
    chosen = [suggest(found, b).policy.magnitude or 0 for b in (0.0, 0.02, 0.05, 0.3, 0.4, 1.0)]  # type: ignore[union-attr]
    assert chosen == sorted(chosen) == [0, 1, 2, 2, 3, 3]


def test_k_grows_with_the_magnitude_or_the_report_says_that_it_does_not(found) -> None:
    curves = {c.name: c for c in suggest(found).k}
    assert list(curves) == [POLICY, "rotate", "posterize", "invert"]
    assert curves["rotate"].k == {None: 1, 1: 1, 2: 2, 3: 3}
    assert curves["rotate"].non_decreasing
    assert curves[POLICY].k[3] == 4
    assert not curves["posterize"].non_decreasing
    more = {c.name: c.k[1] for c in suggest(found, mass=0.99).k}
    assert more["posterize"] == 4
    assert more["rotate"] == 2


def test_the_sentences_say_what_the_tables_say(found) -> None:
    lines = " ".join(suggest(found).lines())
    assert "Suggested magnitude: 2" in lines
    assert "over the budget at every analysed magnitude: invert" in lines
    assert "Over the budget by themselves at that magnitude: posterize" in lines
    assert "No analysed magnitude" in " ".join(suggest(found, 0.001).lines())
    first, over, k = suggest(found).tables()
    assert [r[0] for r in first.rows] == [POLICY, "rotate", "posterize", "invert"]
    assert over.rows[2] == [3, "rotate, invert"]
    assert k.columns == ["operator", "clean", "M=1", "M=2", "M=3", "non-decreasing"]


def test_a_teacher_that_knows_nothing_gives_no_advice() -> None:
    blind = result({"rotate": [(1, math.nan, 1)]})
    advice = suggest(blind, 1.0)
    assert advice.operators[0].magnitude is None
    assert advice.policy is None
    assert advice.tables()[0].rows[0][2] is None


def test_flags_need_a_probe_or_blank_views() -> None:
    """However badly the frozen teacher does, that alone flags nothing."""
    bad = cell("rotate", 2.0, 1.0)
    assert flags(AnalysisResult([bad], cell(CLEAN, None, 0.0), ["a"], 1.0)) == []
    clean = cell(CLEAN, None, 0.0, probe=2.0)
    cells = [
        cell("rotate", 2.0, 0.9, probe=1.5),
        cell("shear_x", 2.0, 0.9, probe=0.95, longer=0.95),  # 1.05 at most: not surely below half
        cell("invert", 2.0, 0.9, probe=0.80, longer=0.85),
        cell("posterize", 2.0, 0.9, probe=1.9, blank=0.6),
    ]
    found = flags(AnalysisResult(cells, clean, ["a"], 1.0))
    assert [(f.operator, f.certain) for f in found] == [("invert", True), ("posterize", True)]
    assert "0.95 of 2.00 bits" in found[0].reason
    assert found[1].reason == "60% of the views are one flat colour"
    assert [f.operator for f in flags(AnalysisResult(cells, clean, ["a"], 1.0), keep=0.0, blank=1.0)] == []
    with pytest.raises(ValueError, match=r"keep=2"):
        flags(AnalysisResult(cells, clean, ["a"], 1.0), keep=2)


def test_a_probe_that_may_not_be_done_decides_nothing() -> None:
    clean = cell(CLEAN, None, 0.0, probe=2.0)
    cells = [
        cell("rotate", 2.0, 0.9, probe=0.3),  # not tried for longer
        cell("shear_x", 2.0, 0.9, probe=0.3, longer=0.6),  # still learning
        cell("shear_y", 2.0, 0.9, probe=0.3, longer=1.2),  # was only trained too briefly
        cell("invert", 2.0, 0.9, probe=0.3, longer=0.2),
    ]
    found = flags(AnalysisResult(cells, clean, ["a"], 1.0))
    assert [(f.operator, f.certain) for f in found] == [("rotate", False), ("shear_x", False), ("invert", True)]
    assert "not tried with longer training" in found[0].reason
    assert "may not be done" in found[1].reason
    advice = suggest(AnalysisResult(cells, clean, ["a"], 1.0))
    assert [row[-1] for row in advice.tables()[0].rows] == ["", "", "", "2"]


@pytest.mark.parametrize(("argument", "value"), [("budget", -0.1), ("budget", 1.5), ("mass", 0.0), ("mass", 2.0)])
def test_numbers_out_of_range_are_refused(found, argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{argument}={value}"):
        suggest(found, **{argument: value})
