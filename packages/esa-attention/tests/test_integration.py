"""ESA on transformers models: parity with stock attention, generation, and refusals."""

import copy
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from effkit.errors import UserError
from esa_attention import ESAConfig, QKCompressor, apply_esa
from esa_attention.compression.compressor import Compressors
from esa_attention.compression.geometry import geometry
from esa_attention.integration.cache_argument import cache_argument
from esa_attention.integration.observer import observe

SMALL = ESAConfig(num_initial=4, num_selected=16, num_local=64, chunk_size=16, proximity=1, dense_until=0)
FEW = ESAConfig(num_initial=4, num_selected=8, num_local=16, chunk_size=8, proximity=1, dense_until=0)
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROPES = {
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 2.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
}


def _config(family="llama", **changes):
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 60,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
        "sliding_window": None,
        **({"head_dim": 8} if family in ("qwen3", "mistral") else {}),
    }
    if family in ("llama",):
        sizes.pop("sliding_window")
    return CONFIG_MAPPING[family](**{**sizes, **changes})


def _model(family="llama", dtype=torch.float64, seed=0, **changes):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(_config(family, **changes)).eval().to(dtype)
    for parameter in model.parameters():  # transformers starts close to zero, where everything looks alike
        if parameter.ndim > 1:
            parameter.data.mul_(6)
    return model


def _ids(batch=2, length=40, seed=0):
    return torch.randint(2, 60, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("family", FAMILIES)
def test_within_the_local_part_it_is_the_stock_model(family):
    model, ids = _model(family), _ids(length=60)
    stock = model(ids).logits
    with apply_esa(model, SMALL) as handle:
        torch.testing.assert_close(model(ids).logits, stock, rtol=0, atol=1e-9)
        torch.testing.assert_close(model(ids, use_cache=False).logits, stock, rtol=0, atol=1e-9)
        cache = handle.new_cache()
        parts = [model(part, **{cache_argument(model): cache}).logits for part in ids.split([20, 1, 7, 32], dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), stock, rtol=0, atol=1e-6)
        assert cache.get_seq_length() == 60
    assert torch.equal(model(ids).logits, stock)


@pytest.mark.parametrize("rope", list(ROPES))
def test_scaled_rotary_embeddings(rope):
    model, ids = _model(rope_parameters=ROPES[rope]), _ids(length=60)
    stock = model(ids).logits
    with apply_esa(model, SMALL):
        torch.testing.assert_close(model(ids).logits, stock, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_are_within_twice_the_stock_models_error(family, dtype):
    from effkit.testing import assert_close_to_reference

    ids = _ids(length=60)
    exact = _model(family)(ids).logits
    model = _model(family).to(dtype)
    stock = model(ids).logits
    with apply_esa(model, SMALL):
        assert_close_to_reference(model(ids).logits, stock, exact)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 10}, {"prefill_chunk_size": 7}], ids=str
)
def test_generate_equals_stock_with_left_padding(family, options):
    model, ids = _model(family), _ids(3, 24)
    mask = torch.ones_like(ids)
    mask[0, :9], mask[2, :1] = 0, 0
    options = {"max_new_tokens": 16, "do_sample": False, **options}

    def generate():
        torch.manual_seed(3)
        return model.generate(ids, attention_mask=mask, **options)

    stock = generate()
    with apply_esa(model, SMALL):
        assert torch.equal(generate(), stock)
    assert torch.equal(generate(), stock)


def test_speculative_decoding_crops_the_cache_and_equals_stock():
    model, ids = _model(), _ids(1, 30)
    stock = model.generate(ids, max_new_tokens=20, do_sample=False)
    with apply_esa(model, SMALL):
        guessed = model.generate(ids, max_new_tokens=20, do_sample=False, prompt_lookup_num_tokens=3)
    assert torch.equal(guessed, stock)


def test_generation_past_the_context_goes_on_and_equals_the_forward_pass():
    model, ids = _model(), _ids(1, 100)
    with apply_esa(model, FEW) as handle:
        out = model.generate(ids, max_new_tokens=60, do_sample=False)
        assert out.shape == (1, 160)
        cache = handle.new_cache()
        name = cache_argument(model)
        logits = model(ids, **{name: cache}, logits_to_keep=1).logits
        for t in range(100, 160):
            assert int(logits[0, -1].argmax()) == int(out[0, t])
            logits = model(out[:, t : t + 1], **{name: cache}).logits


def test_padded_rows_past_the_context_equal_single_rows():
    model, ids = _model(), _ids(2, 90)
    mask = torch.ones_like(ids)
    mask[1, :37] = 0
    with apply_esa(model, FEW):
        together = model(ids, attention_mask=mask).logits
        torch.testing.assert_close(together[:1], model(ids[:1]).logits, rtol=0, atol=1e-9)
        torch.testing.assert_close(together[1:, 37:], model(ids[1:, 37:]).logits, rtol=0, atol=1e-9)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
        alone = model.generate(ids[1:, 37:], max_new_tokens=12, do_sample=False)
        assert torch.equal(out[1, 90:], alone[0, 53:])


def test_beam_search_past_the_context_equals_searching_with_whole_passes():
    """Beams reorder the cache in every step; without a cache there is nothing to reorder."""
    model, ids = _model(), _ids(1, 50)
    # One chunk a token: the passes without a cache then decode as the steps with one do.
    config = FEW.replace(chunk_size=1)
    with apply_esa(model, config):
        with_cache = model.generate(ids, max_new_tokens=8, num_beams=3, do_sample=False)
        without = model.generate(ids, max_new_tokens=8, num_beams=3, do_sample=False, use_cache=False)
    assert torch.equal(with_cache, without)


def test_crop_and_another_question_over_one_context():
    model, context = _model(), _ids(1, 80)
    name = cache_argument(model)
    with apply_esa(model, FEW) as handle:
        cache = handle.new_cache()
        model(context, **{name: cache}, logits_to_keep=1)
        answers = []
        for seed in (1, 2, 1):
            question = _ids(1, 6, seed)
            answers.append(model(question, **{name: cache}).logits)
            cache.crop(-6)
        assert torch.equal(answers[0], answers[2])
        assert not torch.equal(answers[0], answers[1])


def test_selection_is_changed_over_one_reading():
    model, ids = _model(vocab_size=130), torch.randperm(120, generator=torch.Generator().manual_seed(0))[None] + 2
    name = cache_argument(model)
    logits = []
    with apply_esa(model, FEW.replace(proximity=3)) as handle:
        cache = handle.new_cache()
        model(ids[:, :100], **{name: cache})
        for proximity in (3, 0, 3):
            cache.reconfigure(proximity=proximity)
            # Fewer queries than are selected: their best tokens alone would be the same choice for every proximity.
            logits.append(model(ids[:, 100:103], **{name: cache}).logits)
            cache.crop(torch.tensor(-3))  # as transformers 5.17 asks for it
        assert torch.equal(logits[0], logits[2])
        assert not torch.equal(logits[0], logits[1])
        with pytest.raises(UserError, match=r"num_local.*num_initial"):
            cache.reconfigure(num_local=8)


def test_modes_of_torch_may_change_between_calls():
    """Tensors made under inference_mode cannot be written outside it; the cache must not care."""
    model, ids = _model(), _ids(1, 120)
    name = cache_argument(model)
    with apply_esa(model, FEW) as handle:
        cache = handle.new_cache()
        with torch.inference_mode():
            first = model(ids[:, :60], **{name: cache}).logits
            cache.reorder_cache(torch.tensor([0]))
        second = model(ids[:, 60:61], **{name: cache}).logits
        with torch.inference_mode():
            third = model(ids[:, 61:], **{name: cache}).logits
        cache.batch_repeat_interleave(2)
        again = handle.new_cache()
        parts = [model(part, **{name: again}).logits for part in ids.split([60, 1, 59], dim=1)]
    torch.testing.assert_close(torch.cat((first, second, third), 1), torch.cat(parts, 1), rtol=0, atol=1e-12)


def test_several_models_at_once_keep_apart():
    first, second, untouched = _model(seed=0), _model("qwen3", seed=1), _model(seed=2)
    ids = _ids(length=60)
    stock = [m(ids).logits for m in (first, second, untouched)]
    one, two = apply_esa(first, SMALL), apply_esa(second, FEW)
    ours = second(ids).logits
    torch.testing.assert_close(first(ids).logits, stock[0], rtol=0, atol=1e-9)
    assert torch.equal(untouched(ids).logits, stock[2])
    assert not torch.allclose(ours, stock[1])
    one.remove()
    assert torch.equal(first(ids).logits, stock[0])
    assert torch.equal(second(ids).logits, ours)
    two.remove()
    two.remove()
    assert torch.equal(second(ids).logits, stock[1])
    assert torch.equal(second.generate(ids, max_new_tokens=3, do_sample=False)[:, :60], ids)


def test_removing_leaves_no_trace():
    model = _model()
    before = set(model.state_dict()), {n for n, _ in model.named_modules()}
    keys = [set(m.__dict__) for m in model.modules()]
    handle = apply_esa(model, SMALL)
    assert set(model.state_dict()) == before[0]
    handle.remove()
    assert ({*model.state_dict()}, {n for n, _ in model.named_modules()}) == before
    assert [set(m.__dict__) for m in model.modules()] == keys
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert model.config._attn_implementation == "sdpa"


def test_tied_and_copied_models():
    model, ids = _model(), _ids(length=60)
    stock = model(ids).logits
    with apply_esa(model, SMALL):
        twin = _model()
        twin.load_state_dict(copy.deepcopy(model.state_dict()))
        assert torch.equal(twin(ids).logits, stock)


def test_compression_reaches_the_scores():
    """With compressors of full rank the choice is that of exact scores; with poor ones it is another."""
    # No token twice: its unrotated keys would be the same, and rounding would decide between them.
    model, ids = _model(vocab_size=110), torch.randperm(100, generator=torch.Generator().manual_seed(0))[None] + 2
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))
    shape = geometry(model)
    full = QKCompressor(shape.num_kv_heads, shape.head_dim, basis, basis)
    poor = QKCompressor(shape.num_kv_heads, shape.head_dim, basis[:1], basis[1:2])
    logits = []
    for compressors in (None, [full] * 2, [poor] * 2):
        with apply_esa(model, FEW, compressors):
            logits.append(model(ids).logits)
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-9)
    assert not torch.allclose(logits[0], logits[2])


def test_watching_choices():
    model, ids = _model(), _ids(1, 60)
    seen = []
    with apply_esa(model, FEW) as handle:
        with handle.watch(
            lambda index, row, cut, choices: seen.append((index, row, cut.num_middle, choices[0][2].shape[0]))
        ):
            model(ids)
        assert {index for index, *_ in seen} == {0, 1}
        assert all(chosen == min(middle, 8) for _, _, middle, chosen in seen)
        count = len(seen)
        model(ids)
        assert len(seen) == count


@pytest.mark.parametrize("method", ["full", "sinks_local", "infllm_blocks", "quest_pages"])
def test_baselines_on_the_same_cache(method):
    model, ids = _model(), _ids(2, 100)
    mask = torch.ones_like(ids)
    mask[0, :11] = 0
    stock = model(ids, attention_mask=mask).logits
    config = FEW.replace(method=method, block_size=4, block_representatives=2, page_size=4)
    with apply_esa(model, config) as handle:
        out = model(ids, attention_mask=mask).logits
        if method == "full":
            torch.testing.assert_close(out[1], stock[1], rtol=0, atol=1e-8)
            torch.testing.assert_close(out[0, 11:], stock[0, 11:], rtol=0, atol=1e-5)
        else:
            assert torch.isfinite(out).all()
        alone = model(ids[:1, 11:]).logits
        torch.testing.assert_close(out[:1, 11:], alone, rtol=0, atol=1e-8 if method != "full" else 1e-5)
        cache = handle.new_cache()
        name = cache_argument(model)
        # In the same chunks the cache gives the same as one pass.
        parts = [model(part, **{name: cache}).logits for part in ids[1:].split([64, 36], dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1)[0], out[1], rtol=0, atol=1e-6)
        cache.crop(-36)
        again = model(ids[1:, 64:], **{name: cache}).logits
        torch.testing.assert_close(again, parts[1], rtol=0, atol=1e-6)


def test_no_gradient_is_wrong_without_a_sound():
    model, ids = _model(), _ids()
    with torch.enable_grad(), apply_esa(model, SMALL):
        out = model(ids, labels=ids)
        with pytest.raises(UserError, match="no backward pass"):
            out.loss.backward()
    with torch.enable_grad(), apply_esa(model, SMALL) as handle:
        cache = handle.new_cache()
        model(ids, **{cache_argument(model): cache})
        assert not cache.layers[0].store.data.requires_grad  # no graph is kept from step to step


def test_observing_shows_unrotated_queries_and_changes_nothing():
    model, ids = _model("qwen3"), _ids(length=50)
    stock = model(ids).logits
    seen = []
    with observe(model, lambda index, q, k: seen.append((index, q, k))):
        torch.testing.assert_close(model(ids).logits, stock, rtol=0, atol=1e-9)
    assert torch.equal(model(ids).logits, stock)
    assert [(i, tuple(q.shape), tuple(k.shape)) for i, q, k in seen] == [
        (i, (2, 8, 50, 8), (2, 2, 50, 8)) for i in (0, 1)
    ]
    hidden = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))
    attention = model.model.layers[0].self_attn
    expected = attention.k_norm(attention.k_proj(hidden).view(2, 50, 2, 8)).transpose(1, 2)
    torch.testing.assert_close(seen[0][2], expected, rtol=0, atol=1e-12)


# ---- refusals, each in one line


def _gemma3():
    return AutoModelForCausalLM.from_config(
        CONFIG_MAPPING["gemma3_text"](
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=60,
        )
    )


def _gpt2():
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING["gpt2"](n_embd=32, n_layer=1, n_head=2, vocab_size=60))


def _glm():
    return AutoModelForCausalLM.from_config(
        CONFIG_MAPPING["glm"](
            hidden_size=64,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=60,
            pad_token_id=0,
        )
    ).eval()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_gpt2, "rotary"),
        (_gemma3, "gemma3"),
        (lambda: _model("mistral", sliding_window=32), "sliding window of 32"),
        (lambda: _model("qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=1), "sliding"),
        (_glm, "of a kind ESA does not know"),
    ],
    ids=["no rope", "gemma3", "mistral with a window", "qwen2 with windows", "interleaved rope"],
)
def test_models_that_are_not_supported(make, words):
    model = make()
    before = model.config._attn_implementation
    with pytest.raises(UserError, match=words) as error:
        apply_esa(model, ESAConfig.for_context(128, dense_until=0))
    assert "\n" not in str(error.value)
    assert model.config._attn_implementation == before
    with pytest.raises(UserError), observe(model, lambda *_: None):
        pass  # nor is anything calibrated on it
    model(_ids())  # still works


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SMALL.replace(num_local=120), "num_local . chunk_size = 136"),
        (SMALL.replace(far_position=129), "far_position.*128.*129"),
        (ESAConfig(), "for_context"),
    ],
)
def test_sizes_beyond_the_trained_context(config, words):
    with pytest.raises(UserError, match=words):
        apply_esa(_model(), config)


def test_attending_to_more_than_the_trained_context_warns():
    with pytest.warns(UserWarning, match="148 tokens"), apply_esa(_model(), SMALL.replace(num_selected=64)):
        pass


def test_default_configuration_fits_the_model():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with apply_esa(_model()) as handle:
            assert handle.config.attended <= 128


def test_compressors_that_are_not_the_models():
    model = _model()
    ok = QKCompressor.exact(2, 8)
    with pytest.raises(UserError, match="2 layers, got 1"):
        apply_esa(model, SMALL, [ok])
    with pytest.raises(UserError, match="layer 1 is made for keys of 24"):
        apply_esa(model, SMALL, [ok, QKCompressor.exact(3, 8)])
    weight = torch.eye(16)[:4]
    made = Compressors([QKCompressor(2, 8, weight, weight)] * 2, method="closed_form", far_position=99)
    with pytest.raises(UserError, match="far_position is 64, but the compressors were calibrated for 99"):
        apply_esa(model, SMALL, made)
    assert apply_esa(model, SMALL, Compressors([ok, ok], method="exact", far_position=99)).remove() is None


def test_caches_that_are_not_ours():
    model, ids = _model(), _ids()
    name = cache_argument(model)
    with apply_esa(model, SMALL) as handle:
        for cache in (DynamicCache(), DynamicCache(config=model.config)):
            with pytest.raises(UserError, match=r"must be an ESACache, got DynamicCache.*handle\.new_cache"):
                model(ids, **{name: cache})
            with pytest.raises(UserError, match="must be an ESACache, got DynamicCache"):
                model.generate(ids, max_new_tokens=2, **{name: cache})
        for kind in ("static", "quantized", "offloaded"):
            with pytest.raises(UserError, match=f"cache_implementation='{kind}'"):
                model.generate(ids, max_new_tokens=2, cache_implementation=kind)
        other = _model(seed=1)
        with apply_esa(other, FEW) as second, pytest.raises(UserError, match="made by another handle"):
            model(ids, **{name: second.new_cache()})
        mine = handle.new_cache()
        assert model.generate(ids, max_new_tokens=2, do_sample=False, **{name: mine}).shape == (2, 42)
        assert mine.get_seq_length() == 41


def test_calls_that_cannot_be_answered():
    model, ids = _model(), _ids()
    with apply_esa(model, SMALL):
        with pytest.raises(UserError, match="output_attentions"):
            model(ids, output_attentions=True)
        right = torch.ones_like(ids)
        right[0, -3:] = 0
        with pytest.raises(UserError, match="left"):
            model(ids, attention_mask=right)
        with pytest.raises(UserError, match="attention_mask must have the shape"):
            model(ids, attention_mask=torch.ones(2, 1, 40, 40, dtype=torch.bool))
        with pytest.raises(UserError, match="packed"):
            model(ids, position_ids=torch.arange(20).repeat(2)[None].expand(2, -1))
        with pytest.raises(UserError, match="applied to this model already"):
            apply_esa(model, SMALL)
    with pytest.raises(UserError, match="applied to this model already"), observe(model, lambda *_: None):
        apply_esa(model, SMALL)


def test_attention_dropout_in_training_is_refused():
    model = _model(attention_dropout=0.1)
    with apply_esa(model, SMALL):
        model.train()
        with pytest.raises(UserError, match="dropout"):
            model(_ids())


def test_a_model_without_weights_is_refused_and_left_alone():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_config())
    for _ in range(2):
        with pytest.raises(UserError, match="meta device"):
            apply_esa(model, SMALL)
    assert geometry(model).num_layers == 2


def test_a_fully_padded_row_gives_no_nan():
    model, ids = _model(), _ids()
    mask = torch.ones_like(ids)
    mask[1] = 0
    with apply_esa(model, SMALL):
        assert torch.isfinite(model(ids, attention_mask=mask).logits).all()


def test_hidden_states_that_are_nan_are_named():
    model = _model()
    model.model.embed_tokens.weight.data[7] = torch.nan
    with apply_esa(model, SMALL), pytest.raises(UserError, match="NaN"):
        model(torch.full((1, 9), 7))


def test_memory_is_bounded_by_what_is_kept():
    model = _model(dtype=torch.float32)
    weight = torch.eye(16)[:2]
    with apply_esa(model, FEW, [QKCompressor(2, 8, weight, weight)] * 2) as handle:
        cache = handle.new_cache(reserve=4096)
        for part in _ids(1, 4096).split(512, dim=1):
            model(part, **{cache_argument(model): cache}, logits_to_keep=1)
        memory = cache.memory()
    used = 2 * 4096 * (2 * 16 + 2) * 4
    assert memory["used"] == used
    assert memory["total"] <= 1.10 * used
