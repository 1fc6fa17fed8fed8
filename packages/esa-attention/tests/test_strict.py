"""``selection=strict_causal``: reading a prompt in chunks of any size is what decoding it token by token is."""

import pytest
import torch

from esa_attention import ESAConfig, QKCompressor, apply_esa
from esa_attention.attention.functional import esa_decode, esa_prefill
from esa_attention.attention.rope import RopeTables
from esa_attention.integration.cache_argument import cache_argument

TOKENS = 75
FEW = ESAConfig(
    num_initial=3,
    num_selected=6,
    num_local=9,
    chunk_size=8,
    selection="strict_causal",
    index_dtype="fp32",
    dense_until=0,
)


def _inputs(dtype, heads=4, kv_heads=2, dim=8):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, heads, TOKENS, dim, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(2, kv_heads, TOKENS, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = [torch.randn(5, kv_heads * dim, generator=generator, dtype=torch.float64) for _ in range(2)]
    maps = QKCompressor(kv_heads, dim, *(w.to(dtype) for w in weights))
    return query.to(dtype), key.to(dtype), value.to(dtype), maps


def _decoded(query, key, value, config, tables, maps, start):
    out = torch.zeros_like(query)
    for t in range(TOKENS):
        upto = [min(s, t + 1) for s in start]
        rows = query[:, :, t : t + 1], key[:, :, : t + 1], value[:, :, : t + 1]
        out[:, :, t : t + 1] = esa_decode(*rows, config, tables, maps, start=upto)
    return out


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("proximity", [0, 1, 3])
def test_chunks_of_any_size_equal_decoding(backend, proximity):
    query, key, value, maps = _inputs(torch.float64)
    tables, start = RopeTables.standard(8), [0, 11]
    config = FEW.replace(proximity=proximity, backend=backend)
    expected = _decoded(query, key, value, config, tables, maps, start)
    for size in (1, 5, 64):
        out = esa_prefill(query, key, value, config.replace(chunk_size=size), tables, maps, start=start)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    paper = esa_prefill(query, key, value, config.replace(selection="paper"), tables, maps, start=start)
    assert float((paper - expected).abs().max()) > 1e-2  # the published selection shares a chunk's segments


@pytest.mark.parametrize("proximity", [0, 1, 3])
@pytest.mark.parametrize("exact", [True, False])
def test_chunks_of_any_size_equal_decoding_in_kernels(device, interpreter, proximity, exact):
    query, key, value, maps = (x.to(device) for x in _inputs(torch.float32))
    maps, tables, start = None if exact else maps, RopeTables.standard(8), [0, 11]
    config = FEW.replace(proximity=proximity, backend="triton")
    expected = esa_prefill(query, key, value, config.replace(backend="torch"), tables, maps, start=start)
    last = query[:, :, -6:]  # reading goes on over a cache; kernels are interpreted, and each token is a row
    out = esa_prefill(last, key, value, config, tables, maps, start=start)
    torch.testing.assert_close(out, expected[:, :, -6:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_model_reads_in_parts_as_it_reads_token_by_token(tiny, tokens, family):
    model, ids = tiny(family), tokens(2, 80)
    name = cache_argument(model)
    with torch.no_grad(), apply_esa(model, FEW) as handle:
        logits = []
        for sizes in ([80], [33, 1, 46], [1] * 80):
            cache = handle.new_cache()
            parts = [model(part, **{name: cache}).logits for part in ids.split(sizes, dim=1)]
            logits.append(torch.cat(parts, dim=1))
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=0, atol=1e-9)


def test_full_attention_up_to_a_length_is_that_of_every_token(tiny, tokens):
    model, ids = tiny(), tokens(1, 80)
    name = cache_argument(model)
    with torch.no_grad(), apply_esa(model, FEW.replace(dense_until=50)) as handle:
        whole, cache = model(ids).logits, handle.new_cache()
        parts = [model(part, **{name: cache}).logits for part in ids.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-6)


def test_speculative_and_chunked_generation_equal_greedy(tiny, tokens):
    model, ids = tiny(), tokens(1, 60)
    greedy = {"max_new_tokens": 24, "do_sample": False}
    with apply_esa(model, FEW):
        expected = model.generate(ids, **greedy)
        assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=3, **greedy), expected)
        assert torch.equal(model.generate(ids, prefill_chunk_size=7, **greedy), expected)


def test_what_differs_from_greedy_by_design_is_said_once(tiny, tokens, caplog, monkeypatch):
    monkeypatch.setattr("effkit.notes._said", set())
    model, ids = tiny(), tokens(1, 60)
    assisted = {"max_new_tokens": 24, "do_sample": False, "prompt_lookup_num_tokens": 3}
    chunked = {"max_new_tokens": 2, "do_sample": False, "prefill_chunk_size": 12}
    with apply_esa(model, FEW):
        model.generate(ids, **assisted)
        model.generate(ids, **chunked)
    paper = FEW.replace(selection="paper")
    with apply_esa(model, paper):
        model.generate(ids, max_new_tokens=2, do_sample=False)
        model.generate(ids, max_new_tokens=2, do_sample=False, prefill_chunk_size=16)  # whole chunks: the same cuts
    with apply_esa(model, paper.replace(num_local=100)):
        model.generate(ids, **assisted)  # all is local
    assert caplog.records == []
    with apply_esa(model, paper):
        for _ in range(2):
            model.generate(ids, **assisted)
            model.generate(ids, **chunked)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("by design" in line and "selection='strict_causal'" in line for line in said)
    assert "assisted decoding" in said[0]
    assert "prefill_chunk_size=12" in said[1]
