"""Files: whole models, paths alone, the official layout; and that a refused file leaves a model as it was."""

from __future__ import annotations

import copy
import logging

import pytest
import timm
import torch

from augshortcut.checkpoints.files import load_checkpoint, load_paths, save_checkpoint, save_paths, saved_config
from augshortcut.checkpoints.official import convert_official, is_official
from augshortcut.commands.convert import convert_checkpoint
from augshortcut.config import AugmentConfig, preset
from augshortcut.injection.asked import augmented_blocks
from augshortcut.injection.augment import augment, config_of, remove_paths
from augshortcut.injection.rules import path_parameters
from augshortcut.models.zoo import create_model
from augshortcut.reference import official_logits
from effkit.checkpoints import read_checkpoint
from effkit.errors import UserError

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 32, "patch_size": 8, "num_classes": 10}


def _vit(seed: int = 0, **more):
    torch.manual_seed(seed)
    return timm.create_model("vit_tiny_patch16_224", **{**VIT, **more}).eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_says_what_was_added(tmp_path, x, suffix):
    model = augment(_vit(), preset("official", num_blocks=2))
    file = save_checkpoint(model, tmp_path / f"model{suffix}")
    assert set(read_checkpoint(file).state) == {name for name, _ in model.named_parameters()}
    assert saved_config(file) == config_of(model)
    plain = _vit(1)
    assert load_checkpoint(plain, file) == []
    with torch.no_grad():
        assert torch.equal(plain(x), model(x))
    again = augment(_vit(1), preset("official", num_blocks=2, backend="dense"))  # how it is computed may differ
    load_checkpoint(again, file)
    with pytest.raises(UserError, match=r"residual_scale=0\.75 \(model: 1\.0\)"):
        load_checkpoint(augment(_vit(1), AugmentConfig(num_blocks=2)), file)


def test_a_file_that_does_not_fit_leaves_the_model_as_it_was(tmp_path):
    file = save_checkpoint(augment(_vit(), "paper"), tmp_path / "model.safetensors")
    other = _vit(depth=1)
    names = list(other.state_dict())
    with pytest.raises(UserError, match=r"blocks\.1"):
        load_checkpoint(other, file)
    assert list(other.state_dict()) == names
    assert not augmented_blocks(other)
    assert "no_weight_decay" not in vars(other)
    with pytest.raises(UserError, match=r"head\.weight"):
        load_checkpoint(_vit(num_classes=3), file)
    fine = _vit(num_classes=3)
    assert load_checkpoint(fine, file, strict_head=False) == ["head.weight", "head.bias"]


def test_paths_alone_go_onto_the_pretrained_model(tmp_path, x, caplog):
    base, model = _vit(), augment(_vit(), "retrofit")
    with torch.no_grad():
        for p in path_parameters(model).values():
            p.add_(0.1)
    for suffix in (".safetensors", ".pth"):
        file = save_paths(model, tmp_path / f"paths{suffix}")
        assert set(read_checkpoint(file).state) == set(path_parameters(model))
        assert file.stat().st_size < 60_000
        plain = _vit()
        with caplog.at_level(logging.WARNING):
            assert set(load_paths(plain, file)) == set(path_parameters(model))
        assert not caplog.records
        with torch.no_grad():
            assert torch.equal(plain(x), model(x))
            assert not torch.equal(plain(x), base(x))
    with caplog.at_level(logging.WARNING):
        load_paths(_vit(1), file)
    assert "other weights than the model has" in caplog.text
    with pytest.raises(UserError, match="belong to vit_tiny_patch16_224, the model is deit_tiny_patch16_224"):
        load_paths(timm.create_model("deit_tiny_patch16_224", **VIT), file)
    with pytest.raises(UserError, match="no file of paths"):
        load_paths(_vit(), save_checkpoint(_vit(), tmp_path / "plain.safetensors"))
    with pytest.raises(UserError, match="no paths"):
        save_paths(_vit(), tmp_path / "none.safetensors")


def test_what_wraps_a_model_leaves_no_trace_in_its_files(tmp_path, x):
    """A file saved from DDP or a compiled model goes onto the plain one, and the other way round."""
    import torch.distributed as dist

    model = augment(_vit(), "paper")
    with torch.no_grad():
        expected = model(x)
    partly = copy.deepcopy(model)
    partly.blocks[1] = torch.compile(partly.blocks[1], backend="eager")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        wrapped = [torch.nn.parallel.DistributedDataParallel(model), torch.compile(model, backend="eager"), partly]
        for number, outer in enumerate(wrapped):
            for save, load in ((save_checkpoint, load_checkpoint), (save_paths, load_paths)):
                file, plain = save(outer, tmp_path / f"{number}.safetensors"), _vit()
                load(plain, file)
                with torch.no_grad():
                    assert torch.equal(plain(x), expected)
                for p in path_parameters(outer).values():
                    p.data.add_(1.0)
                load(outer, file)
                assert all(torch.equal(a, b) for a, b in zip(outer.parameters(), plain.parameters(), strict=True))
    finally:
        dist.destroy_process_group()


def test_models_without_values_are_given_them_or_refused(tmp_path, x):
    model = augment(_vit(), "paper")
    file, paths = save_checkpoint(model, tmp_path / "model.pth"), save_paths(model, tmp_path / "paths.pth")
    with torch.device("meta"):
        empty, other = _vit(), _vit()
    load_checkpoint(empty, file)
    with torch.no_grad():
        assert torch.equal(empty(x), model(x))
    with pytest.raises(UserError, match="meta device: load its own weights first"):
        load_paths(other, paths)
    assert not augmented_blocks(other)
    with pytest.raises(UserError, match="has no values to write"):
        save_paths(model.to("meta"), tmp_path / "empty.pth")


def test_weights_of_the_base_alone_are_told_from_damaged_ones(tmp_path):
    file = save_checkpoint(_vit(), tmp_path / "base.safetensors")
    with pytest.raises(UserError, match="hold no paths: load them first, then augment"):
        load_checkpoint(augment(_vit(), "paper"), file)


def test_a_trained_head_travels_with_the_paths(tmp_path, x):
    model = augment(_vit(), "retrofit")
    with torch.no_grad():
        model.head.weight.add_(1.0)
    file = save_paths(model, tmp_path / "paths.safetensors", beside=["head."])
    plain = _vit()
    assert {"head.weight", "head.bias"} < set(load_paths(plain, file))
    with torch.no_grad():
        assert torch.equal(plain(x), model(x))
    with pytest.raises(UserError, match="fc"):
        save_paths(model, tmp_path / "no.safetensors", beside=["fc."])


def test_paths_of_unknown_kind_are_refused(tmp_path):
    torch.save(augment(_vit(), "paper").state_dict(), tmp_path / "bare.pth")
    plain = _vit()
    with pytest.raises(UserError, match="do not say of what kind"):
        load_checkpoint(plain, tmp_path / "bare.pth")
    load_checkpoint(augment(plain, "paper"), tmp_path / "bare.pth")


def test_paths_can_be_taken_off_again(x):
    model = _vit()
    with torch.no_grad():
        expected = model(x)
        remove_paths(augment(model, "paper"))
        assert torch.equal(model(x), expected)
    assert type(model.blocks[0]).__name__ == "Block"
    augment(model, "paper")


def _official(mode: str, dim: int = 48) -> tuple[dict[str, torch.Tensor], int, float]:
    """A state dict in the official layout, as that code would save it: random, float64."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: 0.2 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    base = timm.create_model("deit_tiny_patch16_224", **{**VIT, "embed_dim": dim, "num_heads": 1})
    state = {name: draw(*value.shape) for name, value in base.state_dict().items()}
    two = mode.endswith("2")
    for i in range(2):
        for group in ("augs_attn", "augs") if not two else ("augs_attn", "augs_attn2", "augs", "augs2"):
            prefix = f"blocks.{i}.{group}.0" if two else f"blocks.{i}.{group}"
            if mode.startswith("circulant"):
                state[f"{prefix}.weight_list"] = draw(4 * dim)
                state[f"{prefix}.index_matrix"] = torch.zeros(dim, dim, dtype=torch.long)
            else:
                state[f"{prefix}.weight"] = draw(dim, dim)
            state[f"{prefix}.bias"] = draw(dim)
    return state, 1, 0.75 if two else 1.0


@pytest.mark.parametrize("mode", ["linear", "circulant", "linear2", "circulant2"])
def test_official_modes_forward_alike(mode, x):
    state, heads, scale = _official(mode)
    assert is_official(state)
    ours, config = convert_official(state)
    assert config.num_paths == (2 if mode.endswith("2") else 1)
    assert config.residual_scale == scale
    assert config.act == ("gelu" if mode.endswith("2") else "identity")
    assert config.projection == ("circulant" if mode.startswith("circulant") else "dense")
    model = timm.create_model("deit_tiny_patch16_224", **{**VIT, "num_heads": heads}).double().eval()
    augment(model, config).load_state_dict(ours)
    with torch.no_grad():
        expected = official_logits(state, x.double(), heads, scale)
        torch.testing.assert_close(model(x.double()), expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


def test_converter_reports_what_it_does_not_know():
    state, *_ = _official("circulant2")
    with pytest.raises(UserError, match=r"1 names are not the official code's: dist_token"):
        convert_official({**state, "dist_token": torch.zeros(1)})
    with pytest.raises(UserError, match="no paths"):
        convert_official(_vit().state_dict())
    broken = {k: v for k, v in state.items() if k != "blocks.1.augs2.0.bias"}
    with pytest.raises(UserError, match=r"blocks\.1: path 1 of aug_mlp"):
        convert_official(broken)
    odd = {**state, "blocks.0.augs.0.weight_list": torch.zeros(100)}
    with pytest.raises(UserError, match="100 numbers"):
        convert_official(odd)


def test_convert_checks_the_result(tmp_path):
    state, *_ = _official("circulant2", 64)
    torch.save(
        {"model": {f"module.{k}": v.float() if v.is_floating_point() else v for k, v in state.items()}},
        tmp_path / "a.pth",
    )
    report = convert_checkpoint(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert report.exit_code == 0
    assert report.data["match"]
    sizes = [(tmp_path / name).stat().st_size for name in ("a.pth", "b.safetensors")]
    assert sizes[0] - sizes[1] > 8 * 64 * 64 * 8  # eight tables of indices
    model = create_model("deit_tiny_patch16_224", **{**VIT, "embed_dim": 64, "num_heads": 1})
    load_checkpoint(model, tmp_path / "b.safetensors")
    assert config_of(model).residual_scale == 0.75
    with pytest.raises(UserError, match="source itself"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.pth")
