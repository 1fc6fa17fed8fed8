"""The rows of the paper's tables: complete, labelled, and all structural ones matching."""

from __future__ import annotations

import re

import pytest

from effkit.rows import Outcome, Row, evaluate
from effkit.testing import assert_installed, assert_rows_are_complete, compose_command, composed_commands
from tnt_vit.cli import main
from tnt_vit.paper import figures as paper
from tnt_vit.paper.cost import timm_cost, variant_cost
from tnt_vit.paper.recipe import recipe_config
from tnt_vit.paper.rows import ORDER, PAPER, paper_rows

ROWS = paper_rows()
TABLES = [*map(str, range(1, 14)), "complexity", "legacy", "pyramid", "elsewhere", *(f"fig{n}" for n in range(3, 8))]
# Counted by this package only: the row shows the count and compares it with nothing.
NO_GOLDEN = {("5", "TNT-S-2"), ("8", "4 words of width 96"), ("9", "TNT-B@384"), ("pyramid", "PyramidTNT-M")}


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return evaluate([row for row in ROWS if row.compute is not None])


def test_every_table_is_there_in_reading_order() -> None:
    assert ORDER == TABLES
    assert list(dict.fromkeys(row.table for row in ROWS)) == TABLES


def test_each_figure_has_one_row_and_empty_ones_say_why() -> None:
    assert_rows_are_complete(ROWS, TABLES)


@pytest.mark.parametrize("table", ["1", "4", "5", "8", "12"])
def test_rows_of_the_sized_tables(table: str) -> None:
    """Spot checks against the printed pages: how many figures a table has, and one of them."""
    rows = {(r.name, r.metric): r.paper for r in paper_rows(table) if r.evidence == "printed"}
    count, key, figure = {
        "1": (6, ("TNT-Ti", "MACs"), 1.4),
        "4": (3 * 4 + 9 * 3, ("PVT-Small", "top-1"), 79.8),
        "5": (6 * 3, ("TNT-S-2", "throughput"), 704),
        "8": (3 * 3, ("4 words of width 96", "top-1"), 81.1),
        "12": (4 + 2, ("TNT-S + SE", "top-5"), 95.7),
    }[table]
    assert len(rows) == count
    assert rows[key] == figure


def test_labels_say_where_a_figure_comes_from() -> None:
    place = {
        "printed": r"(Table \d+|Figure \d+|section 2\.2)\b.*",
        "computed": r"structural count .+",
        "found": r"(?!Table|Figure).+",
    }
    for row in ROWS:
        assert row.evidence in place, f"{row.name}: {row.evidence}"
        assert re.fullmatch(place[row.evidence], row.source), f"{row.table}, {row.name}: {row.source}"
        if row.source.startswith("Table") and row.table.isdigit():
            assert row.source.startswith(f"Table {row.table}")
    # Nothing but counts of ours, and the pictures, may lack a figure.
    assert {(r.table, r.name) for r in ROWS if r.paper is None and not r.table.startswith("fig")} == NO_GOLDEN


def test_structural_rows_match(outcomes: list[Outcome]) -> None:
    assert [f"{o.table}, {o.name}, {o.metric}: {o.reason}" for o in outcomes if o.verdict == "differs"] == []
    assert {(o.table, o.name) for o in outcomes if o.verdict == "nothing to compare"} == NO_GOLDEN
    assert sum(o.verdict == "match" for o in outcomes) >= 90
    assert all(o.ours is not None and o.ours > 0 for o in outcomes)


def test_a_wrong_count_differs() -> None:
    rows = {(r.name, r.metric): r for r in paper_rows("1")}
    assert rows["TNT-S", "params"].judge(23_768_585).verdict == "differs"
    assert rows["TNT-S", "MACs"].judge(5_216_875_007).verdict == "differs"
    assert rows["TNT-B", "params with unused table"].judge(65.43).verdict == "differs"  # live parameters alone
    assert rows["TNT-B", "MACs in two decimals"].judge(14.049).verdict == "differs"  # rounded once


def test_which_printed_sizes_do_not_round_from_live_counts() -> None:
    """The docstring of ``rows`` names them; should the list change, the explanation there must too."""
    printed = {t.variant: (t.params, t.macs) for t in paper.IMAGENET.values()}
    printed |= {w.variant: (w.params, w.macs) for w in paper.WORDS}
    costs = {variant: variant_cost(variant)[1] for variant in printed}
    assert {v for v, (millions, _) in printed.items() if round(costs[v].params / 1e6, 1) != millions} == {
        "tnt_b_patch16_224",
        "tnt_s_m64_patch16_224",
        "tnt_s_m4_patch16_224",
    }
    assert {v for v, (_, giga) in printed.items() if round(costs[v].macs / 1e9, 1) != giga} == {"tnt_b_patch16_224"}


def test_reason_for_efficientnet_is_true() -> None:
    assert f"{timm_cost('tf_efficientnet_b4', 380)[0].macs / 1e9:.2f}" == "4.39"


def test_rows_that_cannot_be_measured_say_why_and_how() -> None:
    empty = [row for row in ROWS if row.compute is None]
    assert len(empty) > 100
    assert all(len(row.not_measured) > 30 for row in empty)
    assert len({row.command for row in empty if row.command}) > 20
    for _, cfg in composed_commands(main, empty):
        assert cfg.model.name.startswith(("tnt_", "pyramid_tnt_"))


def test_rows_to_train_change_what_their_table_varies() -> None:
    def config(row: Row):
        return compose_command(main, row.command)

    rows = {(r.table, r.name, r.metric): r for r in ROWS}
    assert config(rows["6", "TNT-S, positions: word", "top-1"]).model.positions == "word"
    assert config(rows["7", "TNT-S, 8 inner heads", "top-1"]).model.inner_num_heads == 8
    assert config(rows["5", "TNT-S-3", "top-1"]).model.name == "tnt_s3_patch16_224"
    assert config(rows["9", "TNT-B@384", "top-1 on CIFAR-100"]).model.name == "tnt_b_patch16_384"
    assert config(rows["9", "TNT-S@384", "top-1 on CIFAR-10"]).trainer.max_epochs == 64


def test_recipe_words_that_are_no_numbers() -> None:
    cfg = recipe_config()
    assert (cfg.optimizer.opt, cfg.scheduler.sched) == ("adamw", "cosine")
    assert cfg.trainer.gradient_clip_val is None
    assert cfg.model.drop_rate is None  # no dropout


def test_selection() -> None:
    assert {row.table for row in paper_rows(5)} == {"5"}
    assert {row.table for row in paper_rows(["fig3", 7])} == {"7", "fig3"}
    with pytest.raises(ValueError, match=r"(?s)table.*'14'.*elsewhere"):
        paper_rows(14)


def test_installed_under_its_name() -> None:
    assert_installed(PAPER)
    assert [(r.table, r.name, r.metric) for r in PAPER.rows()] == [(r.table, r.name, r.metric) for r in ROWS]
