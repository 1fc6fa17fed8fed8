"""NaN and infinities are said, or they show: no finite output comes out of them."""

import pytest
import torch

from effkit.errors import UserError
from esa_attention import ESAConfig, QKCompressor, apply_esa
from esa_attention.attention.functional import esa_prefill, merge_attention_states
from esa_attention.attention.rope import RopeTables
from esa_attention.ops.attention_torch import attend

FEW = ESAConfig(num_initial=3, num_selected=6, num_local=9, chunk_size=8, proximity=1, dense_until=0)


def _inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, 60, 8, generator=generator) for heads in (4, 2, 2)]


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of numpy, which interprets kernels
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
@pytest.mark.parametrize("new", [1, 20])
def test_every_tensor_is_looked_at(device, interpreter, bad, name, backend, new):
    tensors = dict(zip(("query", "key", "value"), _inputs(), strict=True))
    tensors["query"] = tensors["query"][:, :, -new:].clone()
    tensors[name][0, 1, -1, 3] = bad
    rows = [t.to(device) for t in tensors.values()]
    config, tables = FEW.replace(backend=backend), RopeTables.standard(8)
    if device == "cpu" or new > 1:
        with pytest.raises(UserError, match=f"a {name} of the model is NaN or infinite"):
            esa_prefill(*rows, config, tables)
    if name == "query":  # unchecked, it propagates
        out = esa_prefill(*rows, config.replace(check_finite=False), tables)
        assert not bool(torch.isfinite(out[0, 1, -1]).any())
        assert bool(torch.isfinite(out[0, 3]).all())
        assert bool(torch.isfinite(out[0, :, :-1]).all()) or new == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_in_every_type_and_selection(dtype):
    rows = [t.to(dtype) for t in _inputs()]
    rows[0][0, 1, -1, 3] = torch.nan
    for selection in ("paper", "strict_causal", "rerank"):
        for new in (1, 20):
            config = FEW.replace(selection=selection, check_finite=False)
            out = esa_prefill(rows[0][:, :, -new:], *rows[1:], config, RopeTables.standard(8))
            assert not bool(torch.isfinite(out[0, 1, -1]).any())


def test_merging_spreads_nan_and_not_empty_parts():
    outs = [torch.ones(1, 2, 4), torch.full((1, 2, 4), torch.nan)]
    merged, lse = merge_attention_states(outs, [torch.zeros(1, 2), torch.tensor([[-torch.inf, torch.nan]])])
    assert torch.equal(merged[0, 0], torch.ones(4))
    assert bool(merged[0, 1].isnan().all())
    assert float(lse[0, 0]) == 0.0


def test_maps_that_are_not_finite_are_refused(tiny):
    weight = torch.eye(16)[:4]
    broken = weight.clone()
    broken[1, 2] = torch.nan
    for pair in ((weight, broken), (broken, weight)):
        with pytest.raises(UserError, match=r"_weight of the compressor of layer 1 is NaN or infinite"):
            apply_esa(tiny(), FEW, [QKCompressor(2, 8, weight, weight), QKCompressor(2, 8, *pair)])


def test_compressed_keys_beyond_the_range_of_the_index():
    query, key, value = _inputs()
    large = torch.full((2, 16), 1e5)
    with pytest.raises(UserError, match=r"compressed key of the index in fp16 \(index_dtype\) is NaN or infinite"):
        esa_prefill(
            *(query, key, value, FEW.replace(index_dtype="fp16"), RopeTables.standard(8)),
            QKCompressor(2, 8, large, large),
        )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_nan_shows_in_attention_over_few_keys_and_many(causal, name):
    for tokens in (2, 4, 9, 40):
        generator = torch.Generator().manual_seed(tokens)
        rows = {
            n: torch.randn(1, h, tokens, 8, generator=generator) for n, h in (("query", 4), ("key", 2), ("value", 2))
        }
        rows[name][0, 1, -1] = torch.nan
        out, _ = attend(*rows.values(), 0.5, causal=causal)
        row = out[0, 1, -1] if name == "query" else out[0, 2:, -1]
        assert bool(row.isnan().all())
        assert bool(torch.isfinite(out[0, 0]).all())
