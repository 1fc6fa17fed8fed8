"""The analysis as a whole: a grid over operators and magnitudes, its probes, and the reports made of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor, nn

from kd_autoaug.analysis.flags import flags
from kd_autoaug.analysis.probe import ProbeTrainer
from kd_autoaug.analysis.result import POLICY, AnalysisResult, read_analysis
from kd_autoaug.analysis.study import answers
from kd_autoaug.analysis.subject import Subject
from kd_autoaug.analysis.sweep import analyze
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.commands.analyze import analyze_report
from kd_autoaug.commands.suggest import suggest_report

OPERATORS = ["identity", "translate_x", "rotate"]
MAGNITUDES = [0.3, 2.0]


def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.from_numpy((found.images * 255 / 16).round().astype("uint8"))[:, None], torch.from_numpy(found.target)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )


@pytest.fixture(scope="module")
def trainer() -> ProbeTrainer:
    images, labels = digits()
    return ProbeTrainer(network, images[:400], labels[:400], [0.3], [0.35], epochs=10)


@pytest.fixture(scope="module")
def teacher(trainer):
    return trainer(None)


@pytest.fixture(scope="module")
def result(teacher, trainer) -> AnalysisResult:
    images, labels = digits()
    return analyze(
        teacher, images[1000:1300], labels[1000:1300], operators=OPERATORS, magnitudes=MAGNITUDES, space="linear",
        draws=3, probe=trainer, confirm=dataclasses.replace(trainer, epochs=20), batch_size=128, resamples=200,
    )  # fmt: skip


def test_identity_has_exactly_no_effect(result) -> None:
    for cell in result.row("identity"):
        for name in ("confidence_drop", "outlier_rate", "view_kl"):
            assert cell.estimates[name] == (0.0, 0.0, 0.0), name
        for name in ("teacher_accuracy", "teacher_entropy", "information_teacher"):
            assert cell.value(name) == pytest.approx(result.clean.value(name), abs=1e-12)
        assert cell.mass == pytest.approx(result.clean.mass)


def test_the_grid_is_complete_and_in_order(result) -> None:
    assert result.operators == OPERATORS
    assert result.magnitudes == MAGNITUDES
    assert [(c.operator, c.magnitude) for c in result.cells] == [
        (o, m) for o in [*OPERATORS, POLICY] for m in MAGNITUDES
    ]
    assert all(set(c.estimates) - {"information_longer"} == set(result.statistics) for c in result.cells)
    with pytest.raises(ValueError, match=r"magnitude=5"):
        result.cell("rotate", 5)
    with pytest.raises(ValueError, match=r"operator='shear_x' is not known"):
        result.row("shear_x")


def test_geometry_takes_more_of_the_teacher_the_stronger_it_is(result) -> None:
    for name in ("translate_x", "rotate", POLICY):
        drops = [c.value("confidence_drop") for c in result.row(name)]
        assert drops == sorted(drops)
        assert drops[1] > drops[0] + 0.1


def test_what_is_out_of_the_picture_no_probe_finds(result) -> None:
    """Two sides' translation: blank for most draws. Rotation by 60 degrees only confuses who never saw it."""
    gone, turned = result.cell("translate_x", 2.0), result.cell("rotate", 2.0)
    assert gone.blank > 0.8
    assert gone.value("information_probe") < 0.7
    assert turned.blank == 0.0
    assert turned.value("information_teacher") < 1.2
    assert turned.value("information_probe") > turned.value("information_teacher") + 1
    assert "information_longer" in gone.estimates  # looked at again, because the first probe found little
    assert "information_longer" not in turned.estimates
    flagged = {(f.operator, f.magnitude) for f in flags(result) if f.certain}
    assert ("translate_x", 2.0) in flagged
    assert ("rotate", 2.0) not in flagged
    assert ("identity", 0.3) not in flagged


def test_figures_of_a_cell_by_hand(result, teacher) -> None:
    images, labels = digits()
    images, labels = images[1000:1300], labels[1000:1300]
    policy = Policy.random(ops=["rotate"], n=1, m=2.0, space="linear", prob=1.0)
    augment, index = BatchAugment(policy, 0), torch.arange(300)
    right = teacher(images).argmax(-1) == labels
    wrong = torch.stack([teacher(augment(images, index, v)).argmax(-1) != labels for v in range(3)], 1)
    cell = result.cell("rotate", 2.0)
    assert cell.value("outlier_rate") == pytest.approx(float(wrong[right].double().mean()))
    assert cell.value("teacher_accuracy") == pytest.approx(1 - float(wrong.double().mean()))
    of_class = right & (labels == 4)
    assert cell.per_class["outlier_rate"][4] == pytest.approx(float(wrong[of_class].double().mean()))


def test_the_gallery_holds_views_as_the_teacher_saw_them(result, teacher) -> None:
    images, labels = digits()
    for cell in result.cells:
        for worst in cell.worst:
            assert torch.equal(worst.picture, images[1000 + worst.index])
            assert worst.label == int(labels[1000 + worst.index]) == int(teacher(worst.picture[None]).argmax())
            probs = torch.softmax(teacher(worst.view[None]).double(), -1)[0]
            classes = [c for c, _ in worst.top]
            assert [p for _, p in worst.top] == pytest.approx(probs[classes].tolist(), abs=1e-5)
            assert worst.top == sorted(worst.top, key=lambda t: -t[1])
    assert all(w.label != w.top[0][0] for w in result.cell("rotate", 2.0).worst)


def test_same_seed_same_figures_and_no_global_draws(teacher) -> None:
    images, labels = digits()
    state = torch.get_rng_state()

    def run(seed: int) -> AnalysisResult:
        return analyze(
            teacher, images[:60], labels[:60], operators=["rotate"], magnitudes=[1.0], space="linear", draws=2,
            seed=seed, resamples=50, policy_layers=0,
        )  # fmt: skip

    first, again, other = run(3).to_json(), run(3).to_json(), run(4).to_json()
    assert torch.equal(state, torch.get_rng_state())
    assert json.dumps(first) == json.dumps(again)
    assert first["cells"] != other["cells"]


def test_operators_without_argument_are_measured_once(teacher) -> None:
    images, labels = digits()
    asked = []

    def counting(pictures: Tensor) -> Tensor:
        asked.append(len(pictures))
        return teacher(pictures)

    found = analyze(
        counting, images[:20], labels[:20], operators=["identity"], magnitudes=[0.1, 0.5, 1.0], space="linear",
        draws=2, policy_layers=0, resamples=20,
    )  # fmt: skip
    assert len(asked) == 2 + 2  # the pictures twice (reference and its row), the views once each
    assert [c.magnitude for c in found.cells] == [0.1, 0.5, 1.0]
    assert len(found.table().rows) == 2


def test_black_pictures_tell_nothing() -> None:
    """Posterize to 0 bits is black: blank views, information of any classifier at most 0, flagged without probe."""
    images, labels = digits()
    weights = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) / 400

    def linear(pictures: Tensor) -> Tensor:
        return pictures.flatten(1).float() @ weights + torch.arange(10) / 10

    found = analyze(
        linear, images[:200], labels[:200], operators=["posterize"], magnitudes=[0, 10], space="tf_tpu", draws=2,
        policy_layers=0, resamples=50,
    )  # fmt: skip
    black, four = found.row("posterize")
    assert black.blank == 1.0
    assert black.value("information_teacher") <= 0
    assert four.blank == 0.0
    assert [(f.operator, f.magnitude, f.reason) for f in flags(found)] == [
        ("posterize", 0.0, "100% of the views are one flat colour")
    ]


def test_a_policy_is_measured_as_it_is(teacher) -> None:
    images, labels = digits()
    policy = Policy.from_name("randaugment(n=1,m=2,space=linear,ops=rotate)")
    found = analyze(
        teacher, images[:50], labels[:50], operators=["rotate"], magnitudes=[2.0], space="linear", draws=2,
        policies=[policy], policy_layers=0, resamples=20,
    )  # fmt: skip
    single, whole = found.cells
    assert (whole.operator, whole.magnitude) == (policy.name, None)
    assert whole.value("teacher_accuracy") == single.value("teacher_accuracy")
    assert found.operators == ["rotate"]


def test_answers_do_not_depend_on_the_batch(teacher) -> None:
    images, _ = digits()
    augment = BatchAugment(Policy.random(n=2, m=1.0, space="linear"), 5)
    whole, _ = answers(teacher, augment, images[:30], torch.arange(30), 2, 30)
    parts, _ = answers(teacher, augment, images[:30], torch.arange(30), 2, 7)
    torch.testing.assert_close(whole, parts)


def test_a_probe_learns_and_is_reproducible(trainer) -> None:
    images, labels = digits()
    state = torch.get_rng_state()
    one, two = trainer(None), trainer(None)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one(images[:8]), two(images[:8]))
    assert float((one(images[1000:]).argmax(-1) == labels[1000:]).float().mean()) > 0.85


def test_mistakes_are_refused_with_names(teacher) -> None:
    images, labels = digits()
    images, labels = images[:10], labels[:10]
    good = {"operators": ["rotate"], "magnitudes": [1.0], "space": "linear"}
    for change, words in (
        ({"operators": []}, r"operators=\[\]"),
        ({"operators": ["rotate", "rotate"]}, r"operators=\['rotate', 'rotate'\]"),
        ({"operators": ["rotat"]}, r"operator='rotat'.*rotate"),
        ({"magnitudes": []}, "magnitudes is empty"),
        ({"magnitudes": [99.0]}, r"99.*linear"),
        ({"draws": 0}, "draws=0"),
        ({"space": "nowhere"}, r"space.*nowhere"),
        ({"class_names": ["a"]}, "class_names holds 1"),
    ):
        with pytest.raises(ValueError, match=words):
            analyze(teacher, images, labels, **{**good, **change})
    with pytest.raises(ValueError, match="uint8"):
        analyze(teacher, images.float(), labels, **good)
    with pytest.raises(ValueError, match=r"labels must be \(10,\)"):
        analyze(teacher, images, labels[:3], **good)
    with pytest.raises(ValueError, match="epochs=0"):
        ProbeTrainer(network, images, labels, [0.3], [0.3], epochs=0)


def test_reports_and_files(teacher, tmp_path) -> None:
    images, labels = digits()
    subject = Subject(
        "digits, test", images[1000:1150], labels[1000:1150], torch.arange(150), list("0123456789"), teacher, "small",
        images[:100], labels[:100], network, [0.3], [0.35],
    )  # fmt: skip
    options = {"operators": ["rotate", "identity"], "magnitudes": [0.3, 1.0], "space": "linear", "draws": 2}
    report = analyze_report(subject, tmp_path, **options, probe=True, probe_epochs=2, resamples=50)
    assert all(f.is_file() and (f.suffix != ".png" or f.stat().st_size < 300 * 1024) for f in report.files)
    assert {f.name for f in report.files} >= {"analysis.json", "grid.csv", "gallery.png", "information_probe.png"}
    assert any("adapted probe" in line for line in report.lines)
    json.dumps(report.to_json(), allow_nan=False)
    with open(tmp_path / "grid.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + 3 * 2
    assert float(rows[1]["outlier_rate_low"]) <= float(rows[1]["outlier_rate"]) <= float(rows[1]["outlier_rate_high"])
    # An earlier analysis is read back, figure for figure, and advice is given without measuring again.
    back = read_analysis(tmp_path)
    assert (
        back.to_json()["cells"][0]["estimates"]
        == json.loads((tmp_path / "analysis.json").read_text())["cells"][0]["estimates"]
    )
    advice = suggest_report(tmp_path / "advice", analysis=tmp_path / "analysis.json", budget=1.0)
    assert advice.data["policy"]["magnitude"] == 1.0
    assert (tmp_path / "advice" / "k.png").is_file()
    with pytest.raises(ValueError, match=r"analysis=.*does not exist"):
        suggest_report(tmp_path, analysis=tmp_path / "nothing.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="no analysis"):
        suggest_report(tmp_path, analysis=tmp_path / "other.json")
    with pytest.raises(ValueError, match="analysis is not set"):
        suggest_report(tmp_path)


def test_a_class_without_known_pictures_is_nan_not_zero(teacher) -> None:
    images, labels = digits()
    some = labels[:100] != 3
    found = analyze(
        teacher, images[:100][some], labels[:100][some], operators=["rotate"], magnitudes=[1.0], space="linear",
        draws=1, policy_layers=0, resamples=20,
    )  # fmt: skip
    assert math.isnan(found.cells[0].per_class["outlier_rate"][3])
    assert found.to_json()["cells"][0]["operator"] == "rotate"
