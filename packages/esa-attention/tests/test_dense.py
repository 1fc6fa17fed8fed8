"""Full attention while a sequence is short: the stock model's bits, and no seam where ESA takes over."""

import pytest
import torch

from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.crossover import MEASURED, crossover_length, dense_limit, meeting_point
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.integration.apply import apply_esa
from esa_attention.integration.cache_argument import cache_argument

FEW = ESAConfig(num_initial=3, num_selected=6, num_local=9, chunk_size=8, proximity=1)
GREEDY = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}


# ---- where choosing begins to pay


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1024, 0.5), (4096, 2.0)], 2048),
        ([(4096, 2.0), (1024, 0.5)], 2048),
        ([(1024, 1.5), (4096, 2.0)], 1024),
        ([(1024, 0.1), (4096, 0.9)], None),
        ([(1024, 1.1), (2048, 0.5), (8192, 2.0)], 4096),  # faster by chance at a length does not count
        ([], None),
    ],
)
def test_meeting_point(points, expected):
    assert meeting_point(points) == expected


def test_what_was_measured_decides():
    fp32 = crossover_length("cpu", torch.float32)
    assert 8192 < fp32 < 16384
    assert crossover_length("cpu", torch.bfloat16) == fp32  # not measured in that type
    assert crossover_length("cuda", torch.bfloat16) is None  # slower at every length
    assert dense_limit(8192, "cpu", torch.float32) == 8192  # never a position the model was not trained on
    assert dense_limit(10**6, "cpu", torch.float32) == fp32
    assert dense_limit(131072, "cuda", torch.bfloat16) == dense_limit(131072, "npu", torch.float32) == 131072
    assert all(ratio > 0 for points in MEASURED.values() for _, ratio in points)


@pytest.mark.parametrize("rope", [None, {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}])
def test_auto_is_the_default_and_ends_with_the_trained_context(tiny, rope):
    model = tiny(rope_parameters=rope) if rope else tiny()
    with apply_esa(model, ESAConfig.for_context(128)) as handle:
        # Tables that change with the length allow no full attention at true positions of cached keys.
        assert handle.dense_until() == (0 if rope else 128)
        assert handle.dense_until(handle.config.replace(dense_until=7)) == 7


# ---- the stock model's bits


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("how", ["greedy", "chunks", "beams"])
def test_short_sequences_are_stock_bit_for_bit(tiny, tokens, family, how):
    changes = {"sliding_window": None, "head_dim": 8} if family == "mistral" else {}
    model, ids = tiny(family, torch.float32, **changes), tokens(2, 40)
    more = {"greedy": {}, "chunks": {"prefill_chunk_size": 16}, "beams": {"num_beams": 3}}[how]
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    options = {"attention_mask": mask, "max_new_tokens": 6, **GREEDY, **more}
    stock = model.generate(ids, **options)
    with apply_esa(model, ESAConfig.for_context(128)):
        ours = model.generate(ids, **options)
    assert torch.equal(ours.sequences, stock.sequences)
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, stock.logits, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_every_type_and_both_implementations(tiny, tokens, dtype, implementation):
    model, ids = tiny("llama", dtype), tokens(1, 30)
    model.set_attn_implementation(implementation)
    stock = model.generate(ids, max_new_tokens=4, **GREEDY)
    with apply_esa(model, ESAConfig.for_context(128)):
        ours = model.generate(ids, max_new_tokens=4, **GREEDY)
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, stock.logits, strict=True))


def test_another_implementation_is_computed_and_said_once(tiny, tokens, caplog, monkeypatch):
    monkeypatch.setattr("effkit.notes._said", set())
    model, ids = tiny("llama", torch.float32), tokens(1, 30)
    stock = model(ids).logits
    model.set_attn_implementation("flex_attention")
    with torch.no_grad(), apply_esa(model, ESAConfig.for_context(128)):
        assert torch.equal(model(ids).logits, stock)
    assert [r.getMessage() for r in caplog.records if "flex_attention" in r.getMessage()] != []


# ---- the seam


def _randn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _layer(config, batch_tokens, trained_context=None):
    layer = ESALayer(
        config, QKCompressor.exact(2, 8), RopeTables.standard(8), batch_tokens, trained_context=trained_context
    )
    layer.layer_idx = 0
    return layer


def _read(layer, qkv, parts, starts=None):
    outs, low = [], layer.get_seq_length()
    for count in parts:
        q, k, v = (t[:, :, low : low + count] for t in qkv)
        layer.update(k, v)
        own = None if starts is None else [min(s, low + count) for s in starts]
        outs.append(attend_layer(layer, q, 0.3, own))
        low += count
    return torch.cat(outs, dim=2)


@pytest.mark.parametrize("parts", [[61], [8] * 7 + [5], [24, *[1] * 37]], ids=["whole", "chunks", "decoded"])
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_crossing_leaves_both_sides_as_they_are(parts, backend):
    qkv = (_randn(2, 4, 61, 8), _randn(2, 2, 61, 8, seed=1), _randn(2, 2, 61, 8, seed=2))
    starts, limit = [0, 13], 32
    crossing = _read(_layer(FEW.replace(dense_until=limit, backend=backend), 61), qkv, parts, starts)
    dense = _read(_layer(FEW.replace(method="full"), 61), qkv, parts, starts)
    sparse = _read(_layer(FEW.replace(dense_until=0), 61), qkv, parts, starts)
    for row, start in enumerate(starts):
        # A chunk is one or the other: full as long as no token of it sees more than the limit.
        ends, low, last = [], 0, 0
        for count in parts:
            first = max(low, start)
            ends += [(a, min(a + 8, low + count)) for a in range(first, low + count, 8)]
            low += count
        for first, end in ends:
            other = dense if end - start <= limit else sparse
            torch.testing.assert_close(
                crossing[row, :, first:end], other[row, :, first:end], rtol=0, atol=1e-6, msg=f"{row} {first}:{end}"
            )
            last = max(last, end)
        assert last == 61
        assert not torch.allclose(dense[row, :, 55:], sparse[row, :, 55:], atol=1e-3)


def test_the_cache_is_cropped_reordered_and_copied_on_either_side():
    qkv = (_randn(2, 4, 60, 8), _randn(2, 2, 60, 8, seed=1), _randn(2, 2, 60, 8, seed=2))
    config = FEW.replace(dense_until=32)
    expected = _read(_layer(config, 60), qkv, [20, *[1] * 40])
    layer = _layer(config, 60)
    _read(layer, qkv, [20, *[1] * 20])  # crossed at 32
    layer.crop(-15)  # and back
    out = _read(layer, qkv, [1] * 3)
    torch.testing.assert_close(out, expected[:, :, 25:28], rtol=0, atol=1e-12)
    copy = layer.copy(layer.workspace)
    turned = torch.tensor([1, 0])
    layer.reorder_cache(turned)
    out = _read(layer, [t[turned] for t in qkv], [1] * 20)
    torch.testing.assert_close(out, expected[turned, :, 28:48], rtol=0, atol=1e-12)
    torch.testing.assert_close(_read(copy, qkv, [1] * 10), expected[:, :, 28:38], rtol=0, atol=1e-12)
    assert layer.derived.dense is None  # no memory is kept for what is over
    assert copy.derived.dense is None


def test_generation_crosses_in_a_batch(tiny, tokens):
    model, ids = tiny(), tokens(2, 60)
    mask = torch.ones_like(ids)
    mask[1, :20] = 0
    options = {"max_new_tokens": 24, **GREEDY}
    config = FEW.replace(dense_until=66, selection="strict_causal")
    with apply_esa(model, config):
        both = model.generate(ids, attention_mask=mask, **options)
        alone = model.generate(ids[1:, 20:], **options)
    assert torch.equal(both.sequences[1, 60:], alone.sequences[0, 40:])
    stock = model.generate(ids, attention_mask=mask, **options)
    for step in range(24):
        same = [torch.allclose(both.logits[step][row], stock.logits[step][row], atol=1e-9) for row in range(2)]
        assert same == [step <= 6, True]  # the second row is 20 tokens shorter


def test_one_reading_is_compared_with_and_without(tiny, tokens):
    model, ids = tiny(), tokens(1, 60)
    name = cache_argument(model)
    with torch.no_grad(), apply_esa(model, FEW.replace(dense_until=100)) as handle:
        cache = handle.new_cache()
        model(ids[:, :59], **{name: cache})
        dense = model(ids[:, 59:], **{name: cache.copy()}).logits
        cache.reconfigure(dense_until=0)
        sparse = model(ids[:, 59:], **{name: cache}).logits
    assert torch.allclose(dense, model(ids).logits[:, -1:], atol=1e-9)
    assert not torch.allclose(dense, sparse, atol=1e-3)
