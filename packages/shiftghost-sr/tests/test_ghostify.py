"""Conversion: which filters stay, what keeps its weights, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from effkit.errors import UserError
from shiftghost_sr import GhostConv2d, create_model, deploy, ghostify, load_model
from shiftghost_sr.compression.conversion.selecting import match, select_filters
from shiftghost_sr.layers.shift import direction_set


def planted(seed: int, copies: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Eight prototypes with two noisy copies each, in some order; the filters and the group of each."""
    draw = np.random.default_rng(seed)
    groups = draw.permutation(np.repeat(np.arange(8), copies))
    filters = draw.normal(size=(8, 36))[groups] + 1e-3 * draw.normal(size=(8 * copies, 36))
    return filters, groups


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("select", ["kmeans", "kmedoids"])
def test_planted_clusters_are_found(seed, select):
    filters, groups = planted(seed)
    found = select_filters(filters, 8, select)
    assert sorted(groups[found.intrinsic]) == list(range(8))
    assert [groups[g] for g in found.ghosts] == [groups[found.intrinsic[s]] for s in found.source]
    assert found.error < 1e-4
    assert found.sizes == [3] * 8
    again = select_filters(filters, 8, select)
    assert again == found


def test_dead_and_equal_filters():
    filters = np.zeros((12, 5))
    filters[3:6] = np.eye(5)[:3]
    found = select_filters(filters, 6)
    assert {3, 4, 5} <= set(found.intrinsic)
    assert len(found.intrinsic) == 6
    assert found.error == 0.0


def test_other_selections():
    filters, _ = planted(0)
    filters[5] *= 10
    assert 5 in select_filters(filters, 4, "l2").intrinsic
    assert select_filters(filters, 4, "first", "slot").intrinsic == [0, 1, 2, 3]
    assert select_filters(filters, 4, "first", "slot").source == [k % 4 for k in range(20)]
    one, other = (select_filters(filters, 4, "random", seed=seed) for seed in (1, 2))
    assert one == select_filters(filters, 4, "random", seed=1)
    assert one.intrinsic != other.intrinsic
    grouped = select_filters(filters, 8, groups=4)
    assert [c // 6 for c in grouped.intrinsic] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(found // 2 == g // 6 for g, found in zip(grouped.ghosts, grouped.source, strict=True))


def test_match_finds_moved_filters():
    """A map read at a direction is the output of its filter moved by it."""
    draw = np.random.default_rng(0)
    core = np.zeros((4, 2, 5, 5))
    core[:, :, 1:4, 1:4] = draw.normal(size=(4, 2, 3, 3))
    moved = np.roll(core, (1, -1), axis=(2, 3))
    weight = np.concatenate([core, moved[[2, 0, 3, 1]]])
    places, direction, error = match(weight, [0, 1, 2, 3], [4, 5, 6, 7], direction_set(1))
    assert (places, direction, error) == ([2, 0, 3, 1], (1, -1), 0.0)
    conv = nn.Conv2d(2, 8, 5, padding=2, bias=False).double()
    conv.weight.data = torch.from_numpy(weight)
    ghost = GhostConv2d(2, 8, 5, bias=False, order="index").double().eval()
    ghost.set_indices([0, 1, 2, 3], [4, 5, 6, 7], places)
    ghost.shift.set_directions([direction])
    ghost.weight.data = conv.weight.data[:4]
    x = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    assert torch.allclose(ghost(x)[..., 1:-1, 1:-1], conv(x)[..., 1:-1, 1:-1])


def test_weights_that_stay_are_kept_and_the_network_is_not_touched():
    torch.manual_seed(0)
    model = create_model("edsr", 2, blocks=2, features=8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    made, report = ghostify(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert made.training
    assert [layer.name for layer in report.layers] == [f"body.{i}.body.{j}" for i in (0, 1) for j in (0, 2)]
    assert report.left == dict.fromkeys(("head.0", "body.2", "tail.0.0", "tail.1"), "it is no part of the body")
    for layer in report.layers:
        old, new = model.get_submodule(layer.name), made.get_submodule(layer.name)
        assert torch.equal(new.weight, old.weight[new.intrinsic])
        assert torch.equal(new.bias, old.bias[new.intrinsic])
        assert new.config.order == "index"
        assert sum(size * count for size, count in layer.clusters.items()) == 8
        assert layer.direction == (0, 0)
    assert report.params[1] == report.params[0] - 4 * 4 * (8 * 9 + 1)


def test_a_network_of_copies_is_converted_without_loss():
    """Filters that are equal, and read alike, make a ghost network that computes the same."""
    torch.manual_seed(0)
    model = create_model("vdsr", 2, layers=4, features=8).double().eval()
    for link in model.residual_layer:
        link.conv.weight.data = link.conv.weight.data[:4].repeat(2, 1, 1, 1)
    made, report = ghostify(model)
    x = torch.rand(1, 1, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(made(x), model(x), rtol=1e-12, atol=1e-14)
        assert torch.allclose(deploy(made)(x), model(x), rtol=1e-12, atol=1e-14)
    assert all(layer.error < 1e-20 for layer in report.layers)


def test_the_layer_before_says_how_filters_are_compared():
    torch.manual_seed(0)
    model = create_model("vdsr", 2, layers=5, features=16)
    with_it, without = ghostify(model)[0], ghostify(model, use_previous=False)[0]
    sets = [[m.intrinsic.tolist() for m in net.modules() if isinstance(m, GhostConv2d)] for net in (with_it, without)]
    assert sets[0][0] == sets[1][0]
    assert sets[0] != sets[1]


def test_foreign_networks_are_probed():
    class Remade(nn.Module):
        """Writes the sum of two branches into a third at every call."""

        channels = 3

        def __init__(self) -> None:
            super().__init__()
            self.head, self.a, self.b, self.sum = (nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(4))
            self.body, self.unused = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.tail = nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, x):
            with torch.no_grad():
                self.sum.weight.data = self.a.weight.data + self.b.weight.data
            return self.tail(self.body(torch.relu(self.sum(self.head(x)))))

    _, report = ghostify(Remade())
    assert [layer.name for layer in report.layers] == ["body"]
    assert "anew" in report.left["sum"]
    assert "never" in report.left["unused"]
    assert report.left["head"] == "it reads the picture"
    assert report.left["tail"] == "it has 3 channels only"
    with pytest.raises(UserError, match="sum cannot have ghosts"):
        ghostify(Remade(), targets=["sum"])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"ghost_ratio": 1}, ["ghost_ratio=1"]),
        ({"select": "means"}, ["select='means'", "kmeans"]),
        ({"source": "near"}, ["source='near'", "cluster"]),
        ({"targets": ["body"]}, ["body", "head.0"]),
        ({"targets": "body.0.body.0"}, ["must be a list"]),
        ({"order": "concat"}, ["order='concat'", "index"]),
        ({"channels": 0}, ["channels"]),
    ],
)
def test_mistakes(kwargs, words):
    model = create_model("edsr", 2, blocks=1, features=8)
    with pytest.raises(UserError) as error:
        ghostify(model, **kwargs)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_ghosts_are_not_converted_again():
    made, _ = ghostify(create_model("edsr", 2, blocks=1, features=8))
    with pytest.raises(UserError, match="ghosts already"):
        ghostify(made)


@pytest.mark.parametrize("name", ["Compact", "ESRGAN", "RCAN", "SPAN"])
def test_networks_of_spandrel(name, tmp_path: Path):
    pytest.importorskip("spandrel")
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet
    from spandrel.architectures.RCAN import RCAN
    from spandrel.architectures.SPAN import SPAN

    torch.manual_seed(0)
    net = {
        "Compact": lambda: Compact(num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=3, upscale=2),
        "ESRGAN": lambda: RRDBNet(num_filters=16, num_blocks=1, scale=4),
        "RCAN": lambda: RCAN(n_resgroups=1, n_resblocks=2, n_feats=16, scale=2, reduction=4),
        "SPAN": lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2),
    }[name]()
    torch.save(net.state_dict(), tmp_path / "dense.pth")
    model = load_model(tmp_path / "dense.pth")
    if name == "SPAN":
        with pytest.raises(UserError, match="writes its weights anew"):
            ghostify(model)
        return
    from shiftghost_sr import save_model

    made, report = ghostify(model)
    assert report.layers
    assert all(report.left.values())
    for module in made.modules():
        if isinstance(module, GhostConv2d):
            module.shift.logits.data.normal_()
    again = load_model(save_model(made, tmp_path / "ghost.safetensors"))
    x = torch.rand(1, 3, 10, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = made.double()(x)
        assert torch.equal(again.double()(x), expected)
        fast = deploy(made)
        assert float((fast(x) - expected).abs().max()) <= 1e-12 * float(expected.abs().max())
    assert any(d.what == "folded" for d in fast.decisions)
