"""Presets: every value has its mark, the YAML files say the same as Python, and each preset is what its name says."""

import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

import kd_autoaug
from effkit.errors import UserError
from kd_autoaug.distillation.loss import TopKDistillationLoss
from kd_autoaug.distillation.presets import EVIDENCE, MARKS, PRESETS, preset

CONFIGS = Path(kd_autoaug.__file__).parent / "configs" / "loss"
ARGUMENTS = [n for n in inspect.signature(TopKDistillationLoss).parameters if n != "check_on_gpu"]


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(16, 10, generator=generator)
    teacher = 3 * torch.randn(16, 10, generator=generator)
    return student, teacher, torch.randint(10, (16,), generator=generator)


def test_every_value_has_a_mark() -> None:
    assert {n: set(a) for n, a in PRESETS.items()} == {n: set(e) for n, e in EVIDENCE.items()}
    for name, marks in EVIDENCE.items():
        for argument, text in marks.items():
            assert any(text.startswith(f"[{mark}]") for mark in MARKS), (name, argument)


def test_files_and_presets_agree() -> None:
    assert {f.stem for f in CONFIGS.glob("*.yaml")} == set(PRESETS)
    for name in PRESETS:
        values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        assert set(values) == {"name", *ARGUMENTS}
        built, expected = preset(**values), preset(name)
        assert {a: getattr(built, a) for a in ARGUMENTS} == {a: getattr(expected, a) for a in ARGUMENTS}, name


def test_presets_are_what_their_names_say() -> None:
    student, teacher, labels = batch()
    ce = F.cross_entropy(student, labels)
    assert torch.equal(preset("ce")(student, None, labels)["loss"], ce)
    smooth = F.cross_entropy(student, labels, label_smoothing=0.1)
    assert torch.equal(preset("label_smoothing")(student, None, labels)["loss"], smooth)
    deit = 0.5 * ce + 0.5 * F.cross_entropy(student, teacher.argmax(1))
    torch.testing.assert_close(preset("deit_hard")(student, teacher, labels)["loss"], deit)
    log_student, log_teacher = student.log_softmax(1), teacher.log_softmax(1)
    funmatch = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    torch.testing.assert_close(preset("funmatch")(student, teacher, labels)["loss"], funmatch)
    hinton = 16 * F.kl_div((student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean")
    torch.testing.assert_close(preset("hinton")(student, teacher, labels)["loss"], 0.1 * ce + 0.9 * hinton)
    resmooth = preset("resmooth")(student, teacher, labels)
    torch.testing.assert_close(resmooth["ce"], F.cross_entropy(student / 5, labels))
    reverse = 25 * F.kl_div((teacher / 5).log_softmax(1), (student / 5).softmax(1), reduction="batchmean")
    torch.testing.assert_close(resmooth["kd"], reverse)


def test_function_matching_does_not_read_the_labels() -> None:
    student, teacher, labels = batch(1)
    losses = {float(preset("funmatch")(student, teacher, y)["loss"]) for y in (labels, (labels + 3) % 10)}
    assert len(losses) == 1


def test_overrides_and_unknown_names() -> None:
    assert preset("paper", k=-1, weight=1.0).weight == 1.0
    with pytest.raises(UserError, match=r"loss\.name='papr'.*did you mean 'paper'"):
        preset("papr")
