"""The steps of ESA against what they must be: exact identities, known answers, ties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effkit.errors import UserError
from esa_attention.attention.functional import (
    attention_states,
    dilate,
    esa_decode,
    esa_prefill,
    fold_keys,
    fold_queries,
    gather_kv,
    importance_score,
    merge_attention_states,
    select_topk,
)
from esa_attention.reference import reference_choice


def _randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 2), (4, 4), (6, 1)])
def test_folded_score_is_the_sum_over_repeated_heads(heads, kv_heads):
    q, k = _randn(2, heads, 5, 16), _randn(2, kv_heads, 9, 16, seed=1)
    repeated = k.repeat_interleave(heads // kv_heads, dim=1)
    naive = torch.einsum("bhtd,bhmd->btm", q, repeated)
    folded = fold_queries(q, kv_heads) @ fold_keys(k).transpose(1, 2)
    torch.testing.assert_close(folded, naive, rtol=0, atol=1e-12)


def test_fold_refuses_heads_that_do_not_divide():
    with pytest.raises(UserError, match="3"):
        fold_queries(_randn(1, 8, 2, 4), 3)


def test_best_score_is_zero_and_queries_may_be_shifted():
    q, k = _randn(7, 12), _randn(40, 12, seed=1)
    scores = importance_score(q, k)
    assert scores.max() == 0
    assert (scores <= 0).all()
    # A term that depends on the query only: one more dimension, in which all keys are alike.
    shifted = importance_score(torch.cat((q, _randn(7, 1, seed=2)), 1), torch.cat((k, torch.ones(40, 1).double()), 1))
    torch.testing.assert_close(shifted, scores, rtol=0, atol=1e-12)
    order = importance_score(3.5 * q, k).argsort(descending=True)
    assert torch.equal(order, scores.argsort(descending=True))
    assert importance_score(q, k[:0]).shape == (0,)


def test_importance_score_is_equation_4():
    q, k = _randn(4, 6), _randn(11, 6, seed=1)
    f = q @ k.T
    expected = torch.stack([max(f[c, m] - f[c].max() for c in range(4)) for m in range(11)])
    torch.testing.assert_close(importance_score(q, k), expected, rtol=0, atol=1e-12)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(0, 6), st.integers(0, 6))
def test_dilations_add_up_and_stay_inside(values, a, b):
    scores = torch.tensor(values, dtype=torch.float64)
    once = dilate(scores, a + b)
    assert torch.equal(dilate(dilate(scores, a), b), once)
    expected = [max(values[max(0, j - a - b) : j + a + b + 1]) for j in range(len(values))]
    assert once.tolist() == expected
    assert torch.equal(dilate(scores, 0), scores)


def test_dilate_keeps_leading_dimensions_and_refuses_negative_width():
    assert dilate(_randn(2, 3, 9), 2).shape == (2, 3, 9)
    with pytest.raises(UserError, match="-1"):
        dilate(_randn(4), -1)


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.integers(0, 4), st.integers(1, 45))
def test_selection_order_under_ties(values, proximity, k):
    own = torch.tensor(values, dtype=torch.float64)
    chosen = select_topk(dilate(own, proximity), k, own)
    assert chosen.tolist() == reference_choice([float(v) for v in values], proximity, k)


def test_every_querys_best_token_survives_the_max_filter():
    """Trap of section 9: with k at least the number of queries, ties must not push a query's best token out."""
    q, k = _randn(32, 16), _randn(6000, 16, seed=1)
    own = importance_score(q, k)
    best = (q @ k.T).argmax(dim=1)
    for proximity in (0, 1, 3):
        chosen = select_topk(dilate(own, proximity), 32, own)
        assert set(best.tolist()) <= set(chosen.tolist())


def test_select_is_batched_and_refuses_k_below_one():
    scores = _randn(3, 50)
    rows = select_topk(scores, 7)
    assert rows.shape == (3, 7)
    for row, expected in zip(scores, rows, strict=True):
        assert torch.equal(select_topk(row, 7), expected)
    with pytest.raises(UserError, match="k must be at least 1"):
        select_topk(scores, 0)


def test_gather_takes_the_same_tokens_for_all_heads():
    key, value = _randn(2, 3, 10, 4), _randn(2, 3, 10, 4, seed=1)
    rows = torch.tensor([[1, 5], [0, 9]])
    k, v = gather_kv(key, value, rows)
    assert torch.equal(k[1], key[1][:, [0, 9]])
    assert torch.equal(v[0], value[0][:, [1, 5]])
    assert torch.equal(gather_kv(key, value, rows[0])[0][1], key[1][:, [1, 5]])


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_merging_parts_is_one_softmax_over_the_union(shift):
    q, k, v = _randn(2, 4, 3, 8), _randn(2, 2, 20, 8, seed=1), _randn(2, 2, 20, 8, seed=2)
    whole, whole_lse = attention_states(q, k, v, 0.3)
    parts = [attention_states(q, k[:, :, s], v[:, :, s], 0.3) for s in (slice(0, 7), slice(7, 8), slice(8, 20))]
    out, lse = merge_attention_states([o for o, _ in parts], [lse + shift for _, lse in parts])
    torch.testing.assert_close(out, whole, rtol=0, atol=1e-11)
    torch.testing.assert_close(lse, whole_lse + shift, rtol=0, atol=1e-11)


def test_merging_with_an_empty_part_and_with_nothing():
    out, lse = _randn(2, 3, 8), _randn(2, 3, seed=1)
    rubbish = torch.full_like(out, torch.nan)
    empty = torch.full_like(lse, -torch.inf)
    merged, total = merge_attention_states([out, rubbish], [lse, empty])
    torch.testing.assert_close(merged, out, rtol=0, atol=1e-15)
    torch.testing.assert_close(total, lse, rtol=0, atol=1e-15)
    merged, total = merge_attention_states([rubbish, rubbish], [empty, empty])
    assert torch.equal(merged, torch.zeros_like(merged))
    assert (total == -torch.inf).all()
    # One side far above the other: it alone counts, and nothing overflows.
    merged, _ = merge_attention_states([out.float(), -out.float()], [lse.float() + 1e4, lse.float() - 1e4])
    assert torch.equal(merged, out.float())
    with pytest.raises(UserError, match="as many"):
        merge_attention_states([out], [])


def test_attention_states_is_softmax_attention_with_lower_right_causality():
    q, k, v = _randn(1, 4, 3, 8), _randn(1, 2, 7, 8, seed=1), _randn(1, 2, 7, 8, seed=2)
    mask = torch.ones(3, 7, dtype=torch.bool).tril(4)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    out, lse = attention_states(q, k, v, 0.3, causal=True)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    scores = torch.einsum("htd,hnd->htn", q[0], k[0].repeat_interleave(2, 0)) * 0.3
    torch.testing.assert_close(lse[0], scores.masked_fill(~mask, -torch.inf).logsumexp(-1), rtol=0, atol=1e-12)
    out, lse = attention_states(q, k[:, :, :0], v[:, :, :0], 0.3)
    assert torch.equal(out, torch.zeros_like(q))
    assert (lse == -torch.inf).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": (1, 3, 2, 8)}, "multiple"),
        ({"query": (1, 4, 9, 8)}, "at most S"),
        ({"query": (1, 4, 2, 4)}, "fit"),
        ({"value": (1, 2, 5, 8)}, "key and value"),
        ({"query": (2, 4, 2, 8)}, "key and value"),
    ],
)
def test_shapes_that_do_not_fit(change, words):
    from esa_attention import ESAConfig, RopeTables

    shapes = {"query": (1, 4, 2, 8), "key": (1, 2, 6, 8), "value": (1, 2, 6, 8), **change}
    tensors = {name: _randn(*shape) for name, shape in shapes.items()}
    with pytest.raises(UserError, match=words):
        esa_prefill(**tensors, config=ESAConfig(), tables=RopeTables.standard(8))


def test_decode_takes_one_token_and_starts_are_checked():
    from esa_attention import ESAConfig, RopeTables

    q, k, v = _randn(1, 4, 2, 8), _randn(1, 2, 6, 8), _randn(1, 2, 6, 8)
    with pytest.raises(UserError, match="esa_prefill"):
        esa_decode(q, k, v, ESAConfig(), RopeTables.standard(8))
    with pytest.raises(UserError, match="start"):
        esa_prefill(q, k, v, ESAConfig(), RopeTables.standard(8), start=[9])
    assert esa_decode(q[:, :, 1:], k, v, ESAConfig(), RopeTables.standard(8)).shape == (1, 4, 1, 8)
