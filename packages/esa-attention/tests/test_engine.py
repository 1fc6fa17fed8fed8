"""The engine against the written-out reference, and the invariants of section 8."""

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.functional import attention_states, esa_decode, esa_prefill
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.ops.index_products import decode_scores_int8
from esa_attention.ops.scoring import chunk_scores
from esa_attention.ops.selection_cpu import select
from esa_attention.reference import esa_reference, reference_choice

SMALL = ESAConfig(num_initial=3, num_selected=7, num_local=10, chunk_size=5, proximity=1)
# (query heads, key-value heads, head dimension, rotated dimensions)
VARIANTS = [(4, 2, 8, 8), (6, 1, 16, 12), (3, 3, 8, 8)]


def _randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _inputs(batch, heads, kv_heads, new, total, dim, dtype=torch.float64):
    return (
        _randn(batch, heads, new, dim, dtype=dtype),
        _randn(batch, kv_heads, total, dim, seed=1, dtype=dtype),
        _randn(batch, kv_heads, total, dim, seed=2, dtype=dtype),
    )


def _compressor(kv_heads, dim, rank=5, bias=False):
    width = kv_heads * dim
    return QKCompressor(
        num_kv_heads=kv_heads,
        head_dim=dim,
        query_weight=_randn(rank, width, seed=3),
        key_weight=_randn(rank, width, seed=4),
        query_bias=_randn(rank, seed=5) if bias else None,
        key_bias=_randn(rank, seed=6) if bias else None,
    )


def _choices(layer):
    seen = []
    layer.watchers = [lambda index, row, cut, choices: seen.extend(c[2].tolist() for c in choices)]
    return seen


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("selection", ["paper", "strict_causal", "rerank"])
@pytest.mark.parametrize("proximity", [0, 1, 3])
@pytest.mark.parametrize("compressed", [False, True])
def test_engine_is_the_reference(variant, selection, proximity, compressed):
    heads, kv_heads, dim, rotary = variant
    config = SMALL.replace(selection=selection, proximity=proximity)
    tables = RopeTables.standard(dim, rotary_dim=rotary)
    compressor = _compressor(kv_heads, dim, bias=True) if compressed else None
    q, k, v = _inputs(2, heads, kv_heads, 13, 50, dim)
    for start in (None, [0, 4], [41, 49]):
        ours = esa_prefill(q, k, v, config, tables, compressor, start=start)
        naive = esa_reference(q, k, v, config, tables, compressor, start=start)
        torch.testing.assert_close(ours, naive, rtol=0, atol=1e-10)
    with_backend = esa_prefill(q, k, v, config.replace(backend="reference"), tables, compressor, start=[0, 4])
    torch.testing.assert_close(with_backend, esa_prefill(q, k, v, config, tables, compressor, start=[0, 4]))


@pytest.mark.parametrize("total", range(1, 36))
def test_every_length_of_the_segments(total):
    """Through every boundary: no far part, initial tokens only, fewer middle tokens than selected, more."""
    q, k, v = _inputs(1, 4, 2, 1, total, 8)
    tables = RopeTables.standard(8)
    ours = esa_decode(q, k, v, SMALL, tables, _compressor(2, 8))
    torch.testing.assert_close(ours, esa_reference(q, k, v, SMALL, tables, _compressor(2, 8)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "config", [SMALL.replace(num_initial=0), SMALL.replace(num_local=1, chunk_size=1), SMALL.replace(num_selected=1)]
)
def test_smallest_sizes(config):
    q, k, v = _inputs(1, 4, 2, 9, 40, 8)
    tables = RopeTables.standard(8)
    torch.testing.assert_close(
        esa_prefill(q, k, v, config, tables), esa_reference(q, k, v, config, tables), rtol=0, atol=1e-10
    )


def test_half_way_between_backends_is_within_the_tolerance_rule():
    q, k, v = _inputs(1, 4, 2, 6, 60, 8, torch.float32)
    tables = RopeTables.standard(8)
    exact = esa_reference(q, k, v, SMALL, tables)
    for dtype in (torch.float32, torch.bfloat16):
        low = [t.to(dtype) for t in (q, k, v)]
        plain = _plain_same_type(*low, tables, SMALL)
        # Of the rounded inputs: rounding them may change which tokens are chosen, which is no error of arithmetic.
        reference = esa_reference(*low, SMALL, tables) if dtype != torch.float32 else exact
        assert_close_to_reference(esa_prefill(*low, SMALL, tables), plain, reference)


def _plain_same_type(q, k, v, tables, config):
    """The same attention by torch's operators in the type of the inputs, tokens chosen by the reference."""
    chosen: list[list[int]] = []
    esa_reference(q, k, v, config, tables, choices=chosen)
    out = torch.zeros_like(q)
    total, new = k.shape[2], q.shape[2]
    for number, current in enumerate(range(total - new, total, config.chunk_size)):
        end = min(current + config.chunk_size, total)
        far = [*range(config.num_initial), *chosen[number]]
        near = list(range(current - config.num_local, end))
        q_c = q[:, :, current - total + new : end - total + new]
        far_scores = (tables.rotate_far(q_c, config.w) @ k[:, :, far].repeat_interleave(2, 1).transpose(2, 3)).float()
        near_k = tables.rotate(k[:, :, near], 0).repeat_interleave(2, 1)
        near_scores = (tables.rotate(q_c, config.num_local) @ near_k.transpose(2, 3)).float()
        mask = torch.ones(end - current, len(near), dtype=torch.bool).tril(config.num_local)
        scores = torch.cat((far_scores, near_scores.masked_fill(~mask, -torch.inf)), -1) * q.shape[3] ** -0.5
        values = v[:, :, far + near].repeat_interleave(2, 1)
        out[:, :, current - total + new : end - total + new] = scores.softmax(-1).to(q.dtype) @ values
    return out


def test_short_sequences_are_causal_attention():
    """Section 8.1: nothing but local tokens."""
    q, k, v = _inputs(2, 4, 2, 15, 15, 8)
    tables = RopeTables.standard(8)
    config = SMALL.replace(num_local=10, chunk_size=5)
    expected, _ = attention_states(tables.rotate(q, 0), tables.rotate(k, 0), v, 8**-0.5, causal=True)
    torch.testing.assert_close(esa_prefill(q, k, v, config, tables), expected, rtol=0, atol=1e-6)


class _NoRope(torch.nn.Module):
    rope_type = "default"

    def forward(self, x, position_ids):
        ones = torch.ones(*position_ids.shape, 8)
        return ones, torch.zeros_like(ones)


@pytest.mark.parametrize("total", [12, 33, 70])
def test_without_rope_and_with_all_selected_it_is_full_attention(total):
    """Section 8.2: tests segmentation, gathering and merging at any length."""
    q, k, v = _inputs(2, 4, 2, 12, total, 8)
    config = SMALL.replace(num_selected=100)
    expected, _ = attention_states(q, k, v, 8**-0.5, causal=True)
    torch.testing.assert_close(esa_prefill(q, k, v, config, RopeTables(_NoRope())), expected, rtol=0, atol=1e-10)


def _read(layer, q, k, v, sizes):
    outs, at = [], 0
    for size in sizes:
        layer.update(k[:, :, at : at + size], v[:, :, at : at + size])
        outs.append(attend_layer(layer, q[:, :, at : at + size], q.shape[3] ** -0.5))
        at += size
    return torch.cat(outs, dim=2)


def _layer(config=SMALL, kv_heads=2, dim=8, compressor=None, **kwargs):
    return ESALayer(config, compressor or _compressor(kv_heads, dim), RopeTables.standard(dim), **kwargs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_cache_that_grows_token_by_token_is_the_reference_of_every_step(dtype):
    """Decoding 70 tokens: buffers double, the window moves and is rotated anew, tokens pass from local to middle."""
    q, k, v = _inputs(1, 4, 2, 110, 110, 8, dtype)
    layer = _layer()
    ours = _read(layer, q, k, v, [40, *[1] * 70])
    tables, compressor = layer.tables, _compressor(2, 8)
    parts = [esa_reference(q[:, :, :40], k[:, :, :40], v[:, :, :40], SMALL, tables, compressor)]
    parts += [
        esa_reference(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], SMALL, tables, compressor)
        for t in range(40, 110)
    ]
    # float32: rotated at other positions than the reference, whose tables are float32 too.
    torch.testing.assert_close(
        ours.double(), torch.cat(parts, 2), rtol=0, atol=1e-10 if dtype == torch.float64 else 2e-5
    )
    assert layer.store.capacity >= 110
    if dtype == torch.float32:
        assert layer.window(0).base > 0


def test_index_of_chunks_is_the_index_of_the_whole():
    q, k, v = _inputs(1, 4, 2, 60, 60, 8)
    one, many = _layer(), _layer()
    _read(one, q, k, v, [60])
    _read(many, q, k, v, [5, 1, 1, 20, 33])
    torch.testing.assert_close(one.index.keys.rows, many.index.keys.rows, rtol=0, atol=1e-12)


def test_chunkings_agree_when_everything_is_selected():
    q, k, v = _inputs(1, 4, 2, 60, 60, 8)
    config = SMALL.replace(num_selected=200, num_local=60)
    expected = _read(_layer(config), q, k, v, [60])
    for sizes in ([1] * 60, [7, 13, 40]):
        torch.testing.assert_close(_read(_layer(config), q, k, v, sizes), expected, rtol=0, atol=1e-6)


def test_later_tokens_never_change_earlier_chunks():
    q, k, v = _inputs(1, 4, 2, 60, 60, 8)
    short = _read(_layer(), q, k, v, [40])
    torch.testing.assert_close(_read(_layer(), q, k, v, [60])[:, :, :40], short, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("selection", "block", "leaks"), [("paper", None, True), ("strict_causal", None, False), ("paper", 1, False)]
)
def test_only_the_papers_selection_looks_ahead_inside_a_chunk(selection, block, leaks):
    config = SMALL.replace(selection=selection, selection_block=block, num_selected=3, chunk_size=10)
    q, k, v = _inputs(1, 4, 2, 60, 60, 8)
    before = _read(_layer(config), q, k, v, [50, 10])[:, :, 50:55]
    q2, k2, v2 = q.clone(), k.clone(), v.clone()
    for t in (q2, k2, v2):
        t[:, :, 55:] = 9 * _randn(*t[:, :, 55:].shape, seed=7)
    after = _read(_layer(config), q2, k2, v2, [50, 10])[:, :, 50:55]
    assert torch.allclose(before, after, rtol=0, atol=1e-12) == (not leaks)


def test_crop_and_replay_gives_the_same():
    q, k, v = _inputs(1, 4, 2, 60, 60, 8)
    layer = _layer()
    first = _read(layer, q, k, v, [50, *[1] * 10])
    layer.crop(-10)
    assert layer.get_seq_length() == 50
    again = []
    for t in range(50, 60):
        layer.update(k[:, :, t : t + 1], v[:, :, t : t + 1])
        again.append(attend_layer(layer, q[:, :, t : t + 1], 8**-0.5))
    assert torch.equal(torch.cat(again, 2), first[:, :, 50:])
    layer.crop(-55)  # below the window: everything rotated is gone
    layer.update(k[:, :, 5:60], v[:, :, 5:60])
    out = attend_layer(layer, q[:, :, 5:60], 8**-0.5)
    fresh = _layer()
    fresh.update(k[:, :, :5], v[:, :, :5])
    fresh.update(k[:, :, 5:], v[:, :, 5:])
    assert torch.equal(out, attend_layer(fresh, q[:, :, 5:60], 8**-0.5))
    layer.crop(20)  # as transformers had it before: the length to keep
    assert layer.get_seq_length() == 20


@pytest.mark.parametrize("how", ["reorder", "select", "mask", "repeat"])
def test_batch_is_rearranged_with_everything_that_belongs_to_it(how):
    q, k, v = _inputs(3, 4, 2, 60, 60, 8)
    layer = _layer(SMALL.replace(selection="reuse"))
    _read(layer, q, k, v, [50, 1, 1])
    rows = {"reorder": [2, 0, 0], "select": [1, 2], "mask": [0, 2], "repeat": [0, 0, 1, 1, 2, 2]}[how]
    if how == "reorder":
        layer.reorder_cache(torch.tensor(rows))
    elif how == "repeat":
        layer.batch_repeat_interleave(2)
    else:
        layer.batch_select_indices(torch.tensor(rows) if how == "select" else torch.tensor([True, False, True]))
    picked = _layer(SMALL.replace(selection="reuse"))
    _read(picked, q[rows], k[rows], v[rows], [50, 1, 1])
    for t in (52, 53):
        for other in (layer, picked):
            other.update(k[rows][:, :, t : t + 1], v[rows][:, :, t : t + 1])
        new = q[rows][:, :, t : t + 1]
        assert torch.equal(attend_layer(layer, new, 0.3), attend_layer(picked, new, 0.3))
    # Beams that were copied must not share memory.
    layer.store.data[0] = 0
    assert float(layer.store.data[1, :10].abs().sum()) > 0


def test_padded_rows_are_what_they_would_be_alone():
    q, k, v = _inputs(3, 4, 2, 60, 60, 8)
    starts = [0, 7, 33]
    layer = _layer()
    layer.update(k, v)
    together = attend_layer(layer, q, 0.3, starts)
    for row, start in enumerate(starts):
        alone = _layer()
        alone.update(k[row : row + 1, :, start:], v[row : row + 1, :, start:])
        torch.testing.assert_close(
            together[row : row + 1, :, start:],
            attend_layer(alone, q[row : row + 1, :, start:], 0.3),
            rtol=0,
            atol=1e-12,
        )
        assert torch.equal(together[row, :, :start], torch.zeros_like(together[row, :, :start]))


def test_reuse_keeps_a_choice_while_the_query_does_not_turn():
    q, k, v = _inputs(1, 4, 2, 60, 60, 8)
    q[:, :, 51:] = q[:, :, 50:51] + 1e-3 * q[:, :, 51:]
    always, never = (_layer(SMALL.replace(selection="reuse", reuse_threshold=t)) for t in (0.9, 1.0))
    kept, fresh = _choices(always), _choices(never)
    _read(always, q, k, v, [50, *[1] * 10])
    out = _read(never, q, k, v, [50, *[1] * 10])
    assert all(choice == kept[-10] for choice in kept[-10:])
    paper = _layer()
    expected = _choices(paper)
    torch.testing.assert_close(out, _read(paper, q, k, v, [50, *[1] * 10]), rtol=0, atol=1e-12)
    assert fresh == expected


def test_reuse_forgets_its_choice_when_the_cache_is_cropped():
    q, k, v = _inputs(1, 4, 2, 60, 60, 8)
    layer = _layer(SMALL.replace(selection="reuse", reuse_threshold=-1.0))
    _read(layer, q, k, v, [50, 1])
    layer.crop(-30)
    layer.update(k[:, :, 21:40], v[:, :, 21:40])
    attend_layer(layer, q[:, :, 21:40], 0.3)
    seen = _choices(layer)
    layer.update(k[:, :, 40:41], v[:, :, 40:41])
    attend_layer(layer, q[:, :, 40:41], 0.3)
    assert max(seen[0]) < 40 - SMALL.num_local


def test_dense_until_is_full_attention_and_then_esa():
    q, k, v = _inputs(1, 4, 2, 60, 60, 8)
    layer = _layer(SMALL.replace(dense_until=40))
    out = _read(layer, q, k, v, [20, *[1] * 40])
    tables = layer.tables
    full, _ = attention_states(tables.rotate(q, 0), tables.rotate(k, 0), v, 8**-0.5, causal=True)
    torch.testing.assert_close(out[:, :, :40], full[:, :, :40], rtol=0, atol=1e-6)
    sparse = _read(_layer(), q, k, v, [20, *[1] * 40])
    torch.testing.assert_close(out[:, :, 40:], sparse[:, :, 40:], rtol=0, atol=1e-10)


# ---- operators of the fast path


@pytest.mark.parametrize("block", [1, 3, 7, 64])
def test_chunk_scores_in_tiles(block, monkeypatch):
    from esa_attention.attention.functional import importance_score
    from esa_attention.ops import scoring

    q, k = _randn(7, 6), _randn(1000, 6, seed=1)
    expected = torch.stack([importance_score(q[i : i + block], k) for i in range(0, 7, block)])
    torch.testing.assert_close(chunk_scores(q, k, block), expected, rtol=0, atol=1e-12)
    monkeypatch.setattr(scoring, "_TILE", 1)
    for keep in (0, 10**9):
        monkeypatch.setattr(scoring, "_KEEP", keep)
        torch.testing.assert_close(chunk_scores(q, k, block), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["distinct", "ties", "all alike", "two values"])
@pytest.mark.parametrize("k", [1, 5, 64, 499])
@pytest.mark.parametrize("proximity", [0, 1, 4])
def test_fast_selection_is_the_reference_order(kind, k, proximity):
    own = _randn(500)
    own = {
        "distinct": own,
        "ties": own.round(),
        "all alike": torch.zeros(500).double(),
        "two values": (own > 1).double(),
    }[kind]
    assert select(own, proximity, k).tolist() == reference_choice(own.tolist(), proximity, k)
    signed = torch.where(own == 0, -0.0, own)  # the two zeros are one number
    assert select(signed, proximity, k).tolist() == select(own, proximity, k).tolist()


def test_int8_scores_are_as_good_as_the_keys_are_rounded():
    q, keys = _randn(128, dtype=torch.float32), _randn(4000, 128, seed=1, dtype=torch.float32)
    scale = keys.abs().amax(1) / 127
    rounded = (keys / scale[:, None]).round()
    exact = (rounded.double() * scale.double()[:, None]) @ q.double()
    ours = decode_scores_int8(q, rounded.to(torch.int8), scale)
    # Two digits of the query: an error of 2^-15 of its largest entry each.
    bound = 128 * float(q.abs().max()) / 127 / 254 / 2 * float((rounded.abs().amax(1) * scale).max())
    assert float((ours - exact).abs().max()) < bound
    assert float((ours - exact).abs().mean()) < bound / 20
    assert torch.equal(decode_scores_int8(torch.zeros(128), rounded.to(torch.int8), scale), torch.zeros(4000))


@pytest.mark.parametrize("kind", ["bf16", "fp16", "int8"])
def test_coarser_index_types_choose_nearly_the_same_tokens(kind):
    """Section 8.12: recall at k of bf16 at least 0.99, of int8 at least 0.97."""
    compressor = _compressor(2, 32, rank=32)
    q, k, v = _inputs(1, 4, 2, 20, 2020, 32, torch.float32)
    config = ESAConfig(num_initial=4, num_selected=200, num_local=16, chunk_size=16)
    chosen = {}
    for index_dtype in ("fp32", kind):
        layer = ESALayer(config.replace(index_dtype=index_dtype), compressor, RopeTables.standard(32))
        layer.update(k[:, :, :2000], v[:, :, :2000])
        seen = chosen[index_dtype] = _choices(layer)
        for t in range(20):
            layer.update(k[:, :, 2000 + t : 2001 + t], v[:, :, 2000 + t : 2001 + t])
            attend_layer(layer, q[:, :, t : t + 1], 0.2)
        assert len(seen) == 20
    recall = sum(len(set(a) & set(b)) for a, b in zip(*chosen.values(), strict=True)) / (20 * 200)
    assert recall >= (0.97 if kind == "int8" else 0.99), recall


def test_exact_scores_in_8_bits_need_an_index_of_their_own():
    layer = ESALayer(SMALL.replace(index_dtype="int8"), QKCompressor.exact(2, 8), RopeTables.standard(8))
    q, k, v = _inputs(1, 4, 2, 41, 41, 8, torch.float32)
    _read(layer, q, k, v, [40, 1])
    assert layer.index is not None
    assert layer.index.keys.data.dtype == torch.int8
    exact = ESALayer(SMALL, QKCompressor.exact(2, 8), RopeTables.standard(8))
    _read(exact, q, k, v, [40, 1])
    assert exact.index is None


def test_offloaded_cache_computes_the_same():
    q, k, v = _inputs(2, 4, 2, 60, 60, 8)
    plain, offloaded = _layer(), _layer(SMALL.replace(offload=True))
    assert torch.equal(_read(plain, q, k, v, [40, *[1] * 20]), _read(offloaded, q, k, v, [40, *[1] * 20]))
    assert offloaded.window(0).values is not None


# ---- bad input


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", ["key", "value"])
def test_a_key_that_is_not_finite_is_an_error(value, which):
    _, k, v = _inputs(1, 4, 2, 5, 5, 8)
    (k if which == "key" else v)[0, 1, 3, 2] = value
    layer = _layer()
    with pytest.raises(UserError, match=f"a {which} of the model is NaN or infinite"):
        layer.update(k, v)
    assert layer.get_seq_length() == 0


def test_a_cache_refuses_what_does_not_continue_it():
    _, k, v = _inputs(1, 4, 2, 5, 5, 8)
    layer = _layer()
    layer.update(k, v)
    with pytest.raises(UserError, match="continue a cache of 1"):
        layer.update(k.repeat(2, 1, 1, 1), v.repeat(2, 1, 1, 1))
    with pytest.raises(UserError, match="made for keys of 16"):
        _layer().update(k[..., :4].contiguous(), v[..., :4].contiguous())
    with pytest.raises(UserError, match="one shape"):
        _layer().update(k, v[:, :, :3])
    layer.reset()
    assert layer.get_seq_length() == 0
    layer.update(k.repeat(2, 1, 1, 1), v.repeat(2, 1, 1, 1))
