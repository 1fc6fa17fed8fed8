"""Measures of diversity, what is left out of them, and the theorem's bound."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn

from augshortcut import reference
from augshortcut.config import AugmentConfig, preset
from augshortcut.injection.augment import augment
from augshortcut.metrics.bound import block_bound, collapse_bound
from augshortcut.metrics.diversity import diversity
from augshortcut.ops.activations import ACTIVATIONS, LIPSCHITZ
from effkit.diversity import MEASURES, distance
from effkit.errors import UserError

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 32, "patch_size": 8, "num_classes": 10}


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _vit(**more):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**VIT, **more})


def test_measures_of_equal_tokens():
    z = torch.ones(7, 1, dtype=torch.float64) * _random(1, 5)
    found = {name: measure(z) for name, measure in MEASURES.items()}
    expected = {"relative_residual": 0, "d_M": 0, "composite": 0, "cosine": 1, "effective_rank": 1, "high_freq": 0}
    assert found == pytest.approx(expected, abs=1e-7)


def test_distance_is_to_the_mean_and_scales():
    z = _random(9, 5)
    assert float(distance(z)) == pytest.approx(reference.distance_to_constant(z), rel=1e-12)
    assert float(distance(z + _random(1, 5, seed=1))) == pytest.approx(float(distance(z)), rel=1e-12)
    assert float(distance(-3 * z)) == pytest.approx(3 * float(distance(z)), rel=1e-12)
    for seed in range(5):  # no other row is nearer
        assert float((z - _random(1, 5, seed=seed)).norm()) >= float(distance(z))


def test_measures_against_loops():
    z = _random(6, 4)
    r = z - z.mean(0)
    columns = max(sum(abs(float(r[i, j])) for i in range(6)) for j in range(4))
    rows = max(sum(abs(float(r[i, j])) for j in range(4)) for i in range(6))
    assert MEASURES["composite"](z) == pytest.approx(math.sqrt(columns * rows))
    pairs = [torch.cosine_similarity(z[i], z[j], dim=0) for i in range(6) for j in range(6) if i != j]
    assert MEASURES["cosine"](z) == pytest.approx(float(torch.stack(pairs).mean()))
    assert MEASURES["effective_rank"](torch.eye(5, dtype=torch.float64)) == pytest.approx(5)
    assert math.isnan(MEASURES["cosine"](z[:1]))
    alternating = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64).unsqueeze(1) * _random(1, 3)
    slow = torch.cos(torch.arange(8).double() * 2 * math.pi / 8).unsqueeze(1) * _random(1, 3)
    assert MEASURES["high_freq"](alternating) == pytest.approx(1)
    assert MEASURES["high_freq"](slow) == pytest.approx(0, abs=1e-12)


def test_lipschitz_constants():
    x = torch.linspace(-12, 12, 2_000_001, dtype=torch.float64).requires_grad_()
    for name, act in ACTIVATIONS.items():
        (slope,) = torch.autograd.grad(act(x).sum(), x)
        largest = float(slope.abs().max())
        assert largest <= LIPSCHITZ[name] + 1e-12
        assert largest >= LIPSCHITZ[name] - 2e-5, name
    assert LIPSCHITZ["gelu"] == pytest.approx(1.12890415, abs=1e-8)
    assert LIPSCHITZ["gelu"] == reference.GELU_LIPSCHITZ


def test_rows_by_layer_and_the_model_is_left_alone():
    model, images = _vit().train(), torch.randn(3, 3, 32, 32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rows = diversity(model, images)
    assert [row["layer"] for row in rows] == ["blocks.0", "blocks.1"]
    assert set(rows[0]) == {"layer", *MEASURES, "norm", "tokens", "outliers"}
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    kept = []
    handle = model.blocks[1].register_forward_hook(lambda m, a, out: kept.append(out.double()))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    expected = torch.stack([distance(z) for z in kept[0]]).mean()
    assert rows[1]["d_M"] == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(UserError, match=r"cosin.*cosine"):
        diversity(model, images, ["cosin"])
    with pytest.raises(UserError, match=r"blocks\.7"):
        diversity(model, images, layers=["blocks.7"])


@pytest.mark.parametrize(
    ("name", "arguments", "side", "layers"),
    [
        (
            "swin_tiny_patch4_window7_224",
            {"depths": (1, 1), "embed_dim": 48, "num_heads": (3, 6), "img_size": 56},
            56,
            2,
        ),
        ("davit_tiny", {"depths": (1, 1, 1, 1)}, 64, 8),
        ("tnt_s_patch16_224", {"depth": 2, "img_size": 32}, 32, 2),
        ("vit_base_patch16_xp_224", {**VIT}, 32, 2),
    ],
)
def test_other_shapes_of_tokens(name, arguments, side, layers):
    model = timm.create_model(name, **arguments)
    rows = diversity(model, torch.randn(1, 3, side, side), ["d_M", "cosine"])
    assert len(rows) == layers
    assert all(row["d_M"] > 0 and -1 <= row["cosine"] <= 1 for row in rows)


class _Given(nn.Module):
    """A network whose one block puts out what it is given."""

    num_prefix_tokens = 1

    def __init__(self):
        super().__init__()
        self.block = nn.Identity()

    def forward(self, x):
        return self.block(x)


def test_padding_prefix_and_outliers_can_be_left_out():
    z = _random(2, 9, 5)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[:, 6:] = False
    spoilt = z.clone()
    spoilt[:, 6:] = 1e3
    call = lambda tokens, **more: diversity(_Given(), tokens, ["d_M"], layers=["block"], **more)[0]
    alone = call(z[:, :6])
    assert call(spoilt, mask=mask)["d_M"] == pytest.approx(alone["d_M"], rel=1e-12)
    assert call(spoilt, mask=mask[:, 1:])["d_M"] == pytest.approx(alone["d_M"], rel=1e-12)
    assert call(spoilt, mask=mask)["tokens"] == 6
    assert call(z, prefix_tokens=False)["d_M"] == pytest.approx(call(z[:, 1:], prefix_tokens=True)["d_M"], rel=1e-12)
    outlying = z.clone()
    outlying[:, 4] *= 50
    assert call(outlying)["outliers"] == 1
    rest = torch.cat([z[:, :4], z[:, 5:]], dim=1)
    assert call(outlying, drop_outliers=True)["d_M"] == pytest.approx(call(rest)["d_M"], rel=1e-12)
    with pytest.raises(UserError, match="mask has the shape"):
        call(z, mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(UserError, match="no token is left"):
        call(z, mask=torch.zeros(2, 9, dtype=torch.bool))
    with pytest.raises(UserError, match="booleans"):
        call(z, mask=torch.ones(2, 9))


def test_bound_on_random_draws():
    """The theorem itself, from its parts: 60 draws of weights, inputs and sizes."""
    for seed in range(60):
        torch.manual_seed(seed)
        heads, dim, tokens = (2, 24, 5) if seed % 2 else (4, 48, 11)
        model = _vit(embed_dim=dim, num_heads=heads, depth=1, init_values=0.5 if seed % 3 == 0 else None)
        if seed % 5:
            augment(model, AugmentConfig(num_paths=1 + seed % 3, tap="input" if seed % 4 == 0 else "norm"))
        block = model.blocks[0].double()
        with torch.no_grad():
            for p in block.parameters():
                p.copy_((0.1 + 2 * (seed % 7)) / dim**0.5 * torch.randn_like(p))
        rows = block_bound(block, (1 + seed % 4) * _random(3, tokens, dim, seed=seed))
        assert all(row["holds"] for row in rows), (seed, rows)
        assert all(0 < row["ratio"] <= 1 for row in rows)


@torch.no_grad()
def test_attention_factor_from_the_definition():
    model = _vit(depth=1).double()
    x = _random(1, 6, 48)
    row = block_bound(model.blocks[0], x)[0]
    attn = model.blocks[0].attn
    y = model.blocks[0].norm1(x)
    q, k, _ = attn.qkv(y).reshape(1, 6, 3, 3, 16).permute(2, 0, 3, 1, 4)
    maps = (q @ k.transpose(-2, -1) * 16**-0.5).softmax(-1)[0]
    spread = max(reference.spread(head) for head in maps)
    assert row["lambda"] == pytest.approx(spread, rel=1e-9)
    values = attn.qkv.weight[96:].view(3, 16, 48)
    s = max(float(torch.linalg.matrix_norm(v, 2)) for v in values)
    factor = math.sqrt(spread * 3) * s * float(torch.linalg.matrix_norm(attn.proj.weight, 2))
    assert row["bound"] == pytest.approx(float(distance(x) + factor * distance(y)), rel=1e-9)


@pytest.mark.parametrize(
    "config", ["paper", "official", "mindspore", "pangu", preset("retrofit", projection="kronecker")]
)
def test_bound_on_a_network(config):
    model = augment(_vit(), preset(config, reduction=12) if config == "pangu" else config)
    rows = collapse_bound(model, torch.randn(2, 3, 32, 32))
    assert [(row["layer"], row["part"]) for row in rows] == [
        (f"blocks.{i}", part) for i in range(2) for part in ("attn", "mlp")
    ]
    assert all(row["holds"] for row in rows)


def test_bound_refuses_what_it_does_not_know():
    with pytest.raises(UserError, match="no vision_transformer"):
        collapse_bound(timm.create_model("resnet18"), torch.zeros(1, 3, 32, 32))
    model = _vit()
    model.blocks[1].mlp.act = nn.Tanh()
    with pytest.raises(UserError, match="Tanh"):
        collapse_bound(model, torch.randn(1, 3, 32, 32))


def test_padding_of_naflex_batches_is_left_out():
    torch.manual_seed(0)
    sizes = {"depth": 1, "embed_dim": 48, "num_heads": 3, "num_classes": 3}
    model = augment(timm.create_model("naflexvit_base_patch16_gap", **sizes), "paper")
    rows, columns = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")
    batch = {
        "patches": torch.randn(2, 6, 16 * 16 * 3),
        "patch_coord": torch.stack([rows, columns], dim=-1).reshape(1, 6, 2).expand(2, 6, 2).contiguous(),
        "patch_valid": torch.arange(6).expand(2, 6) < 4,
    }
    (first,) = diversity(model, batch, ["d_M"])
    batch["patches"][:, 4:] = 100.0
    (second,) = diversity(model, batch, ["d_M"])
    assert first == second
    assert first["tokens"] == 4 + model.num_prefix_tokens
