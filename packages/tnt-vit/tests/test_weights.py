"""Checkpoints: both layouts, every wrapping, other sizes, and refusals that say why."""

import argparse

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

import tnt_vit
from tnt_vit.checkpoints.weights import read_state, to_timm_names

ARGS = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "inner_dim": 12,
    "depth": 2,
    "num_heads": 3,
    "inner_num_heads": 2,
    "num_classes": 5,
}
TO_OFFICIAL = [
    ("patch_pos", "outer_pos"),
    ("pixel_pos", "inner_pos"),
    ("pixel_embed", "patch_embed"),
    ("norm1_proj", "proj_norm1"),
    ("norm2_proj", "proj_norm2"),
    ("norm_mlp_in", "inner_norm2"),
    ("norm_in", "inner_norm1"),
    ("attn_in", "inner_attn"),
    ("mlp_in", "inner_mlp"),
    ("norm_out", "outer_norm1"),
    ("attn_out", "outer_attn"),
    ("norm_mlp", "outer_norm2"),
    (".mlp.", ".outer_mlp."),
]


def small(**kwargs) -> tnt_vit.TNT:
    torch.manual_seed(0)
    return tnt_vit.TNT(**{**ARGS, **kwargs}).eval()


def official(state: dict) -> dict:
    """The official layout of timm-named weights, with the dead table the official files carry."""
    out = {}
    for key, value in state.items():
        if key == "pixel_pos":
            value = value.flatten(2).transpose(1, 2)
        for ours, theirs in TO_OFFICIAL:
            key = key.replace(ours, theirs)
        out[key] = value
    out["outer_tokens"] = torch.zeros(1, 16, 48)
    return out


WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s},
    "ema_first": lambda s: {"state_dict": {k: torch.zeros_like(v) for k, v in s.items()}, "state_dict_ema": s},
    "module": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "timm_training": lambda s: {"args": argparse.Namespace(lr=1e-3), "arch": "tnt", "state_dict": s},
    "lightning": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()} | {"criterion.weight": torch.ones(3)}
    },
}


@pytest.mark.parametrize("layout", ["timm", "official"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_layout_and_wrapping_loads(tmp_path, layout, wrapping):
    model = small()
    state = model.state_dict() if layout == "timm" else official(model.state_dict())
    path = tmp_path / "weights.pth.tar"
    torch.save(WRAPPINGS[wrapping](state), path)
    torch.manual_seed(9)
    other = tnt_vit.TNT(**ARGS).eval()
    x = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(other(x), model(x))
    assert tnt_vit.load_checkpoint(other, path) == []
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_saved_file_is_timms(tmp_path, suffix):
    model = tnt_vit.create_model("tnt_s", depth=1).eval()
    path = tnt_vit.save_checkpoint(model, tmp_path / f"out.{suffix}")
    peer = timm.create_model("tnt_s_patch16_224", depth=1, checkpoint_path=str(path)).eval()
    x = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(peer(x), model(x), rtol=0, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing temporary is left


def test_position_table_of_another_size_is_resampled_as_timm_does(tmp_path):
    model = small()
    path = tnt_vit.save_checkpoint(model, tmp_path / "w.pth")
    other = small(img_size=(48, 64))
    tnt_vit.load_checkpoint(other, path)
    want = resample_abs_pos_embed(model.patch_pos.detach(), new_size=[6, 8], num_prefix_tokens=1)
    assert torch.equal(other.patch_pos, want)
    assert torch.equal(other.pixel_pos, model.pixel_pos)


def test_another_classifier_stays_fresh_only_when_asked(tmp_path):
    path = tnt_vit.save_checkpoint(small(), tmp_path / "w.pth")
    other = small(num_classes=7)
    with pytest.raises(ValueError, match=r"head\.(weight|bias).*num_classes"):
        tnt_vit.load_checkpoint(other, path)
    before = other.head.weight.clone()
    assert tnt_vit.load_checkpoint(other, path, strict_head=False) == ["head.weight", "head.bias"]
    assert torch.equal(other.head.weight, before)


def _broken(state: dict, what: str) -> dict:
    state = dict(state)
    if what == "nan":
        state["proj.weight"] = state["proj.weight"] * float("nan")
    elif what == "inf":
        state["norm.bias"] = state["norm.bias"] + float("inf")
    elif what == "missing":
        del state["blocks.1.mlp.fc1.weight"]
    elif what == "unknown":
        state["blocks.7.mlp.fc1.weight"] = torch.zeros(1)
    elif what == "not_tnt":
        state = {"conv1.weight": torch.zeros(3)}
    elif what == "shape":
        state["blocks.0.mlp.fc1.weight"] = torch.zeros(3, 48)
    return state


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nan", ["proj.weight", "NaN"]),
        ("inf", ["norm.bias", "infinite"]),
        ("missing", ["1 missing", "blocks.1.mlp.fc1.weight"]),
        ("unknown", ["1 unknown", "blocks.7.mlp.fc1.weight"]),
        ("not_tnt", ["no TNT"]),
        ("shape", ["blocks.0.mlp.fc1.weight", "(3, 48)", "(192, 48)"]),
    ],
)
def test_unfit_files_are_refused_with_the_reason(tmp_path, what, words):
    path = tmp_path / "bad.pth"
    torch.save(_broken(small().state_dict(), what), path)
    with pytest.raises(ValueError) as error:
        tnt_vit.load_checkpoint(small(), path)
    for word in words:
        assert word in str(error.value)


def test_legacy_flag_must_agree(tmp_path):
    path = tnt_vit.save_checkpoint(small(legacy=True), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="legacy=True"):
        tnt_vit.load_checkpoint(small(), path)
    tnt_vit.load_checkpoint(small(legacy=True), path)


def test_other_words_are_refused(tmp_path):
    path = tnt_vit.save_checkpoint(small(inner_stride=2), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="inner_stride"):
        tnt_vit.load_checkpoint(small(), path)


def test_missing_file_and_pickled_code(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tnt_vit.load_checkpoint(small(), tmp_path / "nowhere.pth")
    torch.save({"state_dict": print}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="plain tensors"):
        read_state(tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="plain tensors"):
        read_state(tmp_path / "text.pth")


def test_official_names_round_trip():
    state = small().state_dict()
    back = to_timm_names(official(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], state[k]) for k in state)


def test_pretrained_path(tmp_path):
    model = tnt_vit.create_model("tnt_ti", depth=1)
    path = tnt_vit.save_checkpoint(model, tmp_path / "ti.safetensors")
    again = tnt_vit.create_model("tnt_ti", depth=1, pretrained=path)
    assert torch.equal(again.cls_token, model.cls_token)
    assert not again.training
