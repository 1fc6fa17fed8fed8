"""What holds for any TNT: shapes, invariants of the architecture, timm's interface, bad input."""

import copy

import pytest
import timm
import torch

import tnt_vit
from tnt_vit import TNT
from tnt_vit.layers.stem import fold_word_filters, patchify

SMALL = {
    "img_size": 32,
    "patch_size": 16,
    "embed_dim": 48,
    "inner_dim": 12,
    "depth": 3,
    "num_heads": 3,
    "inner_num_heads": 2,
    "num_classes": 5,
}


def small(**kwargs) -> TNT:
    torch.manual_seed(0)
    return TNT(**{**SMALL, **kwargs})


def picture(batch: int = 2, side: int = 32, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_shapes_of_every_entry_point():
    model = small().eval()
    x = picture()
    assert model(x).shape == (2, 5)
    assert model.forward_features(x).shape == (2, 5, 48)
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, 48)
    tokens, maps = model.forward_intermediates(x, indices=2)
    assert tokens.shape == (2, 5, 48)
    assert [m.shape for m in maps] == [(2, 48, 2, 2)] * 2
    (pair,) = model.forward_intermediates(
        x, indices=[0], return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True, stop_early=True
    )
    assert [t.shape for t in pair] == [(2, 4, 48), (2, 1, 48)]
    assert [w.shape for w in model.word_features(x)] == [(2, 4, 16, 12)] * 3
    assert [w.shape for w in model.word_features(x, as_map=True)] == [(2, 12, 8, 8)] * 3
    attention = model.attention_maps(x)
    assert [a.inner.shape for a in attention] == [(2, 4, 2, 16, 16)] * 3
    assert [a.outer.shape for a in attention] == [(2, 3, 5, 5)] * 3
    torch.testing.assert_close(attention[0].inner.sum(-1), torch.ones(2, 4, 2, 16))


def test_word_map_puts_words_where_they_came_from():
    model = small(depth=1).eval()
    x = picture(1)
    (tokens,), (as_map,) = model.word_features(x), model.word_features(x, as_map=True)
    # sentence 1 is the upper right one, its word 6 lies in row 1, column 2 of its 4x4 grid
    assert torch.equal(as_map[0, :, 1, 4 + 2], tokens[0, 1, 6])
    assert torch.equal(as_map[0, :, 4 + 3, 0], tokens[0, 2, 12])


def test_batch_of_zero_and_of_one():
    model = small().eval()
    assert model(picture()[:0]).shape == (0, 5)
    torch.testing.assert_close(model(picture()[:1]), model(picture())[:1])


def test_channels_last_and_strided_input_change_nothing():
    model, x = small().double().eval(), picture(dtype=torch.float64)
    want = model(x)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), want, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(torch.stack([x, x], -1)[..., 0]), want, rtol=0, atol=1e-12)


def test_words_of_a_sentence_ignore_every_other_sentence():
    model, x = small().double().eval(), picture(1, dtype=torch.float64)
    changed = x.clone()
    changed[..., :16, :16] += 1
    for before, after in zip(model.word_features(x), model.word_features(changed), strict=True):
        assert torch.equal(before[:, 1:], after[:, 1:])
        assert not torch.allclose(before[:, 0], after[:, 0])


def test_legacy_words_see_across_the_border():
    model, x = small(legacy=True).double().eval(), picture(1, dtype=torch.float64)
    changed = x.clone()
    changed[..., :16, :16] += 1
    before, after = model.word_features(x)[0], model.word_features(changed)[0]
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_identical_sentences_give_identical_words():
    model = small().eval()
    tile = picture(1, 16)
    words = model.word_features(tile.repeat(1, 1, 2, 2))[-1]
    torch.testing.assert_close(words, words[:, :1].expand_as(words), rtol=0, atol=1e-6)


def test_class_logits_ignore_the_order_of_sentences_without_positions():
    x = picture(1, dtype=torch.float64)
    shuffled = torch.cat(
        [torch.cat([x[..., 16:, 16:], x[..., :16, 16:]], -1), torch.cat([x[..., :16, :16], x[..., 16:, :16]], -1)], -2
    )
    for legacy, invariant in ((False, True), (True, False)):
        model = small(legacy=legacy).double().eval()
        torch.nn.init.zeros_(model.patch_pos)
        assert torch.allclose(model(x), model(shuffled), atol=1e-12, rtol=0) is invariant


def test_hybrid_with_all_blocks_is_tnt_and_with_none_keeps_the_words():
    model, x = small().eval(), picture()
    hybrid = small(tnt_blocks=[1, 2, 3]).eval()
    hybrid.load_state_dict(model.state_dict())
    assert torch.equal(hybrid(x), model(x))
    plain = small(tnt_blocks=[]).eval()
    assert not any("norm_in" in name for name in plain.state_dict())
    words = plain.word_features(x)
    assert torch.equal(words[0], words[-1])
    assert all(a.inner is None for a in plain.attention_maps(x))


def test_projection_never_reaches_the_class_token():
    model, x = small(depth=1).eval(), picture()
    words, sentences = model.embed(x)
    block = model.blocks[0]
    torch.nn.init.zeros_(block.attn_out.proj.weight)
    torch.nn.init.zeros_(block.mlp.fc2.weight)
    _, after = block(words, sentences)
    assert torch.equal(after[:, 0], sentences[:, 0])
    assert not torch.allclose(after[:, 1:], sentences[:, 1:])


def test_drop_path_drops_single_sentences_inside_and_images_outside():
    model = small(drop_path_rate=0.5).train()
    words, sentences = model.embed(picture(8))
    block = model.blocks[-1]
    torch.manual_seed(1)
    after = block.forward_words(words)
    untouched = (after == words).flatten(1).all(1)  # both residuals dropped: a quarter of the sentences
    assert 0 < untouched.sum() < len(untouched)
    per_image = untouched.view(8, -1).float().mean(1)
    assert ((per_image > 0) & (per_image < 1)).any()
    out = block.forward_sentences(sentences)
    still = (out == sentences).flatten(1).all(1)
    assert 0 < still.sum() < 8
    zero = small(drop_path_rate=0.0)
    x = picture()
    assert torch.equal(zero.train()(x), zero.eval()(x))


def test_folded_stem_filters_equal_the_convolution_inside_each_patch():
    weight = torch.randn(5, 3, 7, 7, dtype=torch.float64)
    for patch, stride in (((16, 16), 4), ((16, 16), 2), ((8, 16), 4), ((16, 16), 8), ((4, 4), 4)):
        x = torch.randn(2, 3, 2 * patch[0], 3 * patch[1], dtype=torch.float64)
        want = torch.nn.functional.conv2d(patchify(x, patch), weight, stride=stride, padding=3)
        got = torch.nn.functional.conv2d(x, fold_word_filters(weight, patch, stride), stride=patch)
        got = got.permute(0, 2, 3, 1).reshape(want.shape[0], -1, 5).transpose(1, 2).reshape(want.shape)
        assert (got - want).abs().max() < 1e-12


def test_other_picture_sizes():
    model = small().eval()
    with torch.no_grad():
        fixed = copy.deepcopy(model)
        fixed.set_input_size((48, 64))
        model.dynamic_img_size = True
        x = torch.randn(1, 3, 48, 64)
        torch.testing.assert_close(model(x), fixed(x))
        assert fixed.grid_size == (3, 4)
        assert torch.equal(fixed.patch_pos[:, 0], model.patch_pos[:, 0])


def test_positions_that_are_not_learnt_stay_zero():
    for positions, sentence, word in (("none", 0, 0), ("sentence", 1, 0), ("word", 0, 1), ("both", 1, 1)):
        model = small(positions=positions)
        assert bool(model.patch_pos.any()) is bool(sentence) is model.patch_pos.requires_grad
        assert bool(model.pixel_pos.any()) is bool(word) is model.pixel_pos.requires_grad


def test_timm_interface():
    names = timm.list_models("*tnt*")
    for name in ("tnt_ti_patch16_224", "tnt_s1_patch16_224", "tnt_s_se_patch16_224", "effkit_tnt_s_patch16_224"):
        assert name in names
    model = timm.create_model("tnt_ti_patch16_224", num_classes=3, depth=2)
    assert isinstance(model, TNT)
    assert model.default_cfg["mean"] == (0.5, 0.5, 0.5)
    assert model.default_cfg["crop_pct"] == 0.9
    features = timm.create_model("tnt_ti_patch16_224", features_only=True, depth=4, out_indices=(1, 3))
    assert [f.shape for f in features(torch.zeros(1, 3, 224, 224))] == [(1, 192, 14, 14)] * 2
    assert features.feature_info.channels() == [192, 192]
    assert isinstance(timm.create_model("tnt_s_patch16_224", depth=1), timm.models.tnt.TNT)  # timm keeps its own name
    model.reset_classifier(9)
    assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 9)
    assert model.prune_intermediate_layers([0]) == [0]
    assert len(model.blocks) == 1


def test_gradient_checkpointing_changes_no_gradient():
    x = picture(dtype=torch.float64)
    grads = []
    for enable in (False, True):
        model = small().double().train()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_compile_fullgraph_and_gradients():
    x = picture(dtype=torch.float64)
    model = small(depth=2).double()
    want = model(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got = compiled(x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    got.sum().backward()
    assert model.blocks[0].attn_in.v.weight.grad is not None


def test_deepcopy_and_weight_decay_groups():
    model = small()
    clone = copy.deepcopy(model)
    assert clone.state_dict().keys() == model.state_dict().keys()
    assert "blocks.0.attn_in.qk.weight" in model.state_dict()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert model.no_weight_decay() == {"patch_pos", "pixel_pos", "cls_token"}


BAD = [
    ({"img_size": 33}, ["img_size=33", "patch_size=16", "32 or 48"]),
    ({"inner_stride": 5}, ["inner_stride=5", "patch_size=16"]),
    ({"num_heads": 5}, ["num_heads=5", "embed_dim=48"]),
    ({"inner_num_heads": 5}, ["inner_num_heads=5", "inner_dim=12"]),
    ({"tnt_blocks": [0]}, ["tnt_blocks", "0", "1..3"]),
    ({"tnt_blocks": [4]}, ["tnt_blocks", "4", "1..3"]),
    ({"tnt_blocks": [1, 1]}, ["tnt_blocks", "repeated"]),
    ({"tnt_blocks": "some"}, ["tnt_blocks", "some"]),
    ({"depth": 0}, ["depth", "0"]),
    ({"in_chans": 2.5}, ["in_chans", "2.5"]),
    ({"num_classes": -1}, ["num_classes", "-1"]),
    ({"drop_path_rate": 1.0}, ["drop_path_rate", "1.0"]),
    ({"pos_drop_rate": -1.0}, ["pos_drop_rate", "-1.0"]),
    ({"proj_drop_rate": float("nan")}, ["proj_drop_rate", "nan"]),
    ({"attn_drop_rate": float("-inf")}, ["attn_drop_rate", "-inf"]),
    ({"drop_rate": 1e30}, ["drop_rate", "1e+30"]),
    ({"mlp_ratio": 0}, ["mlp_ratio", "0"]),
    ({"se_ratio": -0.5}, ["se_ratio", "-0.5"]),
    ({"positions": "all"}, ["positions", "all", "both"]),
    ({"global_pool": "max"}, ["global_pool", "max", "token"]),
    ({"backend": "cuda"}, ["backend", "cuda", "fused"]),
]


@pytest.mark.parametrize(("kwargs", "words"), BAD, ids=[str(k) for k, _ in BAD])
def test_bad_architecture_names_field_value_and_fix(kwargs, words):
    with pytest.raises(ValueError) as error:
        small(**kwargs)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 4, 32, 32), ["4 channels", "in_chans=3"]),
        (torch.zeros(1, 3, 48, 32), ["48x32", "img_size=32"]),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), ["torch.uint8", "floating"]),
        (torch.zeros(3, 32, 32), ["4 axes", "(3, 32, 32)"]),
    ],
    ids=["channels", "size", "dtype", "rank"],
)
def test_bad_input_names_value_and_fix(x, words):
    with pytest.raises(ValueError) as error:
        small()(x)
    for word in words:
        assert word in str(error.value)


def test_fused_backend_refuses_where_it_cannot_run(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="CUDA"):
        small(backend="fused").eval()(picture())


def test_unknown_name_and_unpublished_weights():
    with pytest.raises(ValueError, match="tnt_s_patch16_224"):
        tnt_vit.create_model("tnt_s_patch16_225")
    with pytest.raises(ValueError, match="no published weights"):
        tnt_vit.create_model("tnt_ti", pretrained=True)
