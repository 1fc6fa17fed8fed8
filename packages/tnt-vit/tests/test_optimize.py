"""The rewritten model computes what the trained one does: every variant, order, tile and batch."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

import tnt_vit
from effkit.testing import assert_close_to_reference
from tnt_vit import TNT, optimize_for_inference
from tnt_vit.inference import norms
from tnt_vit.inference.folding import fold_attention, fold_norm, fold_stem, of_unit_words
from tnt_vit.inference.packed import PackedLinear, packed_kernels
from tnt_vit.layers import Attention
from tnt_vit.layers.stem import WordEmbed
from tnt_vit.reference import reference_forward

BASE = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "inner_dim": 12,
    "depth": 3,
    "num_heads": 3,
    "inner_num_heads": 2,
    "num_classes": 5,
}
VARIANTS = [
    {},
    {"legacy": True},
    {"se_ratio": 0.25},
    {"tnt_blocks": (2,)},
    {"tnt_blocks": ()},
    {"qkv_bias": True},
    {"global_pool": "avg"},
    {"img_size": (32, 48), "patch_size": (8, 16)},
    {"inner_stride": 2, "inner_dim": 6, "inner_num_heads": 3},
    {"inner_stride": 8, "inner_dim": 24},
    {"in_chans": 1},
]


def random_model(dtype=torch.float64, **kwargs) -> TNT:
    model = TNT(**{**BASE, **kwargs}).to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.1 * noise)
    return model


def picture(model: TNT, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, model.in_chans, *model.img_size, generator=generator, dtype=torch.float64).to(
        model.cls_token.dtype
    )


@pytest.mark.parametrize("order", ["layers", "words_first"])
@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
def test_every_variant_equals_the_model_in_float64(kwargs, order):
    model = random_model(**kwargs)
    x = picture(model)
    fast = optimize_for_inference(model, order=order, tile=7, images=2)  # tiles and chunks that do not divide
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        assert (fast(x) - model(x)).abs().max() < 1e-10
        assert (fast.forward_features(x) - model.forward_features(x)).abs().max() < 1e-10
        assert torch.equal(fast(x), fast(x))  # works in place inside, and leaves weights and input alone
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_equals_the_written_out_reference():
    model = random_model()
    x = picture(model)
    want = reference_forward(model.state_dict(), x, patch_size=(8, 8), num_heads=3, inner_num_heads=2).logits
    assert (optimize_for_inference(model)(x) - want).abs().max() < 1e-10


@pytest.mark.parametrize("tile", [1, 3, 16, 1000])
@pytest.mark.parametrize("order", ["layers", "words_first"])
def test_tiles_and_chunks_change_nothing(tile, order):
    model = random_model()
    x = picture(model, 5)
    want = model(x)
    for images in (1, 2, 5, 8):
        assert (optimize_for_inference(model, order=order, tile=tile, images=images)(x) - want).abs().max() < 1e-10
    assert optimize_for_inference(model, order=order)(x[:0]).shape == (0, 5)


def test_float32_error_is_that_of_the_module():
    model = random_model(torch.float32)
    exact = copy.deepcopy(model).double()
    x = picture(model)
    want = exact(x.double())
    module_error = (model(x) - want).abs().max()
    fast = optimize_for_inference(model)
    assert (fast(x) - want).abs().max() <= 2 * module_error + 1e-6


@pytest.mark.parametrize("kwargs", [{}, {"legacy": True}, {"se_ratio": 0.25, "global_pool": "avg"}], ids=str)
@pytest.mark.parametrize("fallback", [False, True])
def test_bfloat16_is_as_close_to_float64_as_the_module(kwargs, fallback, monkeypatch):
    if fallback:  # a torch without the operator of the words' norm
        monkeypatch.setattr(norms, "_divides", lambda: False)
    model = random_model(torch.bfloat16, **kwargs)
    x = picture(model)
    want = copy.deepcopy(model).double()(x.double())
    for order in ("layers", "words_first"):
        fast = optimize_for_inference(model, order=order, tile=7, images=2)
        assert_close_to_reference(fast(x), model(x), want, what=order)


def test_published_size_in_bfloat16():
    model = tnt_vit.create_model("tnt_s", depth=2).bfloat16().eval()
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        want = copy.deepcopy(model).double()(x.double())
        assert_close_to_reference(optimize_for_inference(model)(x), model(x), want)


@pytest.mark.parametrize("spread", [1.0, 3e-3, 0.0])  # variance above, at and below the epsilon of the norm
def test_words_of_length_one_are_normalised_words(spread):
    generator = torch.Generator().manual_seed(0)
    x = 5 + spread * torch.randn(7, 24, generator=generator, dtype=torch.float64)
    weight = torch.randn(40, 24, generator=generator, dtype=torch.float64)
    unit = norms.UnitNormalize(24, weight, 1e-5)(x)
    assert (unit.norm(dim=1) - 1).abs().max() < 1e-12
    want = F.linear(F.layer_norm(x, (24,), eps=1e-5), weight)
    assert (F.linear(unit, of_unit_words(weight)) - want).abs().max() < 1e-10


def test_published_size_in_float64():
    model = tnt_vit.create_model("tnt_s", depth=2).double().eval()
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (optimize_for_inference(model)(x) - model(x)).abs().max() < 1e-10


def test_copies_pickles_and_casts_pack_again():
    model = random_model(torch.float32)
    fast, x = optimize_for_inference(model), picture(model)
    want = fast(x)
    assert torch.equal(copy.deepcopy(fast)(x), want)
    assert torch.equal(pickle.loads(pickle.dumps(fast))(x), want)
    torch.testing.assert_close(fast.double()(x.double()).float(), want, rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in fast.parameters())


def test_compiles_into_one_graph():
    model = random_model()
    x = picture(model)
    compiled = torch.compile(optimize_for_inference(model), fullgraph=True, backend="aot_eager")
    assert (compiled(x) - model(x)).abs().max() < 1e-10


def test_folded_norm_and_stem_are_exact():
    norm, linear = torch.nn.LayerNorm(12).double(), torch.nn.Linear(24, 5).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(7, 2, 12, dtype=torch.float64)
    weight, bias = fold_norm(norm, linear.weight, linear.bias, repeats=2)
    got = F.linear(F.layer_norm(x, (12,)).flatten(1), weight, bias)
    assert (got - linear(norm(x).flatten(1))).abs().max() < 1e-12

    stem = WordEmbed((8, 8), 4, 3, 6).double()
    pos = torch.randn(1, 6, 2, 2, dtype=torch.float64)
    weight, bias = fold_stem(stem, pos)
    picture = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    got = F.conv2d(picture, weight, bias, stride=8).permute(0, 2, 3, 1).reshape(-1, 4, 6)
    assert (got - stem(picture, pos, naive=True)).abs().max() < 1e-12


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_bilinear_attention_is_exact(heads):
    attention, norm = Attention(12, heads, qkv_bias=True).double(), torch.nn.LayerNorm(12).double()
    for parameter in [*attention.parameters(), *norm.parameters()]:
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 16, 12, dtype=torch.float64)
    folded, z = fold_attention(attention, norm), F.layer_norm(x, (12,))
    rows = F.linear(z, folded.score_weight, folded.score_bias).view(5, 16 * heads, 12)
    weights = (rows @ z.transpose(1, 2)).softmax(-1)
    got = F.linear((weights @ z).view(5, 16, heads * 12), folded.out_weight, folded.out_bias)
    want = attention(norm(x), explicit=True)
    assert (got - want).abs().max() < 1e-9 * want.abs().max()
    folded, z = folded.of_unit_words(), norms.UnitNormalize(12, x, norm.eps)(x.view(-1, 12)).view(5, 16, 12)
    rows = F.linear(z, folded.score_weight, folded.score_bias).view(5, 16 * heads, 12)
    weights = (rows @ z.transpose(1, 2)).softmax(-1)
    got = F.linear((weights @ z).view(5, 16, heads * 12), folded.out_weight, folded.out_bias)
    assert (got - want).abs().max() < 1e-9 * want.abs().max()


@pytest.mark.parametrize("width", [24, 200])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_linear_at_changing_row_counts(width, gelu, bias):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, width, generator=generator)
    layer = PackedLinear(weight, torch.randn(40, generator=generator) if bias else None, gelu=gelu)
    for rows in (5, 64, 5, 1, 0):
        x = torch.randn(rows, width, generator=generator)
        want = F.linear(x.double(), weight.double(), None if layer.bias is None else layer.bias.double())
        want = F.gelu(want) if gelu else want
        torch.testing.assert_close(layer(x).double(), want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("gelu", [False, True])
def test_packed_linear_in_bfloat16(gelu):
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((40, 24), (40,)))
    layer = PackedLinear(weight.double(), bias, gelu=gelu, dtype=torch.bfloat16)
    for rows in (5, 1, 0):
        x = torch.randn(rows, 24, generator=generator).bfloat16()
        plain, want = F.linear(x, weight, bias), F.linear(x.double(), weight.double(), bias.double())
        assert_close_to_reference(layer(x), *(F.gelu(t) if gelu else t for t in (plain, want)))


def test_mkl_is_for_wide_layers_on_intels_processors(monkeypatch):
    for intel in (True, False):
        monkeypatch.setattr("tnt_vit.inference.packed._made_by_intel", lambda intel=intel: intel)
        for width in (24, 384):
            chosen = type(PackedLinear(torch.ones(8, width), None)._pack(4)).__name__
            preferred = "_Mkl" if intel and width == 384 else "_OneDnn"
            assert chosen == preferred or len(packed_kernels()) < 2


def test_packed_linear_follows_new_weights():
    layer = PackedLinear(torch.ones(8, 8), None)
    x = torch.ones(4, 8)
    assert torch.equal(layer(x), torch.full((4, 8), 8.0))
    layer.load_state_dict({"weight": torch.full((8, 8), 2.0)})
    assert torch.equal(layer(x), torch.full((4, 8), 16.0))


def test_the_fast_kernels_are_really_there():
    """On the machines that the figures come from; a torch without them falls back, which is slower but right."""
    if not torch.backends.mkl.is_available():
        pytest.skip("this torch was built without MKL")
    assert "mkl" in packed_kernels()
    if torch.backends.mkldnn.is_available():
        assert "onednn" in packed_kernels()
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            assert packed_kernels(torch.bfloat16) == {"onednn"}
            assert norms._divides()


@pytest.mark.parametrize(
    ("kwargs", "words"), [({"order": "words"}, "words_first"), ({"tile": 0}, "tile"), ({"images": 1.5}, "images")]
)
def test_bad_arguments_name_field_and_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        optimize_for_inference(random_model(), **kwargs)


def test_refuses_what_is_not_a_tnt_and_other_sizes():
    with pytest.raises(ValueError, match="Linear"):
        optimize_for_inference(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="input is 48, the model was built for img_size=32"):
        optimize_for_inference(random_model())(torch.zeros(1, 3, 48, 48, dtype=torch.float64))
