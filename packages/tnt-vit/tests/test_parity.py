"""Same random weights in ours, in timm and in the written-out reference: same numbers, in float64."""

import pytest
import timm
import torch

import tnt_vit
from tnt_vit.reference import reference_forward

PAIRS = [
    ("tnt_s_patch16_224", "tnt_s_patch16_224"),
    ("tnt_b_patch16_224", "tnt_b_patch16_224"),
    ("tnt_s_legacy_patch16_224", "tnt_s_legacy_patch16_224"),
]
TOLERANCE = 1e-10


def _randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Every parameter random, norms and biases too, so that nothing hides behind a 0 or a 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            is_gain = "norm" in name and name.endswith("weight")
            parameter.copy_((1 + 0.1 * noise if is_gain else 0.05 * noise).to(parameter.dtype))


def _pair(ours: str, theirs: str, **kwargs) -> tuple[torch.nn.Module, torch.nn.Module]:
    peer = timm.create_model(theirs, **kwargs).double()
    _randomise(peer)
    model = tnt_vit.create_model(ours, **kwargs).double()
    model.load_state_dict(peer.state_dict(), strict=True)
    return model, peer


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_logits_intermediates_and_all_gradients_equal_timm(ours, theirs, backend):
    model, peer = _pair(ours, theirs, depth=3)  # the blocks repeat; three show chaining and keep float64 affordable
    model.backend = backend
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x_ours, x_peer = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, maps = model.forward_intermediates(x_ours)
    peer_out, peer_maps = peer.forward_intermediates(x_peer)
    logits, peer_logits = model.forward_head(out), peer.forward_head(peer_out)
    assert (logits - peer_logits).abs().max() < TOLERANCE
    assert len(maps) == len(peer_maps) == 3
    for ours_map, peer_map in zip(maps, peer_maps, strict=True):
        assert (ours_map - peer_map).abs().max() < TOLERANCE

    weight = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (logits * weight).sum().backward()
    (peer_logits * weight).sum().backward()
    assert (x_ours.grad - x_peer.grad).abs().max() < TOLERANCE
    expected = {name: p.grad for name, p in peer.named_parameters()}
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        want = expected.pop(name)
        scale = max(1.0, want.abs().max().item())  # sums over 3,136 words reach the hundreds
        assert (grad - want).abs().max() < TOLERANCE * scale, name
    assert not expected


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_full_depth_logits_equal_timm(ours, theirs):
    model, peer = _pair(ours, theirs)
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert (model.eval()(x) - peer.eval()(x)).abs().max() < TOLERANCE


def test_state_dict_goes_back_into_timm_strictly():
    model, peer = _pair("tnt_s_patch16_224", "tnt_s_patch16_224", depth=2)
    other = timm.create_model("tnt_s_patch16_224", depth=2).double()
    other.load_state_dict(model.state_dict(), strict=True)
    for key, value in peer.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"legacy": True},
        {"se_ratio": 0.25},
        {"tnt_blocks": (2,)},
        {"tnt_blocks": ()},
        {"img_size": (32, 48), "patch_size": (16, 8)},
        {"inner_stride": 2, "inner_dim": 6, "inner_num_heads": 3},
        {"inner_stride": 8, "inner_dim": 24},
        {"in_chans": 1, "global_pool": "avg"},
    ],
    ids=str,
)
def test_every_variant_equals_the_written_out_reference(kwargs):
    args = {
        "img_size": 32,
        "embed_dim": 48,
        "inner_dim": 12,
        "depth": 2,
        "num_heads": 3,
        "inner_num_heads": 2,
        "num_classes": 7,
    }
    args.update({"patch_size": 16, "inner_stride": 4, **kwargs})
    model = tnt_vit.TNT(**args).double().eval()
    _randomise(model)
    x = torch.randn(
        2, args.get("in_chans", 3), *model.img_size, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    trace = reference_forward(
        model.state_dict(),
        x,
        patch_size=model.patch_size,
        inner_stride=args["inner_stride"],
        num_heads=args["num_heads"],
        inner_num_heads=args["inner_num_heads"],
        legacy=model.legacy,
        global_pool=model.global_pool,
    )
    with torch.no_grad():
        assert (model(x) - trace.logits).abs().max() < TOLERANCE
        assert (model.forward_features(x) - trace.tokens).abs().max() < TOLERANCE
        for ours, theirs in zip(model.word_features(x), trace.words, strict=True):
            assert (ours - theirs).abs().max() < TOLERANCE
        for ours, theirs in zip(model.attention_maps(x), trace.attention, strict=True):
            assert (ours.outer - theirs).abs().max() < TOLERANCE
