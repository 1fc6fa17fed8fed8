"""Conversion: every layout becomes timm's, sizes are found, and the result is shown to compute the same."""

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed

import tnt_vit
from effkit.checkpoints import SUFFIXES
from tnt_vit.checkpoints.sizes import infer_sizes
from tnt_vit.checkpoints.zoo import VARIANTS
from tnt_vit.commands import convert
from tnt_vit.commands.convert import convert_checkpoint

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
TOLD = {"num_heads": 3, "inner_num_heads": 2, "patch_size": 8}  # what shapes do not show
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
    model = tnt_vit.TNT(**{**ARGS, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


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


def verdicts(report) -> list[str]:
    return [row[-1] for row in report.tables[1].rows]


SOURCES = {
    "timm": (lambda s: s, "plain dictionary, timm's names"),
    "official": (official, "plain dictionary, official names"),
    "ema": (
        lambda s: {
            "state_dict": {k: torch.zeros_like(v) for k, v in s.items()},
            "state_dict_ema": {f"module.{k}": v for k, v in official(s).items()},
            "epoch": 299,
        },
        "state_dict_ema, official names, prefix 'module.'",
    ),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("layout", SOURCES)
def test_every_layout_becomes_timms(tmp_path, layout, suffix):
    model = small()
    wrap, described = SOURCES[layout]
    torch.save(wrap(state_of(model)), tmp_path / "weights.pth.tar")
    target = tmp_path / "out" / f"weights{suffix}"
    report = convert_checkpoint(tmp_path / "weights.pth.tar", target, **TOLD)
    assert report.exit_code == 0
    assert report.files == [target]
    assert verdicts(report) == ["match"] * 3  # names, our model, timm's model
    assert report.data["layout"] == described
    found = load_file(target) if suffix == ".safetensors" else torch.load(target, weights_only=True)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_a_lightning_checkpoint_tells_what_shapes_do_not(tmp_path):
    model = small()
    path = tmp_path / "best.ckpt"
    config = {
        "model": {"name": "tnt_s_patch16_224", "embed_dim": 48, **TOLD, "depth": None},
        "data": {"name": "digits"},
    }
    state = {f"model.{k}": v for k, v in state_of(model).items()} | {"val_loss.weight": torch.ones(())}
    torch.save({"state_dict": state, "config": config, "pytorch-lightning_version": "2.6.6"}, path)
    report = convert_checkpoint(path, tmp_path / "out.safetensors")
    assert verdicts(report) == ["match"] * 3
    assert "Lightning checkpoint" in report.data["layout"]
    origin = {row[0]: row[2] for row in report.tables[0].rows}
    assert (origin["num_heads"], origin["inner_stride"], origin["depth"]) == ("training run", "shapes", "shapes")
    assert report.data["args"]["num_heads"] == 3


def test_without_hints_the_missing_ones_are_asked_for(tmp_path):
    path = tnt_vit.save_checkpoint(small(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"num_heads=\.\.\., inner_num_heads=\.\.\., patch_size="):
        convert_checkpoint(path, tmp_path / "out.pth")
    with pytest.raises(ValueError, match=r"patch_size=7 does not fit.*2 x 2 words"):
        convert_checkpoint(path, tmp_path / "out.pth", **{**TOLD, "patch_size": 7})
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_recognised_by_its_shapes(name):
    model = tnt_vit.create_model(name, num_classes=3, device="meta")
    found = infer_sizes(model.state_dict())
    want = VARIANTS[name].args
    assert found.variant == name
    assert found.args["num_classes"] == 3
    for key, value in want.items():
        assert found.args[key] == value, key
    assert infer_sizes(model.state_dict(), variant=name).args == found.args


@pytest.mark.parametrize(
    "kwargs", [{"tnt_blocks": [2]}, {"se_ratio": 0.25}, {"legacy": True}, {"num_classes": 0}], ids=str
)
def test_hybrids_gates_and_legacy_models_are_told_apart(tmp_path, kwargs):
    model = small(**kwargs)
    path = tnt_vit.save_checkpoint(model, tmp_path / "w.pth")
    report = convert_checkpoint(path, tmp_path / "out.safetensors", **TOLD)
    args = report.data["args"]
    for key, value in kwargs.items():
        assert args[key] == (tuple(value) if isinstance(value, list) else value)
    timm_has_it = not {"tnt_blocks", "se_ratio"} & kwargs.keys()
    assert verdicts(report) == ["match", "match", "match" if timm_has_it else "skipped"]
    again = tnt_vit.TNT(**args).eval()
    tnt_vit.load_checkpoint(again, tmp_path / "out.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), model(x))


def test_published_shapes_load_in_timm_by_name(tmp_path):
    torch.manual_seed(0)
    peer = timm.create_model("tnt_s_patch16_224", depth=1, num_classes=4).eval()
    torch.save({"state_dict": state_of(peer)}, tmp_path / "w.pth.tar")
    report = convert_checkpoint(tmp_path / "w.pth.tar", tmp_path / "w.safetensors")
    assert report.data["origin"]["num_heads"] == "variant tnt_s_patch16_224"
    assert any("untrained" in line for line in report.lines)
    again = timm.create_model(
        "tnt_s_patch16_224", depth=1, num_classes=4, checkpoint_path=str(tmp_path / "w.safetensors")
    ).eval()
    x = torch.randn(1, 3, 224, 224)
    assert torch.equal(again(x), peer(x))


def test_positions_are_resampled_for_another_size(tmp_path):
    model = small()
    path = tnt_vit.save_checkpoint(model, tmp_path / "w.pth")
    report = convert_checkpoint(path, tmp_path / "w48.safetensors", img_size=48, **TOLD)
    assert report.exit_code == 0
    assert verdicts(report) == ["match", "match"]  # names, timm's model at the new size
    found = load_file(tmp_path / "w48.safetensors")
    want = resample_abs_pos_embed(model.patch_pos.detach(), new_size=[6, 6], num_prefix_tokens=1)
    assert torch.equal(found["patch_pos"], want)
    assert torch.equal(found["pixel_pos"], model.pixel_pos)
    with pytest.raises(ValueError, match="multiple of patch_size"):
        convert_checkpoint(path, tmp_path / "w50.pth", img_size=50, **TOLD)


def test_a_grid_that_is_not_square_needs_its_size(tmp_path):
    path = tnt_vit.save_checkpoint(small(img_size=(16, 48)), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"12 sentences.*img_size"):
        convert_checkpoint(path, tmp_path / "out.pth", **TOLD)
    report = convert_checkpoint(path, tmp_path / "out.pth", img_size=(16, 48), **TOLD)
    assert report.exit_code == 0
    assert report.data["args"]["img_size"] == (16, 48)


def test_half_precision_becomes_float32(tmp_path):
    state = {k: v.half() for k, v in state_of(small()).items()}
    torch.save(state, tmp_path / "half.pth")
    report = convert_checkpoint(tmp_path / "half.pth", tmp_path / "out.safetensors", **TOLD)
    assert report.exit_code == 0
    found = load_file(tmp_path / "out.safetensors")
    assert {v.dtype for v in found.values()} == {torch.float32}
    assert all(torch.equal(found[k], state[k].float()) for k in state)


def test_a_wrong_result_is_noticed(tmp_path, monkeypatch):
    path = tnt_vit.save_checkpoint(small(), tmp_path / "w.pth")

    def spoiled(model, target, **kept):
        with torch.no_grad():
            model.head.bias[1] += 1e-5
        return tnt_vit.save_checkpoint(model, target)

    monkeypatch.setattr(convert, "save_checkpoint", spoiled)
    report = convert_checkpoint(path, tmp_path / "out.pth", **TOLD)
    assert report.exit_code == 1
    assert verdicts(report) == ["differs", "differs", "match"]


def test_bad_arguments_raise(tmp_path):
    path = tnt_vit.save_checkpoint(small(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"out\.bin.*safetensors"):
        convert_checkpoint(path, tmp_path / "out.bin", **TOLD)
    with pytest.raises(ValueError, match="source itself"):
        convert_checkpoint(path, tmp_path / "w.pth", **TOLD)
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        convert_checkpoint(tmp_path / "gone.pth", tmp_path / "out.pth")
    with pytest.raises(ValueError, match=r"not variant=tnt_s: .*embed_dim=384 \(the checkpoint: 48\)"):
        convert_checkpoint(path, tmp_path / "out.pth", variant="tnt_s")
    with pytest.raises(ValueError, match=r"variant.*tnt_x.*tnt_"):
        convert_checkpoint(path, tmp_path / "out.pth", variant="tnt_x")
    torch.save({k: v for k, v in small().state_dict().items() if not k.startswith("blocks.0.")}, tmp_path / "gap.pth")
    with pytest.raises(ValueError, match="without gaps"):
        convert_checkpoint(tmp_path / "gap.pth", tmp_path / "out.pth", **TOLD)
