"""Shifts against depthwise convolutions, their gradients, and the draw of directions."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F

from effkit.errors import UserError
from shiftghost_sr import LearnableShift2d, reference, set_epoch, shift2d
from shiftghost_sr.layers.schedule import shift_logits
from shiftghost_sr.layers.shift import direction_set, gumbel
from shiftghost_sr.ops.ghost import Placing, ghost_maps

MOVES = list(itertools.product(range(-2, 3), repeat=2))
FRAMES = [(5, 7), (1, 1), (1, 6), (4, 1), (2, 2)]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shift_is_a_depthwise_one_hot_convolution_bit_for_bit(dtype, channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for v, frame in itertools.product(MOVES, FRAMES):
        x = torch.randn(2, 3, *frame).to(dtype).contiguous(memory_format=layout)
        moved = shift2d(x, v)
        assert torch.equal(moved, reference.shift(x, reference.one_hot(v, 2))), (v, frame)
        assert moved.is_contiguous(memory_format=layout)


def test_content_moves_against_the_direction():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert shift2d(x, (0, 1)).flatten().tolist() == [1, 2, 0, 4, 5, 0]
    assert shift2d(x, (-1, 0)).flatten().tolist() == [0, 0, 0, 0, 1, 2]


def test_there_and_back_is_nothing_but_at_the_border():
    x = torch.randn(1, 2, 6, 7)
    for a, b in MOVES:
        back = shift2d(shift2d(x, (a, b)), (-a, -b))
        assert torch.equal(back[..., 2:-2, 2:-2], x[..., 2:-2, 2:-2])


def test_adjoint():
    f, g = torch.randn(2, 2, 3, 5, 4, dtype=torch.float64)
    for a, b in MOVES:
        assert float((shift2d(f, (a, b)) * g).sum()) == pytest.approx(float((f * shift2d(g, (-a, -b))).sum()))


def test_gradcheck_of_both_operators():
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: shift2d(t, (1, -1)), x)
    assert torch.autograd.gradgradcheck(lambda t: shift2d(t, (1, -1)), x)
    for source in ([0, 1], [1, 1, 0], [1, 0, 0, 1, 1]):
        placing = Placing(direction_set(1), (2,), torch.tensor(source))
        kernel = torch.zeros(1, 9, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda t, p=placing, k=kernel: ghost_maps(t, k, p), x)


@pytest.mark.parametrize("estimator", ["official", "st_gumbel_softmax"])
@pytest.mark.parametrize("granularity", ["layer", "group", "channel"])
def test_gradients_of_logits_are_those_of_the_dense_kernel(estimator, granularity):
    torch.manual_seed(0)
    shift = LearnableShift2d(channels=6, granularity=granularity, groups=3, estimator=estimator).double().eval()
    f = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    ours = torch.autograd.grad((shift(f) * weight).sum(), [f, shift.logits])
    groups = len(shift.logits)
    chosen = shift.chosen()
    kernels = [
        reference.training_kernel(row.view(3, 3), k, row, estimator)
        for row, k in zip(shift.logits, chosen, strict=True)
    ]
    assert list(chosen) == [reference.chosen_direction(row, estimator) for row in shift.logits]
    naive = torch.cat([reference.shift(f[:, c : c + 1], kernels[c * groups // 6]) for c in range(6)], dim=1)
    theirs = torch.autograd.grad((naive * weight).sum(), [f, shift.logits])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-13)


def test_backward_is_deterministic_and_stays_in_the_logits_type():
    shift = LearnableShift2d(channels=3)
    x = torch.randn(1, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        shift.logits.grad = None
        shift(x).square().sum().backward()
        found.append(shift.logits.grad.clone())
    assert torch.equal(*found)
    assert found[0].dtype == torch.float32


def test_equal_logits_do_not_move():
    shift = LearnableShift2d(init="zeros").eval()
    assert shift.chosen_directions() == [(0, 0)]
    shift.logits.data[0, [0, 1]] = 2.0
    assert shift.chosen_directions() == [(-1, 0)]  # nearer than (-1, -1)


def test_estimators_differ_where_a_logit_is_very_negative():
    for estimator, expected in (("official", (1, 1)), ("st_gumbel_softmax", (0, 0))):
        shift = LearnableShift2d(init="zeros", estimator=estimator).eval()
        shift.logits.data[0, 8] = -3.0
        assert shift.chosen_directions() == [expected]


def test_zero_logits_draw_all_directions_alike():
    torch.manual_seed(0)
    shift = LearnableShift2d(init="zeros")
    with torch.no_grad():
        counts = torch.bincount(torch.tensor([shift.draw()[1][0] for _ in range(4500)]), minlength=9)
    chi2 = float(((counts - 500.0) ** 2 / 500.0).sum())
    assert chi2 < 26.1  # 8 degrees of freedom, one in a thousand


def test_noise_falls_with_the_epoch():
    torch.manual_seed(0)
    shift = LearnableShift2d()
    assert shift.noise_scale == 1.0
    assert set_epoch(shift, 300) == 1
    assert shift.noise_scale == pytest.approx(0.97**299)
    best = shift.chosen()
    assert all(shift.draw()[1] == best for _ in range(50))


def test_schedule_is_kept_in_the_state_and_by_casts():
    shift = LearnableShift2d()
    set_epoch(shift, 17.25)
    other = LearnableShift2d()
    other.load_state_dict(shift.state_dict())
    assert other.epoch == 17.25
    for cast in (copy.deepcopy(other).half(), copy.deepcopy(other).bfloat16()):
        assert cast.epoch == 17.25
        assert cast.logits.dtype == torch.float32
        assert torch.equal(cast.logits, shift.logits)
    assert other.double().logits.dtype == torch.float64


def test_noise_is_finite():
    torch.manual_seed(0)
    noise = gumbel((1_000_000,))
    assert bool(noise.isfinite().all())
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)


def test_sampler_is_the_references():
    torch.manual_seed(0)
    shift = LearnableShift2d()
    set_epoch(shift, 3)
    for estimator in ("official", "st_gumbel_softmax"):
        shift.estimator = estimator
        torch.manual_seed(4)
        ours = [shift.draw()[1][0] for _ in range(20)]
        torch.manual_seed(4)
        uniform = [torch.rand(1, 9) for _ in range(20)]
        assert ours == [reference.sample(shift.logits.detach(), u, 3, estimator) for u in uniform]


def test_directions_and_logits():
    assert len(direction_set(2)) == 25
    assert direction_set(1, "axis5") == ((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0))
    shift = LearnableShift2d(2, directions="axis5", init=(0, -2)).eval()
    assert shift.chosen_directions() == [(0, -2)]
    assert shift_logits(shift) == [shift.logits]
    assert shift_logits(LearnableShift2d(learned=False)) == []


def test_what_is_shifted_may_be_checkpointed():
    torch.manual_seed(0)
    shift = LearnableShift2d(channels=2)
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    for _ in range(10):
        y = torch.utils.checkpoint.checkpoint(shift, x, use_reentrant=False)
        (grad,) = torch.autograd.grad(y.sum(), x)
        # The direction that the second pass drew is the first pass's: what left the frame has no gradient.
        assert torch.equal(grad.sum((0, 1)) > 0, grad[0, 0] > 0)
        assert float(grad.sum()) == float((y != 0).sum())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shift2d(torch.zeros(3), (0, 0)), ["x must be", "1 dimensions"]),
        (lambda: shift2d(torch.zeros(3, 3), (0, 0.5)), ["direction=(0, 0.5)", "two whole numbers"]),
        (lambda: LearnableShift2d(-1), ["max_shift=-1", "0 or more"]),
        (lambda: LearnableShift2d(granularity="row"), ["granularity='row'", "layer"]),
        (lambda: LearnableShift2d(granularity="channel"), ["channels="]),
        (lambda: LearnableShift2d(estimator="soft"), ["estimator='soft'", "official"]),
        (lambda: LearnableShift2d(init=(2, 0)), ["direction=(2, 0)"]),
        (lambda: LearnableShift2d(channels=3)(torch.zeros(1, 2, 3, 3)), ["2 channels", "3"]),
        (lambda: set_epoch(LearnableShift2d(), -1), ["epoch=-1"]),
    ],
)
def test_mistakes(call, words):
    with pytest.raises(UserError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)


def test_diverged_logits_are_refused():
    shift = LearnableShift2d().eval()
    shift.logits.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        shift(torch.zeros(1, 1, 2, 2))


def test_functional_agrees_with_unfold():
    x = torch.randn(1, 1, 4, 5)
    patches = F.unfold(x, 3, padding=1).view(9, 4, 5)
    for k, v in enumerate(direction_set(1)):
        assert torch.equal(shift2d(x, v)[0, 0], patches[k])
