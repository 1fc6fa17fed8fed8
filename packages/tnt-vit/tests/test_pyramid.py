"""PyramidTNT: counts of the official code, the network against its written-out twin, timm's ways in, and learning."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import tnt_vit
from tnt_vit.paper.claim import train_experiment
from tnt_vit.paper.cost import pyramid_cost
from tnt_vit.pyramid.positions import resample_relative, resample_table
from tnt_vit.pyramid.stem import WordAggregation, cut_words, join_words
from tnt_vit.reference import pyramid_reference

SMALL = {
    "img_size": (32, 96),
    "num_classes": 7,
    "embed_dims": (16, 24, 32, 32),
    "inner_dims": (4, 6, 8, 8),
    "num_heads": (2, 2, 4, 4),
    "inner_num_heads": (1, 2, 2, 4),
    "depths": (1, 7, 1, 1),  # more than six blocks: the second one has an inner part as well
}
# Live parameters and MACs of one picture, counted in the official design; M here only.
GOLDEN = {
    "pyramid_tnt_ti": (10_578_529, 586_434_560),
    "pyramid_tnt_s": (31_953_200, 3_283_341_312),
    "pyramid_tnt_m": (84_943_572, 8_204_630_016),
    "pyramid_tnt_b": (156_990_072, 15_966_642_176),
}


def small(**kwargs) -> tnt_vit.PyramidTNT:
    """A little network in float64, every number of it random, running statistics too."""
    torch.manual_seed(0)
    model = tnt_vit.PyramidTNT(**{**SMALL, **kwargs}).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def pictures(*size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("variant", GOLDEN)
def test_counts_of_the_variants(variant: str) -> None:
    cost = pyramid_cost(variant)
    assert (cost.params, cost.macs) == GOLDEN[variant]
    assert cost.uncounted == ()


def test_equals_the_written_out_network() -> None:
    """A wide picture, so that rows and columns cannot be taken for each other, and an odd grid in the last stages."""
    model, x = small(), pictures(2, 3, 32, 96)
    assert model.grids == [(4, 12), (2, 6), (1, 3), (1, 2)]
    _, maps = model.forward_intermediates(x)
    logits, stages = pyramid_reference(model.state_dict(), x, SMALL["inner_num_heads"])
    assert (model(x) - logits).abs().max() < 1e-12
    assert [tuple(m.shape[2:]) for m in maps] == model.grids
    for ours, theirs in zip(maps, stages, strict=True):
        assert (ours.flatten(2).transpose(1, 2) - theirs).abs().max() < 1e-12


def test_which_blocks_have_an_inner_part() -> None:
    model = small()
    inner = [[block.has_inner for block in stage.blocks] for stage in model.stages]
    assert inner == [[True], [True, True] + 5 * [False], [True], [True]]
    six = small(depths=(1, 6, 1, 1))
    assert [block.has_inner for block in six.stages[1].blocks] == [True] + 5 * [False]


def test_gradients_reach_everything_that_is_read() -> None:
    model, x = small().train(), pictures(2, 3, 32, 96)
    model(x).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum())}
    # A bias before a batch norm, and one that a softmax over the keys takes out, have a gradient of rounding only.
    assert without == set()


def test_recomputing_changes_nothing() -> None:
    model, x = small(drop_path_rate=0.0).train(), pictures(2, 3, 32, 96)
    plain = torch.autograd.grad(model(x).square().sum(), model.stages[1].relative_pos)[0]
    model.set_grad_checkpointing()
    again = torch.autograd.grad(model(x).square().sum(), model.stages[1].relative_pos)[0]
    assert torch.allclose(plain, again, rtol=1e-12, atol=1e-15)


def test_words_are_cut_and_joined_row_by_row() -> None:
    image = torch.arange(2 * 3 * 8 * 12).reshape(2, 3, 8, 12).float()
    words = cut_words(image)
    assert words.shape == (2 * 6, 16, 3)
    assert torch.equal(words[1, :, 0].reshape(4, 4), image[0, 0, :4, 4:8])
    assert torch.equal(words[3, :, 2].reshape(4, 4), image[0, 2, 4:, :4])
    assert torch.equal(join_words(words, (2, 3)), image)


def test_groups_of_words_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    merge = WordAggregation(4, 6)
    words = torch.randn(16, 16, 4)  # a grid of 4x4 sentences
    changed = words.clone()
    changed[0] += torch.randn(16, 4)
    with torch.no_grad():
        far = (merge(changed, (4, 4)) - merge(words, (4, 4))).abs().amax((1, 2))
    assert far[0] > 0.01
    assert float(far[1:].max()) < 1e-6


def test_one_picture_does_not_change_another() -> None:
    model, x = small(), pictures(3, 3, 32, 96)
    assert torch.allclose(model(x)[:2], model(x[:2]), atol=1e-12)
    assert model(x[:0]).shape == (0, 7)


def test_attention_maps_are_of_the_pooled_grid() -> None:
    model = small()
    maps = model.attention_maps(pictures(2, 3, 32, 96))
    keys = [model.keys_grid(i) for i in range(4)]
    assert keys == [(1, 3), (1, 3), (1, 3), (1, 2)]
    assert [tuple(m.shape) for m in maps] == [(2, 2, 48, 3), (2, 2, 12, 3), (2, 4, 3, 3), (2, 4, 2, 2)]
    assert all(torch.allclose(m.sum(-1), torch.ones((), dtype=m.dtype)) for m in maps)


# --- other sizes ---


def test_tables_of_other_grids() -> None:
    ramp = torch.linspace(0, 1, 16).reshape(1, 1, 16).expand(1, 8, 16).reshape(1, 128, 1)  # 8 rows, 16 columns
    wide = resample_table(ramp, (8, 16), (4, 32)).reshape(4, 32)
    assert torch.allclose(wide, wide[:1].expand(4, 32), atol=1e-6)  # still the same in every row
    assert bool((wide[0].diff() > 0).all())
    assert resample_table(ramp, (8, 16), (8, 16)) is ramp
    # A bias that depends on the query's row and the key's column keeps doing so.
    query, key = torch.linspace(0, 1, 8), torch.linspace(0, 1, 4)
    bias = (query[:, None, None, None] + 2 * key).expand(8, 6, 2, 4).reshape(1, 1, 48, 8)
    new = resample_relative(bias, ((8, 6), (2, 4)), ((16, 12), (4, 8))).reshape(16, 12, 4, 8)
    assert torch.allclose(new, new[:, :1, :1].expand_as(new), atol=1e-6)
    assert bool((new[:, 0, 0, 0].diff() > 0).all())
    assert bool((new[0, 0, 0].diff() > 0).all())


def test_any_size_on_the_fly_or_for_good() -> None:
    x = pictures(1, 3, 64, 32)
    moving = small(dynamic_img_size=True)
    fixed = small()
    fixed.set_input_size((64, 32))
    assert fixed.img_size == (64, 32)
    assert torch.allclose(moving(x), fixed(x), atol=1e-6)  # tables are resampled in float32
    own = pictures(1, 3, 32, 96)
    assert torch.equal(moving(own), small()(own))


# --- weights ---


def test_names_are_the_official_ones() -> None:
    names = set(tnt_vit.create_model("pyramid_tnt_ti", device="meta").state_dict())
    inner = ["inner_norm1", "inner_attn.q", "inner_attn.kv", "inner_attn.proj", "inner_norm2", "inner_mlp.fc1"]
    outer = ["outer_norm1", "outer_attn.q", "outer_attn.kv", "outer_attn.linear", "outer_attn.norm", "outer_mlp.fc2"]
    blocks = [f"stages.0.blocks.0.{part}" for part in [*inner, "proj_norm1", "proj", "proj_norm2", *outer]]
    stem = ["common_conv.0", "common_conv.1", "inner_convs.0", "outer_convs.0", "outer_convs.3", "outer_convs.7"]
    merges = [f"{kind}_merges.2.{part}" for kind in ("word", "sentence") for part in ("norm", "conv.0")]
    weights = [*blocks, *(f"patch_embed.{part}" for part in stem), *merges, "norm", "head"]
    assert {f"{name}.weight" for name in weights} <= names
    assert {"outer_pos", "inner_pos", "stages.3.relative_pos"} <= names
    assert "stages.0.blocks.1.proj.weight" not in names  # no inner part
    assert "stages.2.blocks.0.outer_attn.linear.weight" not in names  # nothing pooled


@pytest.mark.parametrize("wrapping", ["plain", "module", "ema"])
def test_weights_of_the_official_layout_load(tmp_path, wrapping: str) -> None:
    model, path = small(img_size=64), tmp_path / "weights.pth.tar"
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrapped = {
        "plain": state,
        "module": {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}},
        "ema": {"state_dict": {k: torch.zeros_like(v) for k, v in state.items()}, "state_dict_ema": state},
    }[wrapping]
    torch.save(wrapped, path)
    torch.manual_seed(5)
    other = tnt_vit.PyramidTNT(**{**SMALL, "img_size": 64}).double().eval()
    assert tnt_vit.load_checkpoint(other, path) == []
    x = pictures(1, 3, 64, 64)
    assert torch.equal(other(x), model(x))


def test_saved_weights_keep_their_grid(tmp_path) -> None:
    model = small().float()
    path = tnt_vit.save_checkpoint(model, tmp_path / "weights.safetensors")
    other = tnt_vit.PyramidTNT(**{**SMALL, "img_size": (64, 32), "num_classes": 3}).eval()
    with pytest.raises(ValueError, match=r"head\.weight.*num_classes=7"):
        tnt_vit.load_checkpoint(other, path)
    assert tnt_vit.load_checkpoint(other, path, strict_head=False) == ["head.weight", "head.bias"]
    model.set_input_size((64, 32))
    assert torch.equal(other.outer_pos, model.outer_pos)
    assert all(torch.equal(a.relative_pos, b.relative_pos) for a, b in zip(other.stages, model.stages, strict=True))


def test_grey_pictures_get_the_summed_filters(tmp_path) -> None:
    model = small(img_size=64).float()
    path = tnt_vit.save_checkpoint(model, tmp_path / "weights.safetensors")
    grey = tnt_vit.PyramidTNT(**{**SMALL, "img_size": 64, "in_chans": 1}).eval()
    tnt_vit.load_checkpoint(grey, path)
    x = torch.randn(1, 1, 64, 64)
    assert torch.allclose(grey(x), model(x.expand(1, 3, 64, 64)), atol=1e-3)


def test_weights_of_the_other_kind_are_refused(tmp_path) -> None:
    flat = tnt_vit.TNT(img_size=32, patch_size=8, embed_dim=48, inner_dim=12, depth=1, num_heads=3, inner_num_heads=2)
    one = tnt_vit.save_checkpoint(flat, tmp_path / "tnt.safetensors")
    two = tnt_vit.save_checkpoint(small(), tmp_path / "pyramid.safetensors")
    with pytest.raises(ValueError, match=r"hold no PyramidTNT.*they are a TNT's"):
        tnt_vit.load_checkpoint(small(), one)
    with pytest.raises(ValueError, match=r"hold no TNT.*they are a PyramidTNT's"):
        tnt_vit.load_checkpoint(flat, two)


def test_tables_that_do_not_fit_are_refused(tmp_path) -> None:
    state = small().state_dict()
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"48 sentences, which is no square grid"):
        tnt_vit.load_checkpoint(small(), path)
    assert tnt_vit.load_checkpoint(small(), path, img_size=(32, 96)) == []
    torch.save({**state, "stages.1.relative_pos": torch.zeros(1, 2, 12, 12)}, path)
    with pytest.raises(ValueError, match=r"stages\.1\.relative_pos has 12 queries and 12 keys.* has 12 and 3"):
        tnt_vit.load_checkpoint(small(), path, img_size=(32, 96))


# --- bad input ---


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"img_size": 48}, "img_size=48x48 must be a multiple of 32.*near 48: 32 or 64"),
        ({"depths": (1, 1)}, r"sr_ratios=\(4, 2, 1, 1\) must have one number a stage, 2 as depths has"),
        ({"num_heads": (3, 2, 4, 4)}, r"num_heads\[0\]=3 must divide embed_dims\[0\]=16"),
        ({"inner_num_heads": (1, 4, 2, 4)}, r"inner_num_heads\[1\]=4 must divide inner_dims\[1\]=6"),
        ({"depths": (1, 0, 1, 1)}, r"depths=\[1, 0, 1, 1\] must hold whole numbers of at least 1, got 0"),
        ({"global_pool": "token"}, "global_pool='token'"),
        ({"drop_path_rate": 1.0}, "drop_path_rate must be"),
        ({"in_chans": 0}, "in_chans must be"),
    ],
)
def test_impossible_arguments_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tnt_vit.PyramidTNT(**{**SMALL, **wrong}, device="meta")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 32, 96), "must have 4 axes"),
        (torch.zeros(1, 3, 32, 96, dtype=torch.uint8), "must be floating point"),
        (torch.zeros(1, 1, 32, 96), "in_chans=1"),
        (torch.zeros(1, 3, 32, 64), "input is 32x64, the model was built for img_size=32x96"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        small()(x)


# --- timm ---


def test_timm_builds_it_and_its_features() -> None:
    assert timm.list_models("pyramid_tnt*") == sorted(GOLDEN)
    model = timm.create_model("pyramid_tnt_ti", features_only=True, out_indices=(0, 2), dynamic_img_size=True)
    assert model.feature_info.channels() == [80, 320]
    assert model.feature_info.reduction() == [8, 32]
    with torch.no_grad():
        assert [tuple(m.shape) for m in model(torch.zeros(1, 3, 96, 64))] == [(1, 80, 12, 8), (1, 320, 3, 2)]


def test_layer_wise_rates_reach_every_parameter_once() -> None:
    model = timm.create_model("pyramid_tnt_ti", num_classes=5, device="meta")
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    first, last = model.stages[0].blocks[0].outer_norm1.weight, model.stages[3].blocks[1].outer_norm1.weight
    assert scale[id(model.outer_pos)] < scale[id(first)] < scale[id(last)] < scale[id(model.head.weight)] == 1
    decayed = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert (decayed[id(model.outer_pos)], decayed[id(model.stages[0].relative_pos)]) == (0.0, 0.05)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
def test_graphs_and_scripts_give_the_same_bits() -> None:
    model, x = small(), pictures(2, 3, 32, 96)
    want = model(x)
    graph = create_feature_extractor(model, {"stages.1.blocks.0.outer_mlp": "early", "head": "logits"})
    assert torch.equal(graph(x)["logits"], want)
    assert graph(x)["early"].shape == (2, 2 * 6, 24)
    scripted = torch.jit.script(model)
    assert torch.equal(scripted(x), want)
    assert set(scripted.state_dict()) == set(model.state_dict())
    with pytest.raises(Exception, match="the graph takes pictures of"):
        graph(pictures(2, 3, 96, 32))
    with pytest.raises(ValueError, match="dynamic_img_size=False"):
        torch.jit.script(small(dynamic_img_size=True))


def test_no_published_weights() -> None:
    with pytest.raises(ValueError, match="no published weights for pyramid_tnt_s"):
        tnt_vit.create_model("pyramid_tnt_s", pretrained=True)


# --- learning ---


def test_learns_digits_in_a_short_run(tmp_path) -> None:
    words = ["trainer.max_epochs=2", "data.batch_size=16", "mixup.mixup_alpha=0", "data.limit=512"]
    run = train_experiment("pyramid_digits", tmp_path, *words)
    assert run.model.grids == [(4, 4), (2, 2), (1, 1)]
    assert run.accuracy >= 60
