"""Models by name: in timm's registry, PVT v1 and T2T-ViT, and the official code's variants."""

from __future__ import annotations

import pytest
import timm
import torch

import augshortcut
from augshortcut.injection.asked import augmented_blocks
from augshortcut.injection.augment import config_of
from augshortcut.models.pvt_v1 import PvtV1
from augshortcut.models.t2t_vit import T2TViT, TokenPerformer
from augshortcut.models.zoo import OFFICIAL, create_model, list_models, supported_models
from effkit.errors import UserError

SMALL = {"depth": 1, "num_classes": 10}


def test_timm_builds_augmented_models_by_name():
    model = timm.create_model("aug_deit_small_patch16_224", aug_num_paths=1, **SMALL)
    assert config_of(model).num_paths == 1
    assert model.num_classes == 10
    assert timm.list_models("aug_swin_tiny*") == ["aug_swin_tiny_patch4_window7_224"]
    assert len(timm.list_models("aug_*")) == len(supported_models()) > 350
    other = timm.create_model("aug_deit_small_patch16_224", aug="official", aug_location="attn", **SMALL)
    assert (config_of(other).residual_scale, config_of(other).location) == (0.75, ("attn",))
    from_config = timm.create_model("aug_deit_small_patch16_224", aug=augshortcut.preset("pangu"), **SMALL)
    assert config_of(from_config).projection == "bottleneck"
    cfg = timm.get_pretrained_cfg("aug_vit_small_patch16_224")
    assert not cfg.has_weights
    assert cfg.crop_pct == timm.get_pretrained_cfg("vit_small_patch16_224").crop_pct


def test_unknown_arguments_are_named():
    with pytest.raises(UserError, match=r"aug_num_path.*aug_num_paths"):
        timm.create_model("aug_deit_small_patch16_224", aug_num_path=1, **SMALL)
    with pytest.raises(UserError, match=r"offical.*official"):
        timm.create_model("aug_deit_small_patch16_224", aug="offical", **SMALL)
    with pytest.raises(UserError, match="augvit_small"):
        create_model("augvit_smal")


def test_pretrained_bases_are_asked_for_under_their_own_name(monkeypatch):
    """``pretrained=True`` of an augmented name is the base's weights, and gates say whether anything changes."""
    asked = []
    original = timm.create_model

    def remember(name, pretrained=False, **kwargs):
        asked.append((name, pretrained, sorted(kwargs)))
        return original(name, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", remember)
    original("aug_vit_small_patch16_224.augreg_in21k_ft_in1k", pretrained=True, aug="retrofit", **SMALL)
    assert asked == [("vit_small_patch16_224", True, ["depth", "num_classes", "pretrained_cfg"])]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_variants(name):
    model = create_model(name, **SMALL)
    config = config_of(model)
    if name == "augvit_small":
        assert config is None
        return
    two = name.endswith("2")
    assert (config.num_paths, config.act, config.residual_scale) == ((2, "gelu", 0.75) if two else (1, "identity", 1.0))
    assert config.projection == ("circulant" if "circulant" in name else "dense")
    paths = model.blocks[0].aug_attn.paths
    largest, deviation = float(paths.weight.detach().abs().max()), float(paths.weight.detach().std())
    if config.projection == "circulant":
        assert 0.9 / model.embed_dim**0.5 < largest <= 1 / model.embed_dim**0.5
        assert float(paths.bias.detach().abs().max()) > 0
    else:
        assert float(paths.bias.detach().abs().max()) == 0
        assert deviation == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("name", ["pvt_v1_small", "t2t_vit_14"])
def test_own_bases(name):
    arguments = {"depths": (1, 1, 1, 1)} if name.startswith("pvt") else {"depth": 2}
    size = {"img_size": 64, "num_classes": 5, "drop_path_rate": 0.1, **arguments}
    torch.manual_seed(0)
    model, x = timm.create_model(f"aug_{name}", **size), torch.randn(2, 3, 64, 64)
    model.train()
    model(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert len(augmented_blocks(model)) == (4 if name.startswith("pvt") else 2)
    model.eval()
    with torch.no_grad():
        tokens = model.forward_features(x)
        assert torch.equal(model.forward_head(tokens), model(x))
        model.set_grad_checkpointing(True)
        assert torch.equal(model.forward_head(tokens), model(x))
    model.train()
    model(x).sum().backward()
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    with pytest.raises(UserError, match=r"\(B, 3, 64, 64\)"):
        model(torch.randn(1, 3, 32, 32))
    with pytest.raises(UserError, match="multiple"):
        timm.create_model(name, img_size=50)
    with torch.no_grad():
        model.eval().reset_classifier(0, "avg")
        torch.testing.assert_close(model(x), model.forward_features(x)[:, 1:].mean(dim=1))
    with pytest.raises(UserError, match="token"):
        model.reset_classifier(3, "max")
    with pytest.raises(UserError, match=r"num_classes.*-1"):
        model.reset_classifier(-1)


def test_layers_of_own_bases_are_grouped_in_order():
    from timm.optim import param_groups_layer_decay

    for model in (PvtV1((1, 2, 1, 1), img_size=64), T2TViT(3, img_size=64)):
        groups = param_groups_layer_decay(model, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay())
        names = {id(p): n for n, p in model.named_parameters()}
        scale = {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
        blocks = [n for n in scale if "blocks" in n and n.endswith("norm1.weight")]
        assert [scale[n] for n in blocks] == sorted(scale[n] for n in blocks)
        assert len({scale[n] for n in blocks}) == len(blocks)
        assert scale["head.weight"] == 1.0


def test_performer_is_softmax_free_attention_over_random_features():
    """The features estimate exp(q k): with many of them the layer's attention comes near to that of the exponential."""
    torch.manual_seed(0)
    layer = TokenPerformer(64, features=64).double()
    x = 0.1 * torch.randn(1, 128, 64, dtype=torch.float64)
    q, k = x[:, :64], x[:, 64:]
    draws = []
    for _ in range(200):
        layer.reset_features()
        draws.append(layer._features(q) @ layer._features(k).transpose(1, 2))
    estimate = torch.stack(draws).mean(dim=0)
    exact = (q @ k.transpose(1, 2)).exp()
    assert float((estimate - exact).norm() / exact.norm()) < 0.05


@pytest.mark.slow
def test_every_listed_model_can_be_built():
    for name in supported_models():
        with torch.device("meta"):
            assert augmented_blocks(timm.create_model(f"aug_{name}")), name
    assert set(list_models()) == {*OFFICIAL, *(f"aug_{name}" for name in supported_models())}
