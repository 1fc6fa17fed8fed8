"""Blocks before tokens: the bounds hold, and what is counted is what would be read."""

import pytest
import torch

from effkit.errors import UserError
from esa_attention.attention.cache.buffers import index_dtype
from esa_attention.calibration.two_level import BOUNDS, two_levels


def _randn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bound", BOUNDS)
def test_keys_that_lie_together_are_found_by_their_blocks(bound):
    """All keys of a block are one, and one block alone agrees with the query."""
    keys = (-torch.eye(4, 8, dtype=torch.float64)).repeat_interleave(16, dim=0)
    keys[16:32] *= -1
    found = two_levels(torch.ones(8, dtype=torch.float64), keys, 16, 16, bound)
    summary = 2 * 8 + 4 if bound == "min_max" else 8 + 8
    assert found.exact == pytest.approx((4 * summary + 16 * 12) / (64 * 12))
    assert found.recall == 1.0


@pytest.mark.parametrize("bound", BOUNDS)
def test_random_keys_need_all_blocks(bound):
    keys = _randn(1000, 64)
    found = [two_levels(query, keys, 100, 64, bound) for query in _randn(4, 64, seed=1)]
    assert all(f.exact > 1.0 for f in found)  # everything, and the summaries
    assert all(0.3 < f.recall < 0.9 for f in found)  # nothing of use was known


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("k", [1, 7])
def test_an_exact_choice_reads_no_block_in_vain(bound, k):
    """Against looking at every number of blocks in turn."""
    keys, query = _randn(90, 3).cumsum(dim=0), _randn(3, seed=1)
    scores = keys @ query
    blocks = list(keys.split(8))
    if bound == "min_max":
        bounds = [float(torch.maximum(b.amin(0) * query, b.amax(0) * query).sum()) for b in blocks]
    else:
        bounds = [float(b.mean(0) @ query + (b - b.mean(0)).norm(dim=1).max() * query.norm()) for b in blocks[:-1]]
        last = torch.cat((blocks[-1], blocks[-1][-1:].expand(8 - len(blocks[-1]), -1)))
        bounds.append(float(last.mean(0) @ query + (last - last.mean(0)).norm(dim=1).max() * query.norm()))
    order = sorted(range(len(blocks)), key=lambda i: -bounds[i])
    for count in range(1, len(blocks) + 1):
        seen = torch.cat([scores.split(8)[i] for i in order[:count]])
        rest = max((bounds[i] for i in order[count:]), default=-float("inf"))
        if len(seen) >= k and seen.topk(k).values[-1] >= rest:
            break
    read = sum(len(blocks[i]) for i in order[:count])
    summary = 2 * 3 + 4 if bound == "min_max" else 3 + 8
    assert two_levels(query, keys, k, 8, bound).exact == pytest.approx((len(blocks) * summary + read * 7) / (90 * 7))


@pytest.mark.parametrize(
    ("k", "block", "bound", "words"),
    [(0, 8, "min_max", "k must"), (90, 8, "min_max", "1..89"), (5, 91, "min_max", "block"), (5, 8, "mean", "bound")],
)
def test_sizes_that_do_not_fit(k, block, bound, words):
    with pytest.raises(UserError, match=words):
        two_levels(_randn(3), _randn(90, 3), k, block, bound)


@pytest.mark.parametrize(
    ("asked", "dtype", "kind", "exact", "expected"),
    [
        ("auto", torch.bfloat16, "cpu", False, torch.float32),
        ("auto", torch.float64, "cpu", False, torch.float64),
        ("auto", torch.bfloat16, "cuda", False, torch.int8),
        ("auto", torch.bfloat16, "cuda", True, torch.bfloat16),  # the keys are there already
        ("auto", torch.float16, "mps", False, torch.float16),
        ("bf16", torch.float32, "cuda", False, torch.bfloat16),
    ],
)
def test_the_type_of_the_index(asked, dtype, kind, exact, expected):
    assert index_dtype(asked, dtype, kind, exact) == expected
