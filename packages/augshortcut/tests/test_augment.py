"""Paths in timm's models: every family, nothing changed at first, training habits, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models import gcvit, nest, volo
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

import effkit.notes
from augshortcut.config import PRESETS, AugmentConfig, preset
from augshortcut.injection.asked import augmented_blocks
from augshortcut.injection.augment import augment, config_of, freeze_base, path_state
from augshortcut.injection.registry import supported_blocks
from augshortcut.injection.rules import is_path, path_parameters
from effkit.errors import UserError

SMALL = {"num_classes": 10}
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 32, "patch_size": 8, **SMALL}
WIDE = {"embed_dims": (48, 96, 96, 96), "num_heads": (3, 3, 3, 3)}
# One small model of each known block type, and its picture's side.
FAMILIES = {
    "vision_transformer.Block": ("vit_tiny_patch16_224", VIT, 32),
    "vision_transformer.ResPostBlock": ("vit_tiny_patch16_224", {**VIT, "block_fn": "post"}, 32),
    "vision_transformer_relpos.RelPosBlock": ("vit_relpos_small_patch16_224", {**VIT, "depth": 2}, 32),
    "vision_transformer_relpos.ResPostRelPosBlock": ("vit_relpos_small_patch16_rpn_224", {**VIT, "depth": 2}, 32),
    "eva.EvaBlock": (
        "eva02_tiny_patch14_224",
        {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 28, **SMALL},
        28,
    ),
    "eva.EvaBlockPostNorm": (
        "eva02_tiny_patch14_224",
        {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 28, "use_post_norm": True, **SMALL},
        28,
    ),
    "beit.Block": ("beit_base_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 32, **SMALL}, 32),
    "swin_transformer.SwinTransformerBlock": (
        "swin_tiny_patch4_window7_224",
        {"depths": (1, 2), "embed_dim": 48, "num_heads": (3, 6), "img_size": 56, **SMALL},
        56,
    ),
    "swin_transformer_v2.SwinTransformerV2Block": (
        "swinv2_tiny_window8_256",
        {"depths": (1, 2), "embed_dim": 48, "num_heads": (3, 6), "img_size": 64, **SMALL},
        64,
    ),
    "pvt_v2.Block": ("pvt_v2_b0", {"depths": (1, 1, 1, 1), **SMALL}, 64),
    "twins.Block": ("twins_svt_small", {"depths": (1, 1, 1, 1), **SMALL}, 224),
    "cait.LayerScaleBlock": (
        "cait_xxs24_224",
        {"depth": 2, "embed_dim": 48, "num_heads": 3, "depth_token_only": 1, "img_size": 32, **SMALL},
        32,
    ),
    "convit.Block": ("convit_tiny", {"depth": 2, "local_up_to_layer": 1, "embed_dim": 12, **SMALL}, 224),
    "volo.Transformer": (volo.VOLO, {"layers": (1, 1, 1, 1), **WIDE, "img_size": 64, **SMALL}, 64),
    "nest.TransformerLayer": (nest.Nest, {"depths": (1, 1, 1), "img_size": 64, **SMALL}, 64),
    "xcit.XCABlock": ("xcit_nano_12_p16_224", {"depth": 2, "img_size": 32, **SMALL}, 32),
    "gcvit.GlobalContextVitBlock": (gcvit.GlobalContextVit, {"depths": (1, 1, 2, 1), "img_size": 64, **SMALL}, 64),
    "tnt.Block": ("tnt_s_patch16_224", {"depth": 2, "img_size": 32, **SMALL}, 32),
    "davit.SpatialBlock": ("davit_tiny", {"depths": (1, 1, 1, 1), **SMALL}, 64),
}
POST_NORM = ["vision_transformer.ResPostBlock", "vision_transformer_relpos.ResPostRelPosBlock", "eva.EvaBlockPostNorm"]
POST_NORM += ["swin_transformer_v2.SwinTransformerV2Block"]


def _vit(**more) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**VIT, **more})


def _build(family: str) -> tuple[nn.Module, torch.Tensor]:
    name, arguments, side = FAMILIES[family]
    arguments = dict(arguments)
    if arguments.get("block_fn") == "post":
        from timm.models.vision_transformer import ResPostBlock

        arguments["block_fn"] = ResPostBlock
    torch.manual_seed(0)
    model = (timm.create_model(name, **arguments) if isinstance(name, str) else name(**arguments)).eval()
    return model, torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_every_known_block_has_a_model_here():
    assert set(FAMILIES) | {"davit.ChannelBlock"} | {n for n in supported_blocks() if "pvt_v1" in n} == set(
        supported_blocks()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_retrofit_changes_nothing_until_its_gates_open(family):
    model, x = _build(family)
    names = set(model.state_dict())
    with torch.no_grad():
        before = model(x)
        augment(model, preset("retrofit", tap="input" if family in POST_NORM else "norm"))
        assert torch.equal(model(x), before)
        assert names < set(model.state_dict())
        assert all(is_path(name) for name in set(model.state_dict()) - names)
        for _, block in augmented_blocks(model):
            block.aug_attn.gate.fill_(1.0)
            block.aug_mlp.gate.fill_(1.0)
        assert not torch.equal(model(x), before)
    model.train()
    model(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in path_parameters(model).values())


@pytest.mark.parametrize("family", POST_NORM)
def test_post_norm_blocks_are_recognised(family):
    model, _ = _build(family)
    state = list(model.state_dict())
    with pytest.raises(UserError, match=r"norms after attention.*use tap='input'"):
        augment(model, "paper")
    assert list(model.state_dict()) == state


@pytest.mark.parametrize("tap", ["norm", "input"])
@pytest.mark.parametrize("scale", [1.0, 0.75])
def test_a_block_is_the_formula(tap, scale):
    model = _vit(init_values=0.5).double().eval()
    augment(model, AugmentConfig(tap=tap, residual_scale=scale))
    block, x = model.blocks[0], torch.randn(2, 5, 48, dtype=torch.float64)
    y = block.norm1(x)
    z = scale * (x + block.ls1(block.attn(y)) + block.aug_attn(x if tap == "input" else y))
    y = block.norm2(z)
    z = scale * (z + block.ls2(block.mlp(y)) + block.aug_mlp(z if tap == "input" else y))
    torch.testing.assert_close(block(x), z, rtol=0, atol=1e-13)


def test_no_paths_is_the_same_model():
    model = _vit()
    state, x = copy.deepcopy(model.state_dict()), torch.randn(2, 3, 32, 32)
    expected = model(x)
    same = augment(model, AugmentConfig(num_paths=0))
    assert same is model
    assert type(model.blocks[0]) is type(_vit().blocks[0])
    assert list(model.state_dict()) == list(state)
    assert torch.equal(model(x), expected)
    assert preset("official", num_paths=0).residual_scale == 1.0


@pytest.mark.parametrize("location", ["attn", "mlp", "both"])
def test_location(location):
    model = augment(_vit(), AugmentConfig(location=location))
    parts = {name.split(".")[2] for name in path_parameters(model)}
    assert parts == ({"aug_attn", "aug_mlp"} if location == "both" else {f"aug_{location}"})
    model(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_run(name):
    model = augment(_vit(), preset(name, reduction=12))
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert config_of(model) == preset(name, reduction=12)


def test_stochastic_depth_never_drops_paths():
    model = _vit(drop_path_rate=0.999).train()
    augment(model, "paper")
    block = model.blocks[1]
    assert isinstance(block.drop_path1, DropPath)
    x = torch.randn(4, 5, 48)
    for drop in (block.drop_path1, block.drop_path2):
        drop.drop_prob = 1.0 - 1e-12
    with torch.no_grad():
        z = x + block.aug_attn(block.norm1(x))
        z = z + block.aug_mlp(block.norm2(z))
        torch.testing.assert_close(block(x), z)
        block.aug_config = AugmentConfig(drop_path_paths=True)
        torch.testing.assert_close(block(x), x)


def test_copies_pickles_and_averages():
    model, x = augment(_vit(), "paper").eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(x), expected)
            assert twin.no_weight_decay.model is twin
            assert twin.no_weight_decay() == model.no_weight_decay()
        average = ModelEmaV3(model, decay=0.5)
        for p in path_parameters(model).values():
            p.data.mul_(3)
        average.update(model)
        moved = average.module(x)
        assert not torch.equal(moved, expected)
        fresh = augment(_vit(), "paper").eval()
        fresh.load_state_dict(average.module.state_dict())
        torch.testing.assert_close(fresh(x), moved, rtol=0, atol=0)


def test_gradient_checkpointing_and_intermediates():
    model, x = augment(_vit(), "paper").train(), torch.randn(2, 3, 32, 32)
    model(x).square().sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing(True)
    model(x).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, plain[name], msg=name)
    final, maps = model.eval().forward_intermediates(x)
    assert len(maps) == 2
    assert final.shape[-1] == 48


def test_compiles_whole():
    model, x = augment(_vit(depth=1), "paper").train(), torch.randn(2, 3, 32, 32)
    found = []
    for call in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        out = call(x)
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in path_parameters(model).values())])
    torch.testing.assert_close(*found)


@pytest.mark.slow
def test_compiles_whole_with_inductor():
    model, x = augment(_vit(depth=1), "paper").eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


def test_distilled_registers_and_dynamic_sizes():
    for name, arguments in [
        ("deit_tiny_distilled_patch16_224", {**VIT}),
        ("vit_base_patch14_reg4_dinov2", {**VIT, "init_values": 1e-5}),
        ("vit_tiny_patch16_224", {**VIT, "dynamic_img_size": True}),
    ]:
        model = augment(timm.create_model(name, **arguments).eval(), "paper")
        side = 40 if "dynamic_img_size" in arguments else 32
        assert model(torch.randn(1, 3, side, side)).shape == (1, 10)


def _groups(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("decay", [False, True])
def test_optimizers_decay_and_scale_paths_as_asked(decay):
    model = augment(_vit(), preset("retrofit", weight_decay=decay))
    groups = _groups(create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5), model)
    plain = _groups(
        create_optimizer_v2(_vit_twin := _vit(), "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5), _vit_twin
    )
    assert set(groups) == set(dict(model.named_parameters()))
    for name, group in groups.items():
        if is_path(name):
            assert group["lr_scale"] == 1.0
            assert (group["weight_decay"] > 0) == (decay and name.endswith("paths.weight"))
        else:
            assert (group["lr_scale"], group["weight_decay"]) == (plain[name]["lr_scale"], plain[name]["weight_decay"])
    flat = _groups(create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05), model)
    assert {name for name in flat if is_path(name) and flat[name]["weight_decay"] > 0} == {
        name for name in path_parameters(model) if decay and name.endswith("paths.weight")
    }


def test_layer_decay_of_a_model_without_groups():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = _vit(depth=3).blocks
            self.head = nn.Linear(48, 3)
            self.pretrained_cfg = {"classifier": "head"}

    model, twin = augment(Bare(), "paper"), Bare()
    groups, plain = (
        _groups(create_optimizer_v2(m, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5), m) for m in (model, twin)
    )
    assert {groups[name]["lr_scale"] for name in groups if is_path(name)} == {1.0}
    assert {n: g["lr_scale"] for n, g in groups.items() if not is_path(n)} == {
        n: g["lr_scale"] for n, g in plain.items()
    }


def test_only_the_paths_learn():
    model = freeze_base(augment(_vit(), "retrofit"))
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-2, weight_decay=0.05, layer_decay=0.75)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):  # gates open first, weights move then
        optimizer.zero_grad()
        model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(path_parameters(model))
    assert set(path_state(model)) == set(path_parameters(model))
    with pytest.raises(UserError, match="no paths"):
        freeze_base(_vit())


def test_two_paths_from_a_retrofit_do_not_stay_twins():
    model = augment(_vit(), "retrofit")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))).square().mean().backward()
        optimizer.step()
    weight = model.blocks[0].aug_attn.paths.weight
    assert not torch.allclose(weight.grad[0], weight.grad[1])


def test_model_wide_initialisation_leaves_paths_alone():
    model = augment(_vit(), "paper")
    before = {name: p.clone() for name, p in path_parameters(model).items()}
    model.init_weights("")
    assert all(torch.equal(p, before[name]) for name, p in path_parameters(model).items())


def test_deterministic_backward():
    model, x = augment(_vit(), "paper"), torch.randn(2, 3, 32, 32)
    found = []
    for _ in range(2):
        model.zero_grad()
        model(x).square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def _twice(model):
    augment(model, "paper")


def _own_forward(model):
    model.blocks[1].forward = lambda x: x


def _parametrized(model):
    class Same(nn.Module):
        def forward(self, x):
            return x

    model.blocks[1].scale = nn.Parameter(torch.ones(1))
    torch.nn.utils.parametrize.register_parametrization(model.blocks[1], "scale", Same())


def _subclass(model):
    class Mine(type(model.blocks[1])):
        def forward(self, x):
            return x + self.attn(self.norm1(x)) + self.mlp(self.norm2(x))

    model.blocks[1].__class__ = Mine


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_twice, ["augmented already", "2 blocks"]),
        (_own_forward, ["blocks.1", "forward of its own"]),
        (_parametrized, ["blocks.1", "parametrized"]),
        (_subclass, ["blocks.1", "subclass of vision_transformer.Block", "side by side"]),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_refused_by_name_before_anything_changed(spoil, said):
    model = _vit()
    spoil(model)
    kinds = [type(m) for m in model.modules()]
    with pytest.raises(UserError) as caught:
        augment(model, "paper")
    assert all(word in str(caught.value) for word in said), str(caught.value)
    assert [type(m) for m in model.modules()] == kinds


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_base_patch16_xp_224", ["blocks.0", "ParallelScalingBlock", "side by side"]),
        ("mvitv2_tiny", ["MultiScaleBlock", "changes inside"]),
        ("hiera_tiny_224", ["HieraBlock", "changes inside"]),
        ("visformer_tiny", ["visformer.Block", "NCHW"]),
        ("resnet18", ["ResNet", "no block", "vision_transformer.Block"]),
        ("tiny_vit_5m_224", ["TinyVit", "no block"]),
    ],
)
def test_models_that_cannot_have_paths(name, said):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UserError) as caught:
        augment(model, "paper")
    assert all(word in str(caught.value) for word in said), str(caught.value)


def test_wrapped_models_are_refused():
    for wrapped, said in [(torch.compile(_vit()), "compiled"), (nn.DataParallel(_vit()), "DataParallel")]:
        with pytest.raises(UserError, match=said):
            augment(wrapped, "paper")
    with pytest.raises(UserError, match="Module"):
        augment("vit", "paper")
    with pytest.raises(UserError, match="width 48"):
        augment(model := _vit(), AugmentConfig(num_blocks=5))
    assert not augmented_blocks(model)


def test_class_attention_is_left_alone_and_said(caplog):
    model, _ = _build("cait.LayerScaleBlock")

    effkit.notes._said.clear()
    with caplog.at_level("INFO"):
        augment(model, "paper")
    assert len(augmented_blocks(model)) == 2
    assert [r.message for r in caplog.records if "left as they are" in r.message] == [
        "left as they are: blocks_token_only.0 (cait.LayerScaleBlockClassAttn, class attention)"
    ]
