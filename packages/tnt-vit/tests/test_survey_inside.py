"""What a survey sees inside networks: attention by block, places of tokens, channels."""

import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from effkit.plots import read_description
from tnt_vit import create_model
from tnt_vit.plots import alike
from tnt_vit.plots.alike import channel_points, draw_tsne
from tnt_vit.plots.by_depth import draw_attention
from tnt_vit.survey.attention import (
    attention_by_block,
    attention_distance,
    attention_entropy,
    fused_weights,
    uniform_entropy,
    windows_of,
)
from tnt_vit.survey.features import in_reading_order
from tnt_vit.survey.grid import places

HALF = (1 + math.sqrt(0.5)) / 4  # mean distance of the cells of a 2 x 2 grid, in sides of it


def uniform(queries, keys):
    return torch.full((1, 1, queries, keys), 1 / keys, dtype=torch.float64)


def test_entropy_of_uniform_and_of_certain_attention():
    assert attention_entropy(uniform(5, 197)) == pytest.approx(math.log(197))
    assert attention_entropy(torch.eye(9)) == 0
    assert uniform_entropy(uniform(5, 197)) == pytest.approx(math.log(197))
    assert uniform_entropy(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 1e-40]])) == pytest.approx(math.log(2) / 2)


def test_distance_of_places():
    assert attention_distance(torch.eye(49)) == 0
    assert attention_distance(uniform(4, 4)) == pytest.approx(HALF)
    assert attention_distance(uniform(5, 5), prefix=1) == pytest.approx(HALF)  # a class token has no place
    assert attention_distance(uniform(4, 4), windows=9) == pytest.approx(HALF / 3)
    own_cell = torch.eye(4).view(2, 2, 4).repeat_interleave(2, 0).repeat_interleave(2, 1).reshape(16, 4)
    assert attention_distance(own_cell) == pytest.approx(math.sqrt(2) / 8)  # from places to the larger cell they are in
    assert attention_distance(uniform(7, 7)) is None


def test_places_of_tokens():
    assert [places(count) for count in (49, 50, 7, 0)] == [(0, 7), (1, 7), None, None]  # PVT does not say it has one
    assert places(51, prefix=2) == (2, 7)
    picture = torch.arange(16.0).view(1, 4, 4, 1)
    assert torch.equal(in_reading_order(picture, picture.view(1, 16, 1)), picture.view(1, 16, 1))
    strips = torch.arange(36.0).view(1, 6, 6)
    windows = strips.view(1, 2, 3, 2, 3).transpose(2, 3).reshape(1, 4, 9, 1)
    assert torch.equal(in_reading_order(windows, windows.view(1, 36, 1)), strips.view(1, 36, 1))


@pytest.mark.parametrize(
    ("weights", "out", "tokens", "width", "windows"),
    [
        ((2, 6, 197, 197), (2, 6, 197, 64), 197, 384, 1),
        ((2, 1, 3136, 49), (2, 1, 3136, 64), 3136, 64, 1),  # keys of a smaller map
        ((128, 3, 49, 49), (128, 3, 49, 32), 3136, 96, 64),  # windows of Swin
        ((2, 64, 2, 49, 49), (2, 64, 2, 49, 32), 3136, 64, 64),  # of Twins
        ((2, 3, 16, 196, 196), (2, 3, 16, 196, 32), 3136, 96, 16),  # of NesT
        ((8, 64, 64), (8, 64, 128), 64, 512, 1),  # heads among the pictures
        ((2, 8, 48, 48), (2, 8, 48, 196), 196, 384, None),  # channels of XCiT
        ((2, 8, 49, 49), (2, 8, 49, 49), 49, 392, None),  # channels or tokens: who knows
        ((2, 6, 196, 9, 9), (2, 6, 196, 9, 32), 784, 192, None),  # outlooks of VOLO
        ((392, 4, 16, 16), (392, 4, 16, 6), 197, 384, None),  # words of TNT
        ((2, 5), (2, 7), 4, 4, None),
    ],
)
def test_what_is_plainly_attention_of_tokens(weights, out, tokens, width, windows):
    assert windows_of(torch.Size(weights), torch.Size(out), 2, tokens, width) == windows


@pytest.mark.parametrize("given", ["nothing", "added", "hidden", "is_causal", "enable_gqa", "scale"])
def test_weights_of_fused_attention(given):
    draw = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 5, generator=draw, dtype=torch.float64)
    mask = torch.randn(6, 6, generator=draw, dtype=torch.float64)
    words = {"added": {"attn_mask": mask}, "hidden": {"attn_mask": mask.fill_diagonal_(1) > 0}, "scale": {"scale": 0.3}}
    words = words.get(given, {given: True} if given != "nothing" else {})
    if given == "enable_gqa":
        key, value = key[:, :2], value[:, :2]
    found = fused_weights(query, key, value, **words)
    shared = value.repeat_interleave(2, dim=1) if given == "enable_gqa" else value
    torch.testing.assert_close(found @ shared, F.scaled_dot_product_attention(query, key, value, **words))


def vit(fused):
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=24, num_heads=2)
    for block in net.blocks:
        block.attn.fused_attn = fused
    return net


def test_attention_is_seen_whether_it_is_fused_or_not():
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    net = vit(True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fused, spelt = attention_by_block(net.train(), x, r"blocks\.\d+"), attention_by_block(vit(False), x, r"blocks\.\d+")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(block.attn.fused_attn and not block._forward_hooks for block in net.blocks)
    assert [(row["layer"], row["depth"], row["windows"], row["keys"]) for row in fused] == [
        ("blocks.0", 0, 1, 17),
        ("blocks.1", 1, 1, 17),
    ]
    seen = []
    for block in (net := vit(False).eval()).blocks:
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: seen.append(out.detach().double()))
    net(x)
    for row, other, weights in zip(fused, spelt, seen, strict=True):
        assert row["uniform"] == pytest.approx(math.log(17))
        for key, expected in (("entropy", attention_entropy(weights)), ("distance", attention_distance(weights, 1))):
            assert row[key] == pytest.approx(expected, rel=1e-5)
            assert other[key] == pytest.approx(expected, rel=1e-5)


def test_of_tnt_the_attention_of_sentences_is_meant():
    torch.manual_seed(0)
    net = create_model("tnt_s_patch16_224", img_size=48, depth=2).eval()
    x = torch.randn(1, 3, 48, 48)
    rows = attention_by_block(net, x, r"blocks\.\d+")
    assert [row["keys"] for row in rows] == [10, 10]
    for row, maps in zip(rows, net.attention_maps(x), strict=True):
        assert row["entropy"] == pytest.approx(attention_entropy(maps.outer.double()), rel=1e-5)


def test_windows_are_seen_and_other_blocks_left_out():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 56, 56)
    args = {"img_size": 56, "depths": (2, 1), "num_heads": (2, 2), "embed_dim": 16}
    rows = attention_by_block(timm.create_model("swin_tiny_patch4_window7_224", **args), x, r"layers\.\d+\.blocks\.\d+")
    assert [(row["windows"], row["keys"]) for row in rows] == [(4, 49), (4, 49), (1, 49)]
    assert rows[0]["uniform"] == rows[2]["uniform"] == pytest.approx(math.log(49))
    assert math.log(9) < rows[1]["uniform"] < math.log(49)  # of shifted windows, some of which a mask cuts
    assert all(0.99 * row["uniform"] < row["entropy"] <= row["uniform"] for row in rows)  # random weights
    assert rows[0]["distance"] < 0.3 < rows[2]["distance"]  # of a half of the side, of all of it
    channels = timm.create_model("xcit_nano_12_p16_224", img_size=64, depth=1)
    assert attention_by_block(channels, torch.randn(1, 3, 64, 64), r"blocks\.\d+") == []
    assert attention_by_block(nn.Sequential(nn.Conv2d(3, 4, 3)), x, "0") == []


def test_pictures_of_attention_and_of_channels(tmp_path, monkeypatch):
    row = {"entropy": 2.0, "uniform": 4.0, "distance": 0.25}
    networks = {"a": [row | {"depth": 0}, row | {"depth": 1, "distance": None}], "cnn": []}
    said = read_description(draw_attention(networks, tmp_path / "a.png", title="Attention"))
    assert "a from 25 % to unknown" in said
    assert "cnn" not in said
    draw = np.random.default_rng(0)
    maps = np.concatenate([draw.normal(size=(8, 1)) * 0 + draw.normal(size=49), 5 * draw.normal(size=(8, 49))])
    points, flat, spread = channel_points(maps)
    assert points.shape == (16, 2)
    assert np.array_equal(points, channel_points(maps)[0])
    assert flat.std(axis=1) == pytest.approx(np.ones(16))
    assert spread[8:] == pytest.approx(maps[8:].std(axis=1))
    equal = np.linalg.norm(points[:8] - points[:8].mean(0), axis=1).max()
    assert equal < np.linalg.norm(points[8:] - points[8:].mean(0), axis=1).min()  # equal maps lie together
    monkeypatch.setattr(alike, "channel_points", lambda *_: (points, flat, spread))
    assert "16 of net" in read_description(draw_tsne({"net": maps}, tmp_path / "t.png", title="Channels"))
