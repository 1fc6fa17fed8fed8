"""Ghost convolutions against the naive form."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from effkit.errors import UserError
from shiftghost_sr import GhostConv2d, reference
from shiftghost_sr.layers.config import PRESETS, GhostConfig, intrinsic_count, read_ghost


def naive(layer: GhostConv2d, x: torch.Tensor) -> torch.Tensor:
    chosen = layer.shift.chosen_directions()
    number = len(layer.ghosts)
    bounds = layer.placing(layer.shift.chosen()).group_bounds()
    kernels = [reference.one_hot(v, layer.shift.max_shift) for v, (a, b) in zip(chosen, bounds, strict=True)
               for _ in range(a, b)]  # fmt: skip
    assert len(kernels) == number
    indices = (layer.source.tolist(), layer.intrinsic.tolist(), layer.ghosts.tolist())
    return reference.ghost_conv(x, layer.weight, layer.bias, kernels, *indices, layer.groups)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("granularity", ["layer", "group", "channel"])
@pytest.mark.parametrize("order", ["concat", "index"])
def test_forward_is_the_naive_one(ratio, granularity, order):
    torch.manual_seed(0)
    layer = GhostConv2d(3, 12, ghost_ratio=ratio, granularity=granularity, order=order, shift_groups=3).double().eval()
    if order == "index":
        n, channels = layer.out_channels, torch.randperm(12).tolist()
        layer.set_indices(sorted(channels[:n]), sorted(channels[n:]), torch.randint(n, (12 - n,)).tolist())
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, 5, 6, dtype=torch.float64).contiguous(memory_format=layout)
        out = layer(x)
        assert torch.allclose(out, naive(layer, x), rtol=0, atol=1e-14)
        assert out.shape == (2, 12, 5, 6)


def test_ratio_zero_is_a_plain_convolution_bit_for_bit():
    torch.manual_seed(0)
    layer = GhostConv2d(3, 8, ghost_ratio=0)
    plain = nn.Conv2d(3, 8, 3, padding=1)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k in ("weight", "bias")})
    x = torch.randn(2, 3, 6, 5)
    assert torch.equal(layer(x), plain(x))
    assert layer.shift is None
    assert list(dict(layer.named_parameters())) == ["weight", "bias"]


def test_official_rounding_and_sources():
    assert [intrinsic_count(c, r) for c, r in ((64, 0.5), (7, 0.5), (100, 0.29), (3, 0.9), (10, 0.0))] == [
        32,
        4,
        71,
        1,
        10,
    ]
    layer = GhostConv2d(3, 64, ghost_ratio=0.75)
    assert layer.source.tolist() == [k % 16 for k in range(48)]


def test_gradients_in_float64():
    torch.manual_seed(0)
    for order in ("concat", "index"):
        layer = GhostConv2d(2, 5, ghost_ratio=0.6, order=order).double().eval().requires_grad_(False)
        layer.set_indices([1, 3], [0, 2, 4], [1, 1, 0]) if order == "index" else None
        x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(layer, x)


def test_groups_keep_ghosts_inside():
    torch.manual_seed(0)
    layer = GhostConv2d(8, 16, groups=4).double().eval()
    assert layer.source.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    assert torch.allclose(layer(x), naive(layer, x))
    index = GhostConv2d(8, 16, groups=4, order="index")
    assert index.intrinsic.tolist() == [0, 1, 4, 5, 8, 9, 12, 13]


def test_empty_batch_and_casts():
    layer = GhostConv2d(3, 8).eval()
    assert layer(torch.zeros(0, 3, 4, 4)).shape == (0, 8, 4, 4)
    half = copy.deepcopy(layer).bfloat16()
    assert half(torch.randn(1, 3, 4, 4).bfloat16()).dtype == torch.bfloat16
    again = pickle.loads(pickle.dumps(layer))
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(again(x), layer(x))


def test_indices_travel_with_the_state():
    torch.manual_seed(0)
    layer = GhostConv2d(2, 6, order="index")
    layer.set_indices([5, 0, 3], [1, 2, 4], [2, 2, 0])
    other = GhostConv2d(2, 6, order="index")
    x = torch.randn(1, 2, 4, 4)
    other(x)  # what it keeps of its own places must not outlive them
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.eval()(x), layer.eval()(x))
    broken = layer.state_dict()
    broken["source"] = torch.tensor([3, 0, 0])
    with pytest.raises(UserError, match="source"):
        other.load_state_dict(broken)


def test_fixed_kinds():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 5, 5)
    copied = GhostConv2d(3, 8, shift="copy")
    out = copied(x)
    assert torch.equal(out[:, :4], out[:, 4:])
    assert [n for n, _ in copied.named_parameters()] == ["weight", "bias"]
    fixed = GhostConv2d(3, 8, shift="fixed", direction=(1, 0))
    assert fixed.train()(x)[:, 4:].equal(fixed.eval()(x)[:, 4:])
    assert fixed.shift.chosen_directions() == [(1, 0)]
    dw = GhostConv2d(3, 8, shift="depthwise")
    assert dw(x).shape == (1, 8, 5, 5)
    assert sum(p.numel() for p in dw.parameters()) == 4 * 27 + 4 + 4 * 9


def test_presets_and_fields():
    assert read_ghost("none") is None
    assert read_ghost({"preset": "official", "ghost_ratio": 0.25}).estimator == "official"
    for name in PRESETS:
        config = read_ghost(name)
        assert read_ghost(config.to_dict()) == config


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: GhostConv2d(3, 8, ghost_ratio=1.0), ["ghost_ratio=1.0", "below 1"]),
        (lambda: GhostConv2d(3, 8, ghost_ratio=-0.1), ["ghost_ratio=-0.1"]),
        (lambda: GhostConv2d(3, 8, 4), ["kernel_size=4", "odd"]),
        (lambda: GhostConv2d(4, 8, groups=3), ["groups=3"]),
        (lambda: GhostConv2d(3, 8, order="sorted"), ["order='sorted'", "concat"]),
        (lambda: GhostConv2d(3, 8, shift="fixed", direction=(0, 2)), ["direction=(0, 2)", "max_shift=1"]),
        (lambda: GhostConv2d(3, 8, max_shift=-1), ["max_shift=-1"]),
        (lambda: GhostConfig(ghost_ratio="half"), ["ghost.ghost_ratio='half'"]),
        (lambda: GhostConfig(noise_decay=2.0), ["noise_decay=2.0"]),
        (lambda: read_ghost("offical"), ["offical", "did you mean 'official'"]),
        (lambda: read_ghost({"ratio": 0.5}), ["ratio", "ghost_ratio"]),
        (lambda: read_ghost(3), ["ghost=3"]),
        (lambda: GhostConv2d(3, 8).set_indices([0, 1, 2, 2], [4, 5, 6, 7]), ["each once"]),
    ],
)
def test_mistakes(call, words):
    with pytest.raises(UserError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)
