"""Models in wrappers, with integer weights, with other parts, and with their attention changed under ESA."""

import warnings

import pytest
import torch
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig

from effkit.errors import UserError
from esa_attention import ESAConfig, apply_esa
from esa_attention.compression.geometry import geometry
from esa_attention.integration.cache_argument import cache_argument

SMALL = ESAConfig(num_initial=4, num_selected=16, num_local=64, chunk_size=16, proximity=1, dense_until=0)
FEW = ESAConfig(num_initial=4, num_selected=8, num_local=16, chunk_size=8, proximity=1, dense_until=0)
GREEDY = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


# ---- another attention while ESA is applied


@pytest.mark.parametrize("which", ["model", "decoder", "dict"])
def test_setting_another_attention_takes_esa_off_properly(tiny, tokens, which):
    model, ids = tiny(), tokens(1, 60)
    stock = model(ids).logits
    handle = apply_esa(model, FEW)
    cache = handle.new_cache()
    model(ids, **{cache_argument(model): cache})
    given = {"": "eager"} if which == "dict" else "eager"
    (model.model if which == "decoder" else model).set_attn_implementation(given)
    assert model.config._attn_implementation == "eager"
    torch.testing.assert_close(model(ids).logits, stock, rtol=0, atol=1e-5)  # eager attention has float32 weights
    assert model.generate(ids, **GREEDY).shape == (1, 64)
    with pytest.raises(UserError, match="own attention cannot read it"):
        model(ids[:, :1], **{cache_argument(model): cache})
    handle.remove()  # harmless now
    assert model.config._attn_implementation == "eager"
    assert "set_attn_implementation" not in model.__dict__


def test_an_attention_set_behind_its_back_is_refused(tiny, tokens):
    model, ids = tiny(), tokens(1, 60)
    stock = model(ids).logits
    handle = apply_esa(model, FEW)
    model.config._attn_implementation = "eager"
    with pytest.raises(UserError, match=r"set to 'eager' while ESA is applied.*handle\.remove"):
        model(ids)
    handle.remove()
    torch.testing.assert_close(model(ids).logits, stock)


# ---- positions


@pytest.mark.parametrize(
    "positions",
    [
        torch.arange(20).repeat(2)[None].expand(2, -1),
        torch.arange(7, 47)[None],
        torch.arange(40).expand(3, 2, 40),
        torch.arange(40)[None].double() * 2,
    ],
    ids=["packed", "shifted", "three axes", "stretched"],
)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("use_cache", [True, False])
def test_positions_that_are_not_the_caches_own(tiny, tokens, positions, masked, use_cache):
    model, ids = tiny(), tokens(2, 40)
    mask = torch.ones_like(ids) if masked else None
    with apply_esa(model, SMALL), pytest.raises(UserError, match=r"position_ids must count the tokens.*packed"):
        model(ids, position_ids=positions, attention_mask=mask, use_cache=use_cache)


def test_positions_that_go_on_elsewhere(tiny, tokens):
    model, ids = tiny(), tokens(2, 40)
    name = cache_argument(model)
    with apply_esa(model, SMALL) as handle:
        cache = handle.new_cache()
        model(ids[:, :30], **{name: cache})
        with pytest.raises(UserError, match=r"30, 31, \.\.\. in this call"):
            model(ids[:, 30:], position_ids=torch.arange(33, 43)[None], **{name: cache})
        with pytest.raises(UserError, match="packed into one"):
            model(ids, cu_seq_lens_q=torch.tensor([0, 20, 40]))


def test_positions_that_count_are_taken(tiny, tokens):
    model, ids = tiny(), tokens(2, 40)
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    counted = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)  # as generate has them
    stock = model(ids, attention_mask=mask, position_ids=counted).logits
    with apply_esa(model, SMALL):
        for positions in (counted, torch.arange(40)[None], None):
            out = model(ids, attention_mask=mask, position_ids=positions).logits
            torch.testing.assert_close(out[0], stock[0], rtol=0, atol=1e-9)
            torch.testing.assert_close(out[1, 9:], stock[1, 9:], rtol=0, atol=1e-5)  # tables are float32


def test_a_model_with_positions_of_several_axes_is_refused():
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    text = {**sizes, "num_hidden_layers": 1, "num_key_value_heads": 2, "vocab_size": 60, "rope_parameters": rope}
    vision = {**sizes, "depth": 1, "num_heads": 4, "out_hidden_size": 32}
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
    for given in (model, model.model.language_model):
        with pytest.raises(UserError, match=r"several axes|beside its language model") as error:
            apply_esa(given, SMALL)
        assert "\n" not in str(error.value)


# ---- images


def _llava():
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    from transformers import LlavaConfig

    text = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=60, max_position_embeddings=128, pad_token_id=0)
    vision = CLIPVisionConfig(**sizes, image_size=16, patch_size=8, projection_dim=32)
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=59, image_seq_length=4)
    model = AutoModelForImageTextToText.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    return model


def test_images_are_seen_as_the_stock_model_sees_them():
    model = _llava()
    ids = torch.randint(3, 50, (2, 20), generator=torch.Generator().manual_seed(0))
    ids[:, 2:6] = 59  # four patches of an image
    picture = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    call = {"input_ids": ids, "pixel_values": picture, "attention_mask": torch.ones_like(ids)}
    stock, text = model(**call).logits, model.generate(**call, **GREEDY)
    other = model(**{**call, "pixel_values": -picture}).logits
    assert float((other - stock).abs().max()) > 1e-2
    before = [m.config._attn_implementation for m in model.modules() if hasattr(m, "config")]
    with apply_esa(model, SMALL) as handle:
        vision = next(m for n, m in model.named_modules() if n.endswith("vision_tower"))
        assert vision.config._attn_implementation != "esa"
        assert handle.geometry.base.config._attn_implementation == "esa"
        torch.testing.assert_close(model(**call).logits, stock, rtol=0, atol=1e-4)
        assert torch.equal(model.generate(**call, **GREEDY), text)
    assert [m.config._attn_implementation for m in model.modules() if hasattr(m, "config")] == before


def test_a_model_with_parts_that_were_not_tried_is_refused_by_name():
    model = _llava()
    model.config.model_type = "another"
    with pytest.raises(UserError, match=r"another.*CLIPVision\w+ beside its language model"):
        apply_esa(model, SMALL)
    language = geometry(model.model.language_model).base
    with apply_esa(language, SMALL):
        pass


# ---- wrappers


def test_adapters_are_looked_through(tiny, tokens):
    peft = pytest.importorskip("peft")
    ids = tokens(2, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(tiny(), peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2)).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    stock, text = model(ids).logits, model.generate(input_ids=ids, **GREEDY)
    with apply_esa(model, SMALL):
        torch.testing.assert_close(model(ids).logits, stock, rtol=0, atol=1e-9)
        assert torch.equal(model.generate(input_ids=ids, **GREEDY), text)
        model.base_model.model.set_attn_implementation("sdpa")
        assert "esa" not in {m.config._attn_implementation for m in model.modules() if hasattr(m, "layer_idx")}
        torch.testing.assert_close(model(ids).logits, stock, rtol=0, atol=1e-9)


def test_a_decoder_alone_says_what_to_apply_esa_to(tiny, tokens):
    model, ids = tiny(), tokens(1, 50)
    stock = model(ids).logits
    with apply_esa(model.model, SMALL):
        torch.testing.assert_close(model(ids).logits, stock, rtol=0, atol=1e-9)
        with pytest.raises(UserError, match="decoder alone, so generate does not know of it; apply ESA"):
            model.generate(ids, **GREEDY)


@pytest.mark.slow
def test_a_compiled_model_is_looked_through_and_gives_the_same(tiny, tokens):
    model, ids = tiny(), tokens(1, 60)
    name = cache_argument(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, backend="eager")
        with apply_esa(compiled, FEW) as handle:
            found = []
            for which in (model, compiled):
                cache = handle.new_cache()
                parts = [which(part, **{name: cache}).logits for part in ids.split([40, 20], dim=1)]
                found.append(torch.cat(parts, dim=1))
            torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-9)
            assert torch.equal(compiled.generate(ids, **GREEDY), model.generate(ids, **GREEDY))
            right = torch.ones_like(ids)
            right[0, -2:] = 0
            with pytest.raises(UserError, match="left"):
                compiled(ids, attention_mask=right)


def test_a_batch_of_questions_over_one_reading_names_the_way(tiny, tokens):
    model, ids, questions = tiny(), tokens(1, 50), tokens(4, 6)
    name = cache_argument(model)
    with apply_esa(model, FEW) as handle:
        cache = handle.new_cache()
        model(ids, **{name: cache})
        with pytest.raises(UserError, match=r"holds 1 sequence, the call has 4; cache\.batch_repeat_interleave\(4\)"):
            model(questions, **{name: cache})
        cache.batch_repeat_interleave(4)
        assert model(questions, **{name: cache}).logits.shape == (4, 6, 130)
        with pytest.raises(UserError, match=r"holds 4 sequences, the call has 3$"):
            model(questions[:3], **{name: cache})


# ---- integer weights


class _Int8(torch.nn.Module):
    """A linear layer with 8-bit weights, as quantising libraries make them."""

    def __init__(self, linear):
        super().__init__()
        self.scale = torch.nn.Parameter(linear.weight.abs().amax(dim=1, keepdim=True) / 127, requires_grad=False)
        whole = (linear.weight / self.scale).round().to(torch.int8)
        self.weight = torch.nn.Parameter(whole, requires_grad=False)

    def forward(self, x):
        return x @ (self.weight * self.scale).to(x).T


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_with_integer_weights_work(tiny, tokens, dtype):
    model, ids = tiny(dtype=dtype), tokens(2, 50)
    for layer in model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, name, _Int8(getattr(layer.self_attn, name)))
    stock = model(ids).logits
    state = torch.random.get_rng_state()
    with apply_esa(model, SMALL) as handle:
        assert torch.equal(torch.random.get_rng_state(), state)
        error = float((model(ids).logits - stock).abs().max() / stock.abs().max())
        assert error < (1e-4 if dtype == torch.float32 else 5e-2)
        kept = handle.fingerprint
    model.model.layers[0].self_attn.k_proj.weight.data.neg_()
    with apply_esa(model, SMALL) as handle:
        assert handle.fingerprint != kept


@pytest.mark.filterwarnings("ignore")
def test_dynamically_quantised_models_work(tiny, tokens):
    model, ids = tiny(dtype=torch.float32), tokens(2, 50)
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    stock = quantised(ids).logits
    with apply_esa(quantised, SMALL):
        found = quantised(ids).logits
    # Activations are rounded to 8 bits, so that the last digit of one may move.
    assert float((found - stock).abs().mean() / stock.abs().mean()) < 0.02
