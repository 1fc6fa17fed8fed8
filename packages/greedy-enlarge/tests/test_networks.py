"""Our GhostNet: timm's weights give timm's outputs; the released networks are in timm's registry."""

from __future__ import annotations

import pytest
import timm
import torch

from effkit.errors import UserError
from greedy_enlarge.families import base, params
from greedy_enlarge.networks.build import build, spec_of
from greedy_enlarge.networks.ghostnet import GhostNet
from greedy_enlarge.networks.mapping import from_timm_ghostnet
from greedy_enlarge.networks.zoo import MODELS


def test_weights_of_timms_ghostnet_give_its_outputs():
    torch.manual_seed(0)
    theirs = timm.create_model("ghostnet_100").eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = build(base("ghostnet_100")).eval()
    ours.load_state_dict(from_timm_ghostnet(theirs.state_dict()))
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    with pytest.raises(UserError, match="which timm's ghostnet_100 has not"):
        from_timm_ghostnet(timm.create_model("mobilenetv3_small_050").state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_released_networks_are_in_timm(name):
    assert timm.is_model(name)
    with torch.device("meta"):
        model = timm.create_model(name)
    spec = base(name)
    assert sum(p.numel() for p in model.parameters()) == params(spec)
    assert model.default_cfg["input_size"] == (3, spec.resolution, spec.resolution)
    assert spec_of(model) == spec


def test_timms_interface():
    model = timm.create_model("s_ghostnet_b1", num_classes=7, in_chans=1, drop_path_rate=0.1)
    x = torch.randn(2, 1, 64, 64)
    assert model(x).shape == (2, 7)
    assert model.forward_features(x).shape == (2, model.num_features, 2, 2)
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, model.head_hidden_size)
    model.eval()
    with torch.no_grad():
        plain = model(x)
        final, maps = model.forward_intermediates(x)
        torch.testing.assert_close(model.forward_head(final), plain)
    info = [(i["num_chs"], i["reduction"]) for i in model.feature_info]
    assert [(m.shape[1], 64 // m.shape[-1]) for m in maps] == info
    assert [r for _, r in info] == [2, 4, 8, 16, 32]
    early = model.forward_intermediates(x, indices=[1, 2], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[1], maps[2])
    model.set_grad_checkpointing()
    model.train()
    model(x).sum().backward()
    model.set_grad_checkpointing(False)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)
    with pytest.raises(UserError, match="num_classes=-1"):
        model.reset_classifier(-1)
    features = timm.create_model("s_ghostnet_b1", features_only=True)
    assert [m.shape[1] for m in features(torch.randn(1, 3, 64, 64))] == [24, 32, 64, 160, 280]
    with pytest.raises(UserError, match="output_stride=16"):
        GhostNet(output_stride=16)


@pytest.mark.parametrize(("ours", "theirs"), [("efficientnet_b0", "efficientnet_b0"), ("resnet18", "resnet18"),
                                              ("resnet50", "resnet50"), ("regnety_004", "regnety_004"),
                                              ("regnetx_002", "regnetx_002"), ("tinynet_e", "tinynet_e")])  # fmt: skip
def test_networks_that_timm_has_take_its_weights(ours, theirs):
    peer, own = timm.create_model(theirs).eval(), build(base(ours)).eval()
    own.load_state_dict(peer.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(own(x), peer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_a_network_computes_on_a_gpu_as_on_the_cpu():
    model = build(base("s_ghostnet_b1_uniform"), dtype=torch.float64).eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model.cuda()(x.cuda()).cpu(), model.cpu()(x))
