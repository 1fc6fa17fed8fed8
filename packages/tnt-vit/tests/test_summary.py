"""``tnt-vit summary``: the tables people read, against the counts behind them."""

from __future__ import annotations

import pytest

from tnt_vit.checkpoints.pyramids import PYRAMIDS
from tnt_vit.checkpoints.zoo import VARIANTS
from tnt_vit.paper.cost import variant_cost
from tnt_vit.paper.summary import summary_report


def test_all_variants_beside_the_papers_figures() -> None:
    sizes, split, pyramids = summary_report().tables
    assert [row[0] for row in sizes.rows] == [row[0] for row in split.rows] == list(VARIANTS)
    assert [row[0] for row in pyramids.rows] == list(PYRAMIDS)
    assert pyramids.rows[1] == ["pyramid_tnt_s", 256, 31_953_200, 32.0, 3_283_341_312, 3.3]
    rows = {row[0]: dict(zip(sizes.columns, row, strict=True)) for row in sizes.rows}
    base = rows["tnt_b_patch16_224"]
    assert (base["params"], base["unused"], base["printed, M"]) == (65_428_680, 125_440, 65.6)
    assert (base["MACs"], base["printed, G"]) == (14_049_082_880, 14.1)
    assert rows["tnt_ti_se_patch16_224"]["printed, M"] is None  # not in the paper
    assert rows["tnt_s3_patch16_224"]["printed, G"] == 4.7
    for row in split.rows:
        assert sum(row[1:]) == pytest.approx(100, abs=0.5)  # nine shares, each rounded to 0.1


def test_layers_of_one_variant() -> None:
    report = summary_report(["tnt_ti"], layers_of="tnt_ti", depth=3)
    parts, layers = report.tables[2:]
    _, cost = variant_cost("tnt_ti_patch16_224")
    assert sum(row[2] for row in parts.rows if row[0] == "MACs") == cost.macs
    assert sum(row[2] for row in parts.rows if row[0] == "params") == cost.params
    assert layers.rows[-1][3:5] == [cost.params, cost.macs]
    assert "blocks.11.attn_in" in [row[0] for row in layers.rows]
    assert report.to_json()["tables"][0]["rows"][0][3] == cost.params


def test_layers_of_a_pyramid() -> None:
    report = summary_report(["pyramid_tnt_ti"], layers_of="pyramid_tnt_ti", depth=2)
    pyramids, layers = report.tables
    assert pyramids.rows[0][2] == 10_578_529
    assert layers.rows[-1][3:5] == [10_578_529, 586_434_560]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"variant.*tnt_x"):
        summary_report(["tnt_x"])
    with pytest.raises(ValueError, match=r"variants=.* must be a list"):
        summary_report("tnt_s")
    with pytest.raises(ValueError, match=r"variants is an empty list"):
        summary_report([])
    with pytest.raises(ValueError, match=r"depth must be 0 or more, got -1"):
        summary_report(["tnt_ti"], layers_of="tnt_ti", depth=-1)
