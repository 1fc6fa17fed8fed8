"""What the baselines choose, against their definitions in loops."""

import pytest
import torch

from effkit.errors import UserError
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.functional import esa_prefill
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig

CONFIG = ESAConfig(
    num_initial=3, num_selected=12, num_local=10, chunk_size=5, block_size=6, block_representatives=2, page_size=4
)
H, K, D, S = 4, 2, 8, 90


def _inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, h, S, D, generator=generator, dtype=torch.float64) for h in (H, K, K)]


def _chosen(method, sizes):
    """Choices of every chunk with a middle part, and the layer."""
    q, k, v = _inputs()
    layer = ESALayer(CONFIG.replace(method=method), QKCompressor.exact(K, D), RopeTables.standard(D))
    seen = []
    layer.watchers = [lambda index, row, cut, choices: seen.append((cut, choices[0][2].tolist()))]
    at = 0
    for size in sizes:
        layer.update(k[:, :, at : at + size], v[:, :, at : at + size])
        attend_layer(layer, q[:, :, at : at + size], D**-0.5)
        at += size
    return seen, layer.tables, q[0], k[0]


def _fold(q):
    return torch.stack([q[g * (H // K) : (g + 1) * (H // K)].sum(0) for g in range(K)])  # (K, T, D)


def _best(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def _tokens(blocks, size, cut):
    return [
        t for b in blocks for t in range(cut.initial_end + b * size, cut.initial_end + (b + 1) * size) if t < cut.local
    ]


@pytest.mark.parametrize("sizes", [[60, 30], [40, *[1] * 50]])
def test_quest_bounds_every_key_of_a_page(sizes):
    seen, tables, q, k = _chosen("quest_pages", sizes)
    for cut, chosen in seen:
        if cut.num_middle <= CONFIG.num_selected:
            assert chosen == list(range(cut.initial_end, cut.local))
            continue
        folded = _fold(tables.rotate_far(q[:, cut.current : cut.end], CONFIG.w))
        pages = [range(t, min(t + 4, cut.local)) for t in range(cut.initial_end, cut.local, 4)]
        bound = [
            [
                sum(
                    max(
                        float(folded[g, c, d] * k[g, list(p), d].min()), float(folded[g, c, d] * k[g, list(p), d].max())
                    )
                    for g in range(K)
                    for d in range(D)
                )
                for p in pages
            ]
            for c in range(cut.end - cut.current)
        ]
        scores = [round(max(row[p] - max(row) for row in bound), 9) for p in range(len(pages))]
        assert chosen == _tokens(_best(scores, 3), 4, cut)
        # The bound is one: no key of a page scores higher.
        for row, c in zip(bound, range(cut.end - cut.current), strict=True):
            for page, limit in zip(pages, row, strict=True):
                assert all(float((folded[:, c] * k[:, t]).sum()) <= limit + 1e-9 for t in page)


@pytest.mark.parametrize("sizes", [[60, 30], [40, *[1] * 50]])
def test_infllm_represents_blocks_by_their_most_wanted_keys(sizes):
    seen, tables, q, k = _chosen("infllm_blocks", sizes)
    raw = _fold(q)
    compared = 0
    for cut, chosen in seen:
        if cut.num_middle <= CONFIG.num_selected:
            continue
        folded = _fold(tables.rotate_far(q[:, cut.current : cut.end], CONFIG.w)).mean(dim=1)
        scores = []
        for low in range(cut.initial_end, cut.local, 6):
            tokens = list(range(low, min(low + 6, cut.local)))
            wanted = [
                sum(float((raw[:, m + j] * k[:, m]).sum()) for j in range(1, CONFIG.num_local + 1)) for m in tokens
            ]
            means = k[:, [tokens[i] for i in _best(wanted, 2)]].mean(dim=1)
            scores.append(float((folded * means).sum()))
        assert chosen == _tokens(_best(scores, 2), 6, cut)
        compared += 1
    assert compared


def test_sinks_and_local_choose_nothing_and_see_no_middle_token():
    seen, *_ = _chosen("sinks_local", [60, 30])
    assert all(chosen == [] for _, chosen in seen)
    q, k, v = _inputs()
    config, tables = CONFIG.replace(method="sinks_local"), RopeTables.standard(D)
    before = esa_prefill(q[:, :, -5:], k, v, config, tables)
    k[:, :, 3:75] = 7.0
    v[:, :, 3:75] = -7.0
    assert torch.equal(esa_prefill(q[:, :, -5:], k, v, config, tables), before)


def test_infllm_needs_the_queries_of_the_whole_sequence():
    q, k, v = _inputs()
    with pytest.raises(UserError, match="infllm_blocks"):
        esa_prefill(q[:, :, -5:], k, v, CONFIG.replace(method="infllm_blocks"), RopeTables.standard(D))
