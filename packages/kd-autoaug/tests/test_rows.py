"""The rows of what is known about the paper: complete, labelled, and all structural ones matching."""

from __future__ import annotations

import re

import pytest
import timm
import torch

from effkit.cost import measure_image
from effkit.rows import Outcome, evaluate
from effkit.testing import assert_installed, assert_rows_are_complete, compose_command, composed_commands
from kd_autoaug.cli import main
from kd_autoaug.distillation.presets import PRESETS
from kd_autoaug.paper import figures as paper
from kd_autoaug.paper.defaults import weakest
from kd_autoaug.paper.efficientnet import SIZES, efficientnet
from kd_autoaug.paper.evidence import EVIDENCE, evidence
from kd_autoaug.paper.rows import PAPER, paper_rows

ROWS = paper_rows()
TABLES = [
    "imagenet", "cifar", "magnitude", "detection", "digits", "baselines", "randaugment", "adversarial", "efficientnet",
    "structure", "operators", "policies", "cache", "defaults",
]  # fmt: skip


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return evaluate([row for row in ROWS if row.compute is not None and row.table != "operators"])


@pytest.mark.slow
def test_operators_have_pillows_bits() -> None:
    assert [(o.verdict, o.ours) for o in evaluate(paper_rows("operators"))] == [("match", 0.0)] * 2


def test_rows_are_complete() -> None:
    assert_rows_are_complete(ROWS, TABLES)


@pytest.mark.parametrize(
    ("table", "count", "key", "figure"),
    [
        ("imagenet", 7, ("EfficientNet-B8 + KD", "top-1"), 85.8),
        ("cifar", 3, ("PyramidNet-272 + ShakeDrop + KD", "error on CIFAR-100"), 10.6),
        ("baselines", 40, ("WRN-28-10", "error on CIFAR-100, AutoAugment"), 17.1),
        ("randaugment", 5, ("WRN-28-10", "top-1 on CIFAR-100"), 83.3),
        ("adversarial", 4, ("PyramidNet-272 + ShakeDrop", "error on CIFAR-10"), 1.36),
        ("efficientnet", 25, ("B7", "top-1, RandAugment"), 84.7),
        ("digits", 21, ("CE, M=2", "test accuracy"), 92.9),
    ],
)
def test_rows_of_the_tables(table: str, count: int, key: tuple[str, str], figure: float) -> None:
    rows = {(r.name, r.metric): r.paper for r in paper_rows(table)}
    assert len(rows) == count
    assert rows[key] == figure


def test_only_the_abstract_is_printed() -> None:
    """The text was not reachable: nothing else may stand in the paper's column."""
    assert [(r.name, r.metric, r.paper) for r in ROWS if r.evidence == "printed"] == [
        ("EfficientNet-B8 + KD", "top-1", 85.8)
    ]


def test_labels_keep_the_marks() -> None:
    for row in ROWS:
        if row.evidence == "measured":
            continue  # by ourselves, before
        marks = re.findall(r"\[([A-Z?])\]", row.source)
        assert marks, f"{row.table}, {row.name}: {row.source}"
        assert row.evidence == evidence(weakest(row.source)), f"{row.table}, {row.name}: {row.source}"
    assert {m for r in ROWS for m in re.findall(r"\[([A-Z?])\]", r.source)} <= set(EVIDENCE)


def test_a_claim_of_several_sources_is_as_good_as_the_weakest() -> None:
    assert [weakest(t) for t in ("[S][R] 0.5", "[C] 4 [?]", "[A] abstract", "nothing")] == ["S", "?", "A", "?"]
    assert evidence("S") == evidence("R") == evidence("?") == "unverified"
    with pytest.raises(ValueError, match="mark='X'"):
        evidence("X")


def test_summaries_and_re_implementations_are_never_asserted() -> None:
    for row in ROWS:
        if re.search(r"\[[SR?]\]", row.source):
            assert row.evidence == "unverified", (row.table, row.name)


def test_structural_rows_match(outcomes: list[Outcome]) -> None:
    assert [f"{o.table}, {o.name}, {o.metric}: {o.reason}" for o in outcomes if o.verdict == "differs"] == []
    assert {(o.name, o.metric) for o in outcomes if o.verdict == "nothing to compare"} == {
        (f"Shake-Shake 26 2x{base}d", f"params, {classes} classes") for base in (32, 96) for classes in (10, 100)
    }
    assert sum(o.verdict == "match" for o in outcomes) >= 60


def test_a_wrong_count_differs() -> None:
    rows = {(r.table, r.name, r.metric): r for r in ROWS}
    judged = [
        rows["structure", "WRN-28-10", "params, 10 classes"].judge(36_489_290),  # the variant's
        rows["structure", "WRN-28-10", "MACs, 10 classes"].judge(5_951_117_568),
        rows["structure", "Shake-Shake 26 2x96d", "params, 10 classes, with idle shortcuts"].judge(26_192_906),
        rows["imagenet", "EfficientNet-B8 + KD", "params"].judge(66.3),  # B7's
        rows["policies", "AutoAugment's search space, 5 sub-policies", "policies, in 10^32"].judge(0.29),
        rows["cache", "ImageNet, 300 views, K=5", "size"].judge(7.7),  # without the sum of exponentials
        rows["operators", "RGB and grey, 1x1 to 33x20, all operators and interpolations, backend torch",
             "differing bytes"].judge(1),
    ]  # fmt: skip
    assert [o.verdict for o in judged] == ["differs"] * len(judged)


def test_defaults_are_those_of_the_presets_and_change_with_them(monkeypatch) -> None:
    rows = {(r.name, r.metric): r for r in paper_rows("defaults")}
    row = rows["loss=paper", "lambda (loss.weight)"]
    assert (row.evaluate().ours, row.evidence) == (0.5, "unverified")
    monkeypatch.setitem(PRESETS["paper"], "weight", 0.7)
    assert (row.evaluate().ours, row.evaluate().verdict) == (0.7, "differs")
    for preset in ("paper", "resmooth"):
        assert all(r.evidence == "unverified" for (name, _), r in rows.items() if name == f"loss={preset}")


def test_teacher_share_is_that_of_exact_counts() -> None:
    assert efficientnet("B0").macs == paper.EFFICIENTNET_MACS["B0"]
    assert efficientnet("B7").macs == paper.EFFICIENTNET_MACS["B7"]


@pytest.mark.parametrize("size", SIZES)
def test_closed_forms_are_timms_networks(size: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"tf_efficientnet_{size.lower()}").eval()
    side = model.default_cfg["input_size"][-1]
    assert side == SIZES[size].side
    cost = measure_image(model, side)
    assert (cost.params, cost.macs) == efficientnet(size)


def test_few_rows_can_be_measured_here() -> None:
    assert len([row for row in ROWS if row.compute is None]) > 100


def test_their_commands_compose() -> None:
    assert len({row.command for row in ROWS if row.command}) > 40
    assert len(list(composed_commands(main, ROWS))) > 20


def test_commands_train_what_their_row_names() -> None:
    rows = {(r.table, r.name, r.metric): r for r in ROWS}

    def config(*key: str):
        return compose_command(main, rows[key].command)

    b8 = config("imagenet", "EfficientNet-B8 + KD", "top-1")
    assert (b8.model.name, b8.teacher.name, b8.data.image_size) == ("tf_efficientnet_b8", "tf_efficientnet_b8", 800)
    off = config("cifar", "WRN-28-10 (by context), augmentation off for the last 50 epochs", "error on CIFAR-100")
    assert off.trainer.max_epochs * (1 - off.policy_until) == 50
    assert off.data.name == "cifar100"
    plain = config("baselines", "Shake-Shake 26 2x112d", "error on CIFAR-10, baseline")
    assert (plain.model.name, plain.policy.name, plain.view.cutout) == ("shake_shake_26_2x112d", "none", 0)
    cut = config("baselines", "WRN-40-2", "error on CIFAR-100, cutout")
    assert (cut.model.name, cut.data.name, cut.view.cutout, cut.policy.name) == ("wrn_40_2", "cifar100", 16, "none")
    fast = config("baselines", "PyramidNet-272 + ShakeDrop", "error on CIFAR-10, Fast AutoAugment")
    assert fast.policy.name == "fast-aa-cifar10"


def test_selection() -> None:
    assert {row.table for row in paper_rows("cache")} == {"cache"}
    assert {row.table for row in paper_rows(["defaults", "cifar"])} == {"cifar", "defaults"}
    with pytest.raises(ValueError, match=r"(?s)table.*'5'.*structure"):
        paper_rows(5)


def test_installed_under_its_name() -> None:
    assert_installed(PAPER)
    assert "2003.11342" in PAPER.reference
