"""What timm asks of every model of its registry, asked of ``aug_*`` names: our own wording of its model tests."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import GraphExtractNet
from torch import nn

from augshortcut.injection.asked import augmented_blocks
from augshortcut.injection.fold import fold

VIT = {"depth": 3, "embed_dim": 48, "num_heads": 3, "img_size": 32}
# One small model of each kind of interface: plain tokens, distilled, windows, pyramids, grids, class attention, ours.
MODELS: dict[str, tuple[dict, int]] = {
    "aug_vit_tiny_patch16_224": ({**VIT, "patch_size": 8}, 32),
    "aug_deit_tiny_distilled_patch16_224": ({**VIT, "patch_size": 8}, 32),
    "aug_vit_base_patch14_reg4_dinov2": ({**VIT, "img_size": 28}, 28),
    "aug_beit_base_patch16_224": (VIT, 32),
    "aug_eva02_tiny_patch14_224": ({**VIT, "img_size": 28}, 28),
    "aug_cait_xxs24_224": ({**VIT, "depth_token_only": 1}, 32),
    "aug_swin_tiny_patch4_window7_224": (
        {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 3, 6), "img_size": 56},
        56,
    ),
    "aug_pvt_v2_b0": ({"depths": (1, 1, 1, 1)}, 64),
    "aug_davit_tiny": ({"depths": (1, 1, 1, 1), "embed_dims": (24, 48, 72, 96), "num_heads": (1, 2, 3, 4)}, 64),
    "aug_xcit_nano_12_p16_224": ({"depth": 2, "img_size": 32}, 32),
    "aug_pvt_v1_small": ({"depths": (1, 1, 1, 1), "img_size": 64}, 64),
    "aug_t2t_vit_14": ({"depth": 3, "dim": 48, "num_heads": 3, "img_size": 64}, 64),
}
CLASSES = 5


def build(name: str, **more) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **{"num_classes": CLASSES, **MODELS[name][0], **more})


def pictures(name: str, channels: int = 3) -> torch.Tensor:
    side = MODELS[name][1]
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_forward_backward_and_classifier(name):
    model, x = build(name, in_chans=1), pictures(name, 1)
    assert augmented_blocks(model)
    out = model.train()(x)
    out = out[0] + out[1] if isinstance(out, tuple) else out  # the distilled one has two heads in training
    assert out.shape == (2, CLASSES)
    out.square().mean().backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    model.eval()
    with torch.no_grad():
        out = model(x)
        assert out.shape == (2, CLASSES)
        assert torch.isfinite(out).all()
        features = model.forward_features(x)
        assert model.num_features in features.shape
        torch.testing.assert_close(model.forward_head(features), out)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
        model.reset_classifier(0)
        assert model(x).shape == (2, model.head_hidden_size)
        model.reset_classifier(3)
        assert model(x).shape == (2, 3)
        if "distilled" not in name:  # whose two tokens are always read
            model.reset_classifier(0, "")
            assert model(x).ndim in (3, 4)


@pytest.mark.parametrize("name", MODELS)
def test_default_configs_name_what_is_there(name):
    model, base = build(name), name.removeprefix("aug_")
    cfg, state = model.default_cfg, model.state_dict()
    classifiers = [cfg["classifier"]] if isinstance(cfg["classifier"], str) else list(cfg["classifier"])
    assert all(f"{c}.weight" in state for c in classifiers)
    first = [cfg["first_conv"]] if isinstance(cfg["first_conv"], str) else list(cfg["first_conv"])
    assert all(f"{f}.weight" in state for f in first)
    ours, theirs = timm.get_pretrained_cfg(name), timm.get_pretrained_cfg(base)
    assert not ours.has_weights
    for field in ("input_size", "mean", "std", "interpolation", "crop_pct", "num_classes"):
        assert getattr(ours, field) == getattr(theirs, field), field
    transform = timm.data.resolve_data_config({}, model=model)
    assert transform["mean"] == theirs.mean


@pytest.mark.parametrize("name", MODELS)
def test_intermediate_features(name):
    model, x = build(name).eval(), pictures(name)
    wanted = 2
    with torch.no_grad():
        final, maps = model.forward_intermediates(x, indices=wanted)
        assert len(maps) == wanted
        assert all(m.ndim == 4 for m in maps)
        assert model.num_features in final.shape
        only = model.forward_intermediates(x, indices=wanted, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(only, maps, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_features_only(name):
    network = build(name, features_only=True, out_indices=(0, 1)).eval()
    assert augmented_blocks(network)
    x = pictures(name)
    with torch.no_grad():
        maps = network(x)
    channels, reductions = network.feature_info.channels(), network.feature_info.reduction()
    assert len(maps) == len(channels) == 2
    for found, width, reduction in zip(maps, channels, reductions, strict=True):
        grid = found if found.shape[1] == width else found.permute(0, 3, 1, 2)
        assert grid.shape[1] == width
        assert grid.shape[2] == -(-x.shape[2] // reduction)


@pytest.mark.parametrize("name", ["aug_vit_tiny_patch16_224", "aug_swin_tiny_patch4_window7_224", "aug_pvt_v1_small"])
def test_exported_graphs(name):
    model, x = build(name).eval(), pictures(name)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)


@pytest.mark.parametrize("folded", [False, True])
def test_fx_graphs_hold_paths_as_leaves(folded):
    """For timm's feature extraction by torch.fx: a path is one node, as attention kernels are."""
    model, x = build("aug_vit_tiny_patch16_224").eval(), pictures("aug_vit_tiny_patch16_224")
    network = fold(model) if folded else model
    graph = GraphExtractNet(network, ["head"])
    with torch.no_grad():
        torch.testing.assert_close(graph(x), network(x))
