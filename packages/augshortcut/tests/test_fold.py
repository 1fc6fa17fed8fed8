"""Folded models compute the same with plain operators; what would be lost is refused."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from augshortcut.config import preset
from augshortcut.injection.augment import augment, config_of
from augshortcut.injection.fold import fold
from augshortcut.injection.folded import FoldedAttention, FrozenPaths
from augshortcut.injection.joining import InsideBranch
from effkit.cost import measure
from effkit.errors import UserError

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 32, "patch_size": 8, "num_classes": 10}


def _model(config, **more) -> nn.Module:
    torch.manual_seed(0)
    model = augment(timm.create_model("vit_tiny_patch16_224", **VIT, **more), config).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("gate"):
                p.copy_(torch.randn(p.shape, dtype=p.dtype))
    return model


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CONFIGS = {
    "paper": preset("paper"),
    "official": preset("official"),
    "dense": preset("official", projection="dense"),
    "gates by channel": preset("paper", gate="channel"),
    "gates": preset("retrofit"),
    "identity": preset("paper", act="identity", num_paths=3, gate="scalar"),
    "identity, gates by channel": preset("paper", act="identity", gate="channel"),
    "bottleneck": preset("pangu", reduction=12, num_paths=2, gate="scalar"),
    "bottleneck, both": preset("pangu", reduction=12, location="both"),
    "kronecker": preset("paper", projection="kronecker"),
    "without bias": preset("paper", bias=False),
    "reads the input": preset("paper", tap="input"),
    "attention only": preset("paper", location="attn"),
}


@pytest.mark.parametrize("layer_scale", [None, 0.3])
@pytest.mark.parametrize("name", CONFIGS)
def test_folded_is_the_same(name, layer_scale, x):
    model = _model(CONFIGS[name], init_values=layer_scale)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    folded = fold(model)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(folded(x), expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    assert isinstance(folded.no_weight_decay(), set)


def test_what_becomes_of_each_part(x):
    folded = fold(_model("paper"))
    block = folded.blocks[0]
    assert isinstance(block.aug_mlp, InsideBranch)
    assert block.mlp.fc1.out_features == 4 * 48 + 2 * 48
    assert isinstance(block.aug_attn, FrozenPaths)
    assert config_of(folded) is None
    assert isinstance(fold(_model("official")).blocks[0].aug_mlp, InsideBranch)  # the scale stays
    folded = fold(_model(preset("pangu", reduction=12)))
    assert type(folded.blocks[0]) is type(timm.create_model("vit_tiny_patch16_224", **VIT).blocks[0])
    assert isinstance(folded.blocks[0].attn, FoldedAttention)
    plain = measure(timm.create_model("vit_tiny_patch16_224", **VIT).double(), x[:1])
    added = measure(folded, x[:1]).macs - plain.macs
    assert added == 2 * 17 * 2 * 48 * 4  # blocks, tokens, down and up
    merged = fold(_model(preset("paper", act="identity", num_paths=3)))
    assert merged.blocks[0].aug_attn.num_paths == 1


def test_other_families_are_frozen():
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=48, num_heads=(3, 6), img_size=56
    )
    augment(model.eval(), "paper")
    x = torch.randn(1, 3, 56, 56)
    folded = fold(model)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x))
    assert sum(isinstance(m, FrozenPaths) for m in folded.modules()) == 4


def test_a_folded_model_compiles_and_exports(x):
    folded = fold(_model("paper")).float()
    with torch.no_grad():
        expected = folded(x.float())
        exported = torch.export.export(folded, (x.float(),)).module()
        torch.testing.assert_close(exported(x.float()), expected)


def test_what_a_fold_would_lose_is_kept_or_refused(x):
    model = _model("paper")
    model.blocks[0].mlp.act = nn.ReLU()
    model.blocks[1].mlp.fc1.register_forward_hook(lambda m, a, out: out * 2)
    folded = fold(model)
    assert [isinstance(b.aug_mlp, FrozenPaths) for b in folded.blocks] == [True, True]
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-11)
    model.blocks[1].aug_attn.paths.register_forward_hook(lambda m, a, out: out * 2)
    with pytest.raises(UserError, match=r"blocks\.1\.aug_attn\.paths carries hooks"):
        fold(model)
    with pytest.raises(UserError, match="no paths to fold"):
        fold(timm.create_model("vit_tiny_patch16_224", **VIT))
