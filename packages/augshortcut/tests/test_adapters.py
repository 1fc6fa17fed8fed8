"""What others hang on a network before or after it is augmented: hooks, adapters, parametrizations, quantization."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrize

from augshortcut.checkpoints.files import save_checkpoint, save_paths
from augshortcut.config import preset
from augshortcut.injection.augment import augment
from augshortcut.injection.fold import fold
from augshortcut.injection.folded import FrozenPaths
from augshortcut.injection.joining import Augmented
from effkit.errors import UserError

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 32, "patch_size": 8, "num_classes": 10}


def _vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **VIT).eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class _Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def _lora(model: nn.Module) -> nn.Module:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, target_modules=["qkv", "fc1"], init_lora_weights=False)
    return peft.get_peft_model(model, config)


def _hooked(model: nn.Module) -> nn.Module:
    model.blocks[0].register_forward_hook(lambda m, a, out: out * 1.5)
    model.blocks[1].attn.register_forward_pre_hook(lambda m, a: (a[0] * 0.5, *a[1:]))
    return model


def _parametrized(model: nn.Module) -> nn.Module:
    parametrize.register_parametrization(model.blocks[0].attn.qkv, "weight", _Doubled())
    return model


def _quantized(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its own call will move to another package
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.parametrize("change", [_lora, _hooked, _parametrized, _quantized], ids=lambda f: f.__name__)
def test_augmented_around_what_is_there(change, x):
    """A retrofit changes nothing at first whatever hangs on the blocks, and what hangs there stays in force."""
    plain = _vit()
    with torch.no_grad():
        bare = plain(x)
        model = change(plain)
        before = model(x)
        assert not torch.allclose(before, bare)
        augment(model, "retrofit")
        assert sum(isinstance(m, Augmented) for m in model.modules()) == 2
        torch.testing.assert_close(model(x), before, rtol=0, atol=0)
        for module in model.modules():
            if isinstance(module, Augmented):
                module.aug_attn.gate.fill_(1.0)
        assert not torch.allclose(model(x), before)


@pytest.mark.parametrize("change", [_lora, _hooked, _parametrized], ids=lambda f: f.__name__)
def test_folding_keeps_what_hangs_there(change, x):
    model = change(augment(_vit(), "paper")) if change is not _lora else _lora(_vit())
    if change is _lora:
        augment(model, "paper")
    folded = fold(model)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-5)
    if change is _lora:  # fc1 carries an adapter, so the MLP is not rewritten
        assert sum(isinstance(m, FrozenPaths) for m in folded.modules()) == 4


def test_adapters_put_on_afterwards(tmp_path, x):
    peft = pytest.importorskip("peft")
    model = augment(_vit(), "paper")
    with torch.no_grad():
        before = model(x)
        assert not torch.allclose(_lora(model)(x), before)
    # "all-linear" reaches the base's maps and no path; paths learn if they are named, in a copy that peft keeps.
    config = peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=["aug_attn", "aug_mlp"])
    adapted = peft.get_peft_model(augment(_vit(), "paper"), config)
    learning = {n for n, p in adapted.named_parameters() if p.requires_grad and "aug_" in n}
    assert len(learning) == 8
    assert not any("lora" in name for name in learning)
    with pytest.raises(UserError, match="kept twice by peft"):
        save_paths(adapted, tmp_path / "paths.safetensors")
    whole = adapted.merge_and_unload()
    save_paths(whole, tmp_path / "paths.safetensors")


def test_offloaded_models_are_refused(x):
    """Their weights come and go with hooks, which new paths would not have."""
    accelerate = pytest.importorskip("accelerate")
    model = accelerate.cpu_offload(_vit(), execution_device="cpu")
    with pytest.raises(UserError, match="offloaded by accelerate"):
        augment(model, "paper")
    assert not any(isinstance(m, Augmented) for m in model.modules())
    later = augment(_vit(), "paper")
    with torch.no_grad():
        expected = later(x)
        torch.testing.assert_close(accelerate.cpu_offload(later, execution_device="cpu")(x), expected)


def test_parametrized_paths_are_computed_as_they_are(x):
    model = augment(_vit(), "paper")
    with torch.no_grad():
        model(x)
    parametrize.register_parametrization(model.blocks[0].aug_attn.paths, "weight", _Doubled())
    twin = augment(_vit(), "paper")
    with torch.no_grad():
        state = {k.replace("parametrizations.weight.original", "weight"): v for k, v in model.state_dict().items()}
        twin.load_state_dict(state)
        twin.eval().blocks[0].aug_attn.paths.weight.mul_(2)
        torch.testing.assert_close(model(x), twin(x))
    with pytest.raises(UserError, match="parametrizations"):
        fold(model)


def test_hooks_on_paths_are_called(x):
    model, seen = augment(_vit(), "paper"), []
    model.blocks[0].aug_mlp.register_forward_hook(lambda m, a, out: seen.append(out.shape))
    with torch.no_grad():
        model(x)
    assert seen == [(2, 17, 48)]


def test_low_precision_bases(x):
    model = augment(_vit().bfloat16(), preset("retrofit"))
    assert model.blocks[0].aug_attn.paths.weight.dtype == torch.bfloat16
    with torch.no_grad():
        assert model(x.bfloat16()).dtype == torch.bfloat16
    model = augment(_vit(), "paper")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype == torch.bfloat16


def test_fully_shard_takes_the_augmented_class(tmp_path, x):
    """One process, gloo: the class is at module level, so sharding derives its own from it once."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = augment(_vit(), "paper")
    with torch.no_grad():
        expected = model(x)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert type(model.blocks[0]) is type(model.blocks[1])
        out = model(x)
        torch.testing.assert_close(out.detach(), expected)
        out.square().sum().backward()
        grads = [p.grad for n, p in model.named_parameters() if "aug_" in n]
        assert all(g is not None for g in grads)
        with pytest.raises(UserError, match="sharded"):
            augment(model, "paper")
        for save in (save_checkpoint, save_paths):
            with pytest.raises(UserError, match="is a shard"):
                save(model, tmp_path / "shards.safetensors")
    finally:
        dist.destroy_process_group()
