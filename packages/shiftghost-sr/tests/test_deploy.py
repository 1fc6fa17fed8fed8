"""The deployed form equals the network: every architecture, every direction, frames of every size."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effkit.errors import UserError
from shiftghost_sr import GhostConv2d, create_model, deploy
from shiftghost_sr.compression.deployment.folded import FoldedConv2d, Group
from shiftghost_sr.compression.deployment.slices import AddSlices
from shiftghost_sr.compression.deployment.tail import StreamedTail
from shiftghost_sr.compression.forms import set_direction
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.layers.shift import direction_set
from shiftghost_sr.ops import bands
from shiftghost_sr.ops.fold import exact_boxes, support
from shiftghost_sr.ops.shift import shift2d

SIZES = {
    "edsr": {"blocks": 2, "features": 8},
    "edsr_baseline": {"blocks": 2, "features": 8},
    "rdn": {"blocks": 2, "layers": 3, "features": 8, "growth": 8},
    "carn": {"features": 8},
    "carn_m": {"features": 16},
    "imdn": {"features": 16, "blocks": 2},
    "imdn_ntire": {"features": 16, "blocks": 2},
    "vdsr": {"layers": 5, "features": 8},
}
FRAMES = [(1, 1), (1, 6), (4, 1), (2, 2), (3, 2), (5, 7)]
KINDS = {
    "concat": {},
    "index": {"order": "index"},
    "quarter": {"ghost_ratio": 0.25},
    "three quarters": {"ghost_ratio": 0.75},
    "channels": {"granularity": "channel"},
    "two pixels": {"max_shift": 2},
    "copies": {"shift": "copy"},
    "depthwise": {"shift": "depthwise"},
}


def small(name: str, **ghost) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(name, 2, ghost, **SIZES[name]).double().eval()
    if name == "vdsr":
        model.output.weight.data.mul_(100)
    for _, shift in shifts(model):
        if shift.learned:
            shift.logits.data.normal_()
    return model


def assert_same(fast: nn.Module, model: nn.Module, frames=FRAMES) -> None:
    for frame in frames:
        x = torch.rand(2, model.channels, *frame, dtype=torch.float64)
        before = x.clone()
        with torch.no_grad():
            expected, found = model(x), fast(x)
        assert torch.equal(x, before)  # nothing that is given is written to
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) <= 1e-12 * float(expected.abs().max()), frame


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SIZES)
def test_equals_the_network(name, kind):
    model = small(name, **KINDS[kind])
    frames = [*FRAMES, (37, 53)] if kind == "concat" else FRAMES
    assert_same(deploy(model), model, frames)


@pytest.mark.parametrize("name", SIZES)
def test_other_ways_of_running_equal_the_network(name):
    model = small(name)
    for how in ({"portable": True}, {"diagonal": "taps"}, {"diagonal": "box"}):
        assert_same(deploy(model, **how), model)
    last = deploy(model).to(memory_format=torch.channels_last)
    x = torch.rand(1, model.channels, 9, 11, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(last(x.contiguous(memory_format=torch.channels_last)), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["concat", "index", "two pixels"])
@pytest.mark.parametrize("name", SIZES)
def test_bands_of_rows_are_the_whole(name, kind, monkeypatch):
    """As many bands as a frame has rows, up to eight; with large frames on a CPU they are what runs."""
    monkeypatch.setattr(bands, "_LEAST_ON_HOST", 1)
    model = small(name, **KINDS[kind])
    fast = deploy(model)
    assert_same(fast, model, [(1, 6), (5, 4), (19, 7)])
    if name.startswith("edsr"):
        assert_same(fast.to(memory_format=torch.channels_last), model, [(11, 6)])


def test_how_many_bands():
    rows = lambda *shape, device="cpu": [b - a for a, b in bands.bands(torch.empty(shape, device=device))]
    assert rows(1, 3, 180, 320) == [22, 23, 22, 23, 22, 23, 22, 23]
    assert rows(1, 3, 40, 120) == [20, 20]
    assert rows(1, 3, 63, 64) == [63]
    assert rows(0, 3, 180, 320) == [180]
    assert rows(4, 3, 1, 320) == [1]


def test_a_sum_with_what_the_convolution_reads():
    """A band must not change rows that the next one reads; and sums of sums stay apart."""

    class Own(nn.Module):
        channels = 4

        def __init__(self) -> None:
            super().__init__()
            self.head, self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1), GhostConv2d(4, 4)

        def forward(self, x):
            y = self.head(x)
            z = y + self.a(y)
            w = self.b(z)
            v = z + self.a(w)
            return v + w.mean((2, 3), keepdim=True)

    torch.manual_seed(0)
    model = Own().double().eval()
    model.b.shift.set_directions([(1, -1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "_LEAST_ON_HOST", 1)
        assert_same(deploy(model), model, [(1, 1), (9, 5)])


def test_tails_are_streamed():
    """Of every scale, with kernels that look further than a band is high."""

    class Wide(nn.Module):
        channels, scale = 3, 2

        def __init__(self) -> None:
            super().__init__()
            self.a, self.up = GhostConv2d(3, 3), nn.Conv2d(3, 16, 5, padding=2)
            self.shuffle, self.act, self.out = nn.PixelShuffle(2), nn.PReLU(4), nn.Conv2d(4, 3, 9, padding=4)

        def forward(self, x):
            return (self.out(self.act(self.shuffle(self.up(x + self.a(x))))) - 0.5) / 2

    torch.manual_seed(0)
    models = [Wide().double().eval()]
    models += [create_model("edsr", s, blocks=1, features=4).double().eval() for s in (3, 4, 8)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "_LEAST_ON_HOST", 1)
        for model in models:
            fast = deploy(model)
            assert any(isinstance(m, StreamedTail) for m in fast.modules())
            assert_same(fast, model, [(1, 3), (3, 4), (10, 3), (41, 2)])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_every_direction_of_two_layers(k):
    """A block of two ghost convolutions, for all pairs of directions; kernels of 1, 3 and 5."""

    class Block(nn.Module):
        channels = 2

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = GhostConv2d(2, 4, k, max_shift=2), GhostConv2d(4, 2, k, max_shift=2)

        def forward(self, x):
            return x + 0.1 * self.b(F.relu(self.a(x)))

    torch.manual_seed(0)
    block = Block().double().eval()
    moves = direction_set(2)
    pairs = [(v, moves[(7 * i + 3) % 25]) for i, v in enumerate(moves)]
    for v, w in pairs:
        block.a.shift.set_directions([v])
        block.b.shift.set_directions([w])
        assert_same(deploy(block), block)


def test_all_81_pairs_of_directions_of_an_edsr_block():
    model = small("edsr_baseline")
    first, second = (s for n, s in shifts(model) if n.startswith("body.0."))
    for v, w in itertools.product(direction_set(1), repeat=2):
        first.set_directions([v])
        second.set_directions([w])
        assert_same(deploy(model), model, [(4, 5)])


def test_border_matters():
    """Without its border lines a folded convolution is wrong on the frame's edge, as it should be able to be."""
    torch.manual_seed(0)
    f, weight = torch.rand(1, 2, 4, 5, dtype=torch.float64), torch.randn(3, 4, 3, 3, dtype=torch.float64)
    group = Group((0,), (2,), (0, 1, 2, 3), (0, 1, 0, 1), ((0, 0), (0, 0), (1, 1), (1, 1)))
    folded = FoldedConv2d(weight, None, [group], [None])
    expected = F.conv2d(torch.cat([f, shift2d(f, (1, 1))], 1), weight, padding=1)
    run = lambda: folded(folded_input(folded, f))
    assert torch.allclose(run(), expected, rtol=1e-12, atol=1e-12)
    folded.parts[0].border = None
    wrong = (run() - expected).abs() > 1e-9
    assert bool(wrong[..., 0, :].any())
    assert bool(wrong[..., 0].any())
    assert not bool(wrong[..., 1:, 1:].any())


def folded_input(folded: FoldedConv2d, f: torch.Tensor) -> torch.Tensor:
    from shiftghost_sr.compression.deployment.folded import WithHalo

    return WithHalo(folded)(f)


def test_boxes_cover_each_tap_once():
    for moves in ([(0, 0)], [(0, 0), (1, 1)], [(0, 0), (-1, 2)], [(0, 0), (1, 0), (0, -1)], [(2, 2), (-2, -2)]):
        for k in (1, 3):
            taps = support(k, moves)
            covered = [[0] * len(taps[0]) for _ in taps]
            for box in exact_boxes(taps):
                for i, j in itertools.product(range(box.height), range(box.width)):
                    covered[box.row + i][box.column + j] += 1
            assert covered == [[int(t) for t in row] for row in taps]
    assert sum(b.taps for b in exact_boxes(support(3, [(0, 0), (1, 1)]))) == 14


def test_what_is_read_again_is_not_changed_in_place():
    class Twice(nn.Module):
        channels = 4

        def __init__(self, late: str) -> None:
            super().__init__()
            self.head, self.ghost, self.late = nn.Conv2d(4, 4, 1), GhostConv2d(4, 4), late

        def forward(self, x):
            x = self.head(x)
            if self.late == "view":
                seen = x.flatten(2)
            if self.late == "split":
                seen, _ = torch.split(x, [2, 2], dim=1)
            y = x + self.ghost(x)
            if self.late == "again":
                return y * x
            if self.late == "view":
                return y + seen.view(y.shape)
            return torch.cat([y, seen], dim=1)

    torch.manual_seed(0)
    for late in ("again", "view", "split"):
        model = Twice(late).double().eval()
        assert_same(deploy(model), model)


def test_a_residual_sum_is_in_place_where_it_can_be():
    fast = deploy(small("edsr"))
    adds = [m.inplace for m in fast.modules() if isinstance(m, AddSlices)]
    assert adds == [False, True, True]  # the first block's input is needed once more, by the long skip


def test_operations_in_place_keep_their_meaning():
    class InPlace(nn.Module):
        channels = 4

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = GhostConv2d(4, 4), GhostConv2d(4, 4)

        def forward(self, x):
            y = self.a(x)
            z = F.leaky_relu(y, 0.1, inplace=True)
            w = self.b(z)
            w += y  # which is activated by now
            w *= 2
            return w

    torch.manual_seed(0)
    model = InPlace().double().eval()
    assert_same(deploy(model), model)


def test_shared_convolutions_are_scaled_once():
    class Shared(nn.Module):
        channels = 4

        def __init__(self) -> None:
            super().__init__()
            self.conv = GhostConv2d(4, 4)

        def forward(self, x):
            x = x + self.conv(x) * 0.5
            return x + self.conv(x)

    torch.manual_seed(0)
    model = Shared().double().eval()
    assert_same(deploy(model), model)


@pytest.mark.parametrize("tied", [True, False])
def test_slopes_of_ghosts(tied):
    """Learnt slopes commute with a shift where a ghost has its map's; elsewhere ghosts are written out."""

    class Net(nn.Module):
        channels = 3

        def __init__(self) -> None:
            super().__init__()
            self.a, self.act, self.b = GhostConv2d(3, 8), nn.PReLU(8), nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, x):
            return self.b(self.act(self.a(x)))

    torch.manual_seed(0)
    model = Net().double().eval()
    model.act.weight.data = torch.rand(4, dtype=torch.float64).repeat(2) if tied else torch.rand(8, dtype=torch.float64)
    fast = deploy(model)
    assert_same(fast, model)
    assert any(d.what == "folded" for d in fast.decisions) == tied


@pytest.mark.parametrize(
    ("consumer", "why"),
    [
        (nn.Conv2d(8, 4, 3, padding=1, stride=2), "strides"),
        (nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"), "reflect"),
        (nn.Conv2d(8, 4, 3, padding=0), "pads by"),
        (nn.Conv2d(8, 4, 3, padding=1, groups=2), "2 groups"),
        (nn.Conv2d(8, 4, (3, 1), padding=(1, 0)), "3 x 1"),
    ],
)
def test_what_cannot_be_folded_is_named_and_right(consumer, why):
    torch.manual_seed(0)
    model = nn.Sequential(GhostConv2d(3, 8), nn.ReLU(), consumer).double().eval()
    model.channels = 3
    fast = deploy(model)
    assert [d.what for d in fast.decisions if d.layer == "2"] == ["not folded"]
    assert why in fast.decisions[-1].why
    assert_same(fast, model, [(6, 7)])


def test_sigmoid_does_not_commute():
    torch.manual_seed(0)
    model = nn.Sequential(GhostConv2d(3, 8), nn.Sigmoid(), nn.Conv2d(8, 4, 3, padding=1)).double().eval()
    model.channels = 3
    assert_same(deploy(model), model)


def test_a_network_that_is_no_graph_is_deployed_in_pieces(caplog):
    class Odd(nn.Module):
        channels = 3

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(GhostConv2d(3, 8), nn.ReLU(), GhostConv2d(8, 3))

        def forward(self, x):
            return self.body(x) if float(x.sum()) >= 0 else x

    torch.manual_seed(0)
    model = Odd().double().eval()
    fast = deploy(model)
    assert "pieces" in caplog.text
    assert [d.what for d in fast.decisions] == ["folded"]
    assert_same(fast, model)


def test_half_precision_sums_are_rounded_once():
    torch.manual_seed(0)
    model = create_model("vdsr", 2, {"shift": "copy"}, layers=4, features=8).eval()
    x = torch.rand(1, 1, 8, 9).bfloat16()
    fast = deploy(copy.deepcopy(model).bfloat16())
    with torch.no_grad():
        (kernel,) = fast.network.residual_layer_1_conv.parts[0].kernels
        weight = model.residual_layer[1].conv.weight.bfloat16().float()
        assert torch.equal(kernel, (weight[:, :4] + weight[:, 4:]).bfloat16())
        assert torch.isfinite(fast(x)).all()


def test_deployed_networks_can_be_kept():
    model = small("vdsr")
    fast = deploy(model)
    again = pickle.loads(pickle.dumps(fast))
    x = torch.rand(1, 1, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(again(x), fast(x))
        assert torch.equal(copy.deepcopy(fast)(x), fast(x))
    assert (fast.scale, fast.channels, fast.grid) == (2, 1, "hr")


def test_directions_set_later_do_not_reach_a_deployed_network():
    model = small("vdsr")
    fast = deploy(model)
    x = torch.rand(1, 1, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        before = fast(x)
        set_direction(model, "diagonal")
        assert torch.equal(fast(x), before)


def test_mistakes():
    model = create_model("vdsr", 2, "copy", layers=4, features=8)
    with pytest.raises(UserError, match="training mode"):
        deploy(model)
    model.eval()
    fast = deploy(model)
    with pytest.raises(UserError, match="deployed already"):
        deploy(fast)
    with pytest.raises(UserError, match="cannot be trained"):
        fast.train()
    with pytest.raises(UserError, match="no gradient"):
        fast(torch.rand(1, 1, 4, 4, requires_grad=True))
    with pytest.raises(UserError, match="cross"):
        deploy(model, diagonal="cross")
    with pytest.raises(UserError, match="give channels"):
        deploy(nn.Sequential(GhostConv2d(3, 8)).eval())
    with pytest.raises(UserError, match="must be a torch"):
        deploy("edsr")
