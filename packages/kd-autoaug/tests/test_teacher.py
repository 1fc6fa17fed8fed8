"""The teacher: frozen, on the same view, with its own normalisation and size."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effkit.errors import UserError
from kd_autoaug.distillation.loss import TopKDistillationLoss
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.views import ViewKey

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def network(seed: int = 0, in_chans: int = 3) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(in_chans, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
        )  # fmt: skip


def pictures(batch: int = 4, channels: int = 3, side: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, channels, side, side), dtype=torch.uint8, generator=generator)


def key(index: list[int], view: list[int], augment: str = "a" * 64) -> ViewKey:
    return ViewKey(torch.tensor(index), torch.tensor(view), augment)


def test_normalises_its_own_way() -> None:
    model, images = network().eval(), pictures()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    expected = model((images.float() / 255 - mean) / std)
    found = Teacher(model, MEAN, STD)(images)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(Teacher(model, 0.5, 0.5)(images), expected)


def test_does_not_move_whatever_is_done_to_it() -> None:
    model, images = network(), pictures()
    teacher = Teacher(model, MEAN, STD)
    before, first = {k: v.clone() for k, v in model.state_dict().items()}, teacher(images)

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.teacher = network(1), teacher

    student = Student().train()
    teacher.train()
    model.train()  # behind the teacher's back
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    normalised = images.float() / 255
    for _ in range(3):
        loss = TopKDistillationLoss()(student.net(normalised), teacher(images), torch.zeros(4, dtype=torch.int64))
        loss["loss"].backward()
        optimizer.step()
    assert torch.equal(teacher(images), first)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert len(list(student.parameters())) == len(list(student.net.parameters()))
    assert set(student.state_dict()) == {f"net.{k}" for k in student.net.state_dict()}


def test_its_answer_can_enter_a_graph() -> None:
    # Tensors of inference mode could not: autograd refuses to save them.
    student = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for direction in ("student_teacher", "teacher_student"):
        terms = TopKDistillationLoss(direction=direction)(
            student, Teacher(network(), MEAN, STD)(pictures()), torch.zeros(4).long()
        )
        terms["loss"].backward()
    assert student.grad.abs().sum() > 0


def test_resizes_the_same_view() -> None:
    images = pictures(side=12)
    seen: list[torch.Tensor] = []
    model = network()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for interpolation in ("nearest", "bilinear", "bicubic"):
        Teacher(model, 0.0, 1.0, size=6, interpolation=interpolation)(images)
        assert seen[-1].shape == (4, 3, 6, 6)
        assert 0 <= float(seen[-1].min()) <= float(seen[-1].max()) <= 1
    expected = F.interpolate(images.float(), (6, 6), mode="bilinear", antialias=True) / 255
    torch.testing.assert_close(seen[1], expected)
    Teacher(model, 0.0, 1.0, size=(24, 12))(images)
    assert seen[-1].shape == (4, 3, 24, 12)
    Teacher(model, 0.0, 1.0, size=12)(images)
    assert torch.equal(seen[-1], images.float() / 255)


def test_dtype_is_its_own_under_autocast() -> None:
    images = pictures()
    plain = Teacher(network(), MEAN, STD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(plain(images), Teacher(network(), MEAN, STD)(images))
    half = Teacher(network(), MEAN, STD, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert half(images).dtype == torch.float32
    torch.testing.assert_close(half(images), plain(images), rtol=0.05, atol=0.05)
    exact = Teacher(network(), MEAN, STD, dtype=torch.float64)(images)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), plain(images))


def test_grey_and_empty_and_one_pixel() -> None:
    assert Teacher(network(in_chans=1), 0.5, 0.5)(pictures(channels=1)).shape == (4, 5)
    assert Teacher(network(), MEAN, STD)(pictures(batch=0)).shape == (0, 5)
    assert Teacher(network(), MEAN, STD)(pictures(side=1)).shape == (4, 5)


def test_mixed_views_are_floats_of_the_same_range() -> None:
    teacher, images = Teacher(network(), MEAN, STD), pictures()
    assert torch.equal(teacher(images.float()), teacher(images))
    mixed = 0.5 * images.float() + 0.5 * images.flip(0).float()
    assert not torch.equal(teacher(mixed), teacher(images))


def test_fingerprint_covers_what_decides_the_answers() -> None:
    base = Teacher(network(), MEAN, STD).fingerprint()
    assert base == Teacher(network(), list(MEAN), STD).fingerprint()
    others = [
        Teacher(network(1), MEAN, STD),
        Teacher(network(), (0.5, 0.4, 0.31), STD),
        Teacher(network(), MEAN, 0.25),
        Teacher(network(), MEAN, STD, size=16),
        Teacher(network(), MEAN, STD, size=16, interpolation="nearest"),
        Teacher(network(), MEAN, STD, dtype="bfloat16"),
        Teacher(nn.Sequential(*network()[:2], nn.GELU(), *network()[3:]), MEAN, STD),
    ]
    prints = [t.fingerprint() for t in others]
    assert len({base, *prints}) == len(others) + 1
    same_preparation = {t.normalisation_fingerprint() for t in (others[0], others[5], others[6])}
    assert same_preparation == {Teacher(network(), MEAN, STD).normalisation_fingerprint()}
    teacher = Teacher(network(), MEAN, STD)
    teacher.model.train()(torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert teacher.fingerprint() != base  # its batch statistics were moved: that shows
    with torch.no_grad():
        teacher.model[1].reset_running_stats()
    teacher.model[1].num_batches_tracked += 3
    assert teacher.fingerprint() == base


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((MEAN, 0.0), {}, r"teacher\.std=\[0\.0\] must be above 0"),
        (("abc", STD), {}, r"teacher\.mean='abc' must be a number"),
        (((0.5, math.nan, 0.5), STD), {}, r"teacher\.mean=.*nan"),
        ((MEAN, STD), {"size": 0}, r"teacher\.size=0 must be a side"),
        ((MEAN, STD), {"size": (8, 8, 8)}, r"teacher\.size=\(8, 8, 8\)"),
        ((MEAN, STD), {"dtype": "float8"}, r"teacher\.dtype='float8' is not known"),
        ((MEAN, STD), {"interpolation": "bilnear"}, r"did you mean 'bilinear'"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Teacher(network(), *arguments, **options)


def test_bad_pictures_are_refused() -> None:
    teacher = Teacher(network(), MEAN, STD)
    with pytest.raises(UserError, match=r"teacher\.mean has 3 values, but the pictures have 1 channels"):
        teacher(pictures(channels=1))
    with pytest.raises(UserError, match=r"torch\.int64 of shape \(4, 3, 8, 8\), expected uint8"):
        teacher(pictures().long())
    with pytest.raises(UserError, match="names 2 views, but there are 4 pictures"):
        teacher(pictures(), key([0, 1], [0, 0]))
    with pytest.raises(UserError, match=r"gives \(4, 6, 8, 8\) for 4 pictures"):
        Teacher(network()[:3], MEAN, STD)(pictures())
    with pytest.raises(UserError, match=r"must be a torch\.nn\.Module, got str"):
        Teacher("resnet18", MEAN, STD)  # type: ignore[arg-type]


# --- the same view ----------------------------------------------------------------------------------------------------


def test_equal_keys_pass_and_others_are_refused() -> None:
    mine = key([3, 1, 2], [5, 5, 5])
    mine.check(mine, "teacher")
    mine.check(key([3, 1, 2], [5, 5, 5]), "teacher")
    with pytest.raises(UserError, match="index of the teacher is 2 at place 1, expected 1"):
        mine.check(key([3, 2, 1], [5, 5, 5]), "teacher")
    with pytest.raises(UserError, match="view of the cache is 4 at place 2, expected 5"):
        mine.check(key([3, 1, 2], [5, 5, 4]), "cache")
    with pytest.raises(UserError, match="index of the teacher has 2 entries, expected 3"):
        mine.check(key([3, 1], [5, 5]), "teacher")
    with pytest.raises(UserError, match="augment of the teacher is bbbbbbbbbbbb, expected aaaaaaaaaaaa"):
        mine.check(key([3, 1, 2], [5, 5, 5], "b" * 64), "teacher")


def test_malformed_keys_are_refused() -> None:
    with pytest.raises(UserError, match="index has 2 entries and view 1"):
        key([0, 1], [0])
    with pytest.raises(UserError, match=r"view must be int64 of shape \(B,\), got torch\.float32"):
        ViewKey(torch.tensor([0]), torch.tensor([0.0]), "a")
