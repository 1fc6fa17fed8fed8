"""Models that somebody has changed: adapters, hooks, parametrizations, quantized and replaced parts, other tools.

What is known exactly runs fast, what can be computed runs module by module, the rest is refused by name.
"""

import copy
import logging

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import PyTorchModelHubMixin
from packaging.version import Version
from timm.utils import AttentionExtract
from torch import nn
from torch.nn.utils import parametrize
from torchvision.models.feature_extraction import create_feature_extractor

import effkit.notes
from effkit.errors import UserError
from tnt_vit import TNT, create_model, optimize_for_inference
from tnt_vit.layers import TNTBlock

SMALL = {
    "img_size": 32, "patch_size": 16, "embed_dim": 48, "inner_dim": 12, "depth": 2, "num_heads": 3,
    "inner_num_heads": 2, "num_classes": 5,
}  # fmt: skip


def small(**kwargs) -> TNT:
    torch.manual_seed(0)
    model = TNT(**{**SMALL, **kwargs}).double().eval()
    with torch.no_grad():
        for value in model.parameters():  # far from the start, where every branch is about zero
            value.add_(0.3 * torch.randn_like(value))
    return model


def picture(batch=2, side=(32, 32)):
    return torch.randn(batch, 3, *side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Scaled(nn.Linear):
    """A subclass that computes something else than its weights say."""

    def forward(self, x):
        return 2 * super().forward(x)


class Twice(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 2 * self.inner(x)


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.abs()


def replaced(name, make):
    def change(model):
        parent, _, leaf = name.rpartition(".")
        old = model.get_submodule(name)
        setattr(model.get_submodule(parent), leaf, make(old))

    return change


def subclassed(old):
    new = Scaled(old.in_features, old.out_features, bias=old.bias is not None, dtype=old.weight.dtype)
    new.load_state_dict(old.state_dict())
    return new


def adapted(model):
    """LoRA as peft injects it, with adapters that do something."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["qk", "v", "fc1"], init_lora_weights=False)
    torch.manual_seed(1)
    peft.inject_adapter_in_model(config, model)
    model.double()


def own_forward(model):
    part = model.blocks[0].mlp_in
    part.forward = lambda x: 2 * type(part).forward(part, x)


def hooked(kind, name):
    def change(model):
        part = model.get_submodule(name)
        if kind == "pre":
            part.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))
        else:
            part.register_forward_hook(lambda module, args, out: out * 2)

    return change


# Where a hook is on the block itself it is called in any case, as blocks are.
CHANGES = {
    "adapters": adapted,
    "subclass": replaced("blocks.0.attn_in.qk", subclassed),
    "wrapper": replaced("blocks.1.attn_in.proj", Twice),
    "activation": replaced("blocks.0.mlp_in.act", lambda old: nn.ReLU()),
    "outer activation": replaced("blocks.1.mlp.act", lambda old: nn.ReLU()),
    "other gelu": replaced("blocks.0.mlp_in.act", lambda old: nn.GELU(approximate="tanh")),
    "post hook": hooked("post", "blocks.0.attn_in.v"),
    "pre hook": hooked("pre", "blocks.0.attn_in.qk"),
    "outer hook": hooked("post", "blocks.0.attn_out.qk"),
    "parametrized": lambda m: parametrize.register_parametrization(m.blocks[0].attn_in.v, "weight", Symmetric()),
    "weight norm": lambda m: parametrize.register_parametrization(m.blocks[1].mlp.fc1, "weight", Symmetric()),
    "own forward": own_forward,
}


def modules_one_by_one(model, x):
    """The model as its modules say, every one of them called."""
    words, sentences = model.embed(x)
    for block in model.blocks:
        words = words + block.attn_in(block.norm_in(words), explicit=True)
        words = words + block.mlp_in(block.norm_mlp_in(words))
        sentences = block.inject(words, sentences)
        attention = block.attn_out
        tokens = block.norm_out(sentences)
        q, k = attention.qk(tokens).unflatten(-1, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        v = attention.v(tokens).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        mixed = (q @ k.transpose(-2, -1) * attention.scale).softmax(-1) @ v
        sentences = sentences + attention.proj(mixed.transpose(1, 2).flatten(2))
        sentences = sentences + block.mlp(block.norm_mlp(sentences))
    return model.forward_head(model.norm(sentences))


@pytest.fixture
def interpreted(monkeypatch):
    """What ``auto`` chooses on a GPU, on tensors of a CPU."""
    monkeypatch.setattr("tnt_vit.model.resolve_backend", lambda *args, **kwargs: "torch")


@pytest.mark.parametrize("change", CHANGES)
def test_every_form_computes_what_the_changed_model_says(change, interpreted):
    model, x = small(), picture()
    before = model(x).detach()
    CHANGES[change](model)
    want = modules_one_by_one(model, x)
    assert (want - before).abs().max() > 1e-5  # else nothing was shown
    assert (model(x) - want).abs().max() < 1e-11
    model.backend = "reference"
    assert (model(x) - want).abs().max() < 1e-11
    with pytest.raises(
        UserError, match=r"optimize_for_inference: blocks\.[01]\.[\w.]+ (is|has|holds) .*merge adapters"
    ):
        optimize_for_inference(model)


def test_it_is_said_once(interpreted, monkeypatch, caplog):
    monkeypatch.setattr(effkit.notes, "_said", set())
    model = small()
    adapted(model)
    model(picture())
    model(picture())
    (said,) = [record.message for record in caplog.records]
    assert said == "attn_in.qk is a peft Linear: the words' part of such blocks runs module by module"


def test_untouched_models_take_the_fast_path(interpreted, monkeypatch):
    seen = []
    original = TNTBlock.inner_params
    monkeypatch.setattr(TNTBlock, "inner_params", lambda self: seen.append(self) or original(self))
    small()(picture())
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.blocks[1].register_forward_hook(lambda *a: None), r"blocks\.1 has hooks"),
        (lambda m: m.register_forward_pre_hook(lambda *a: None), "the model has hooks"),
        (lambda m: setattr(m, "blocks", nn.ModuleList([Twice(b) for b in m.blocks])), r"blocks\.0 is a Twice"),
    ],
)
def test_hooks_on_whole_blocks_are_refused(change, what):
    model = small()
    change(model)
    with pytest.raises(UserError, match=what):
        optimize_for_inference(model)


def test_a_subclass_is_refused():
    class Mine(TNT):
        pass

    with pytest.raises(UserError, match="not its subclass Mine"):
        optimize_for_inference(Mine(**SMALL))


def test_what_is_called_as_it_is_may_be_replaced():
    model, x = small(se_ratio=0.25), picture()
    model.head = nn.Sequential(nn.Linear(48, 7), nn.Tanh()).double()
    model.blocks[0].se_layer.register_forward_hook(lambda module, args, out: out * 2)
    assert (optimize_for_inference(model)(x) - model(x)).abs().max() < 1e-11


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")  # of the tool that is tried here
def test_quantized_linears_run_and_are_refused_by_name():
    model, x = small().float(), picture().float()
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    found = quantized(x)
    assert found.shape == (2, 5)
    assert 0 < (found - model(x)).abs().max() < 0.5 * model(x).abs().max()
    with pytest.raises(UserError, match=r"is a torch Linear|holds"):
        optimize_for_inference(quantized)


# --- names of parameters ----------------------------------------------------------------------------------------------


def test_names_of_the_state_are_those_of_the_parameters(tmp_path):
    model, x = small(qkv_bias=True), picture()
    names = {name for name, _ in model.named_parameters()}
    assert names == set(model.state_dict())
    peer = timm.create_model("tnt_s_patch16_224", num_classes=5, embed_dim=48, inner_dim=12, depth=2, num_heads_outer=3,
                             num_heads_inner=2, img_size=32, qkv_bias=True)  # fmt: skip
    assert names == {name for name, _ in peer.named_parameters()}
    state = {name: value * 0.9 for name, value in model.state_dict().items()}
    got = torch.func.functional_call(model, state, x)
    other = small(qkv_bias=True)
    other.load_state_dict(state)
    assert torch.equal(got, other(x))
    safetensors.torch.save_model(other, str(tmp_path / "m.safetensors"))
    safetensors.torch.load_model(model, str(tmp_path / "m.safetensors"))
    assert torch.equal(model(x), got)


def test_one_projection_in_a_file_is_read_as_two():
    model = small(qkv_bias=True)
    state = model.state_dict()
    joined = {}
    for name, value in state.items():
        if ".qk." in name:
            joined[name.replace(".qk.", ".qkv.")] = torch.cat([value, state[name.replace(".qk.", ".v.")]])
        elif ".v." not in name:
            joined[name] = value
    other = small(qkv_bias=True).apply(lambda m: m.reset_parameters() if isinstance(m, nn.Linear) else None)
    other.load_state_dict(joined)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), state.values(), strict=True))


def test_values_changed_behind_torchs_back_are_seen():
    """``.data`` does not count versions: a product kept from the last call would be an old one."""
    model, x = small(), picture(64)
    with torch.inference_mode():
        before = model(x)
        model.blocks[0].attn_in.v.weight.data.mul_(3)
        model.blocks[1].attn_out.qk.weight.data = model.blocks[1].attn_out.qk.weight.data * 3
        assert (model(x) - before).abs().max() > 1e-4
        assert (model(x) - modules_one_by_one(model, x)).abs().max() < 1e-11


class Hub(TNT, PyTorchModelHubMixin):
    pass


def test_hub_mixin_and_timm_read_a_folder(tmp_path):
    model = Hub(**SMALL).eval()
    model.save_pretrained(tmp_path / "mixin")
    x = picture().float()
    assert torch.equal(Hub.from_pretrained(tmp_path / "mixin").eval()(x), model(x))
    ours = create_model("tnt_ti_patch16_224", num_classes=3, depth=1).eval()
    # timm before 1.0.30 opens a folder's safetensors as a pickle, its own models' too.
    safe = Version(timm.__version__) >= Version("1.0.30")
    timm.models.save_for_hf(ours, str(tmp_path / "hub"), safe_serialization=safe, model_args={"depth": 1})
    big = torch.randn(1, 3, 224, 224)
    assert torch.equal(timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()(big), ours(big))


# --- other tools ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "names"), [("hook", None), ("fx", ["*.softmax"])])
def test_timms_attention_extraction_finds_both_levels(mode, names):
    model, x = small(), picture()
    want = model.attention_maps(x)
    found = AttentionExtract(model, names=names, method=mode)(x)
    assert len(found) == 4
    for i, maps in enumerate(want):
        for name, value in (("attn_in", maps.inner.flatten(0, 1)), ("attn_out", maps.outer)):
            (key,) = [k for k in found if k.startswith(f"blocks.{i}.{name}.")]
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-12)


def scripts(test):
    """torch.jit.script is deprecated and used all the same; the other is of the constructor of torch's GraphModule."""
    for warning in ("`torch.jit.script` is deprecated:FutureWarning", "The TorchScript type system:UserWarning"):
        test = pytest.mark.filterwarnings(f"ignore:{warning}")(test)
    return test


@scripts
@pytest.mark.parametrize("options", [{}, {"legacy": True}, {"se_ratio": 0.25, "global_pool": "avg"}])
def test_graphs_and_scripts_compute_the_same(options):
    model, x = small(**options), picture()
    want = model(x)
    graph = create_feature_extractor(model, {"blocks.0.mlp": "early", "head": "logits"})
    assert (graph(x)["logits"] - want).abs().max() < 1e-11
    assert graph(x)["early"].shape == (2, 5, 48)
    scripted = torch.jit.script(model)
    assert (scripted(x) - want).abs().max() < 1e-11
    assert set(scripted.state_dict()) == set(model.state_dict())
    assert (torch.jit.script(graph)(x)["logits"] - want).abs().max() < 1e-11
    with pytest.raises(Exception, match="the graph takes pictures of"):
        graph(picture(2, (48, 32)))


@pytest.mark.parametrize(
    "options", [{}, {"legacy": True}, {"inner_dim": 6, "inner_stride": 2}, {"backend": "reference"}]
)
def test_graphs_give_the_same_bits(options):
    model = small(**options).float()
    x = picture().float()
    with torch.inference_mode():
        assert torch.equal(create_feature_extractor(model, {"head": "logits"})(x)["logits"], model(x))


@pytest.mark.parametrize("change", ["hook", "subclass", "parametrize"])
def test_the_stem_calls_a_convolution_that_was_changed(change):
    model, x = small(), picture()
    want = model(x)
    conv = model.pixel_embed.proj
    if change == "hook":
        conv.register_forward_hook(lambda module, args, out: 2 * out)
    elif change == "subclass":
        model.pixel_embed.proj = Doubled(conv)
    else:
        parametrize.register_parametrization(conv, "weight", Double())
        parametrize.register_parametrization(conv, "bias", Double())
    twice = model(x)
    assert (twice - want).abs().max() > 1e-3
    model.backend = "reference"
    assert (model(x) - twice).abs().max() < 1e-11


class Double(nn.Module):
    def forward(self, value):
        return 2 * value


class Doubled(nn.Module):
    """An adapter in place of a layer, which shows the weights of what it wraps."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.weight, self.bias, self.out_channels = layer, layer.weight, layer.bias, layer.out_channels

    def forward(self, x):
        return 2 * self.layer(x)


@scripts
def test_a_script_keeps_stochastic_depth_and_dropout():
    model = small(drop_path_rate=0.5, proj_drop_rate=0.5).train()
    scripted = torch.jit.script(model)
    x = picture()
    assert not torch.equal(scripted(x), scripted(x))
    assert torch.equal(scripted.eval()(x), scripted(x))
    model.eval()
    assert (scripted(x) - model(x)).abs().max() < 1e-11


@scripts
def test_graphs_of_models_of_any_size_are_refused():
    with pytest.raises(UserError, match="take one picture size"):
        torch.jit.script(small(dynamic_img_size=True))


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_an_optimized_model_keeps_dynamic_sizes():
    model = small(dynamic_img_size=True)
    fast = optimize_for_inference(model)
    for side in ((32, 32), (48, 64), (16, 32), (48, 64)):
        x = picture(2, side)
        assert (fast(x) - model(x)).abs().max() < 1e-11
        assert (fast.forward_features(x) - model.forward_features(x)).abs().max() < 1e-11
    with pytest.raises(UserError, match="multiple of"):
        fast(picture(1, (40, 32)))
    with pytest.raises(UserError, match="the model was built for"):
        optimize_for_inference(small())(picture(1, (48, 32)))


def test_an_optimized_model_changes_its_size_for_good():
    model, fast = small(), optimize_for_inference(small())
    for size in ((48, 32), 64):
        model.set_input_size(size)
        fast.set_input_size(size)
        x = picture(2, model.img_size)
        assert (fast(x) - model(x)).abs().max() < 1e-11
    with pytest.raises(UserError, match="multiple of"):
        fast.set_input_size(40)


def test_export_leaves_height_and_width_open():
    model = small(dynamic_img_size=True)
    rows, cols = torch.export.Dim("rows", min=2, max=8), torch.export.Dim("cols", min=2, max=8)
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=16), 2: 16 * rows, 3: 16 * cols}}
    program = torch.export.export(model, (picture(2, (48, 64)),), dynamic_shapes=shapes)
    for side in ((32, 32), (48, 64), (96, 64)):
        x = picture(3, side)
        # Its table is resampled at every size, the model's own too, and that in float32.
        assert (program.module()(x) - model(x)).abs().max() < 1e-6


@torch.no_grad()
def test_compile_sees_hooks(interpreted):
    model, x = small(), picture()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert (compiled(x) - model(x)).abs().max() < 1e-11
    logging.getLogger("tnt_vit").setLevel(logging.WARNING)
    hooked("post", "blocks.0.attn_in.v")(model)
    torch.compiler.reset()
    assert (torch.compile(model, backend="eager")(x) - modules_one_by_one(model, x)).abs().max() < 1e-11
