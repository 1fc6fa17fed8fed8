"""The engine on the Triton kernels against the written-out reference: interpreted on a CPU, compiled on a GPU."""

import itertools

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.reference import esa_reference

CONFIG = ESAConfig(num_initial=3, num_selected=7, num_local=10, chunk_size=6, proximity=1, backend="triton")


def _randn(*shape, seed=0, dtype=torch.float32, device="cpu"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device=device, dtype=dtype)


def _compressor(rank=4, kv_heads=2, dim=16):
    weights = [_randn(rank, kv_heads * dim, seed=s) for s in (3, 4)]
    return QKCompressor(kv_heads, dim, *weights)


def _run(config, q, k, v, sizes, compressor, tables, starts=None):
    layer = ESALayer(config, compressor, tables)
    outs, at = [], k.shape[2] - sum(sizes)
    layer.update(k[:, :, :at], v[:, :, :at])  # cached before, and not looked from
    for size in sizes:
        layer.update(k[:, :, at : at + size], v[:, :, at : at + size])
        rows = None if starts is None or max(starts) == 0 else starts
        outs.append(attend_layer(layer, q[:, :, at : at + size], q.shape[3] ** -0.5, rows))
        at += size
    return torch.cat(outs, dim=2)


def _reference(config, q, k, v, sizes, compressor, tables, starts=None):
    outs, at = [], k.shape[2] - sum(sizes)
    for size in sizes:
        end = at + size
        part = (q[:, :, at:end].cpu(), k[:, :, :end].cpu(), v[:, :, :end].cpu())
        outs.append(esa_reference(*part, config, tables, compressor, start=starts))
        at = end
    return torch.cat(outs, dim=2)


# Every value of each in a quick case; all combinations are slow ones.
QUICK = (
    (False, "paper", None),
    (True, "paper", (0, 5)),
    (False, "strict_causal", (0, 22)),
    (True, "strict_causal", None),
)
EVERY = tuple(itertools.product((False, True), ("paper", "strict_causal"), (None, (0, 5), (0, 22))))


@pytest.mark.parametrize(
    ("exact", "selection", "starts"),
    [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in EVERY],
)
def test_prefill_and_decode_are_the_reference(device, exact, selection, starts):
    q, k, v = (_randn(2, h, 46, 16, seed=s, device=device) for s, h in ((0, 4), (1, 2), (2, 2)))
    compressor = QKCompressor.exact(2, 16) if exact else _compressor()
    tables = RopeTables.standard(16, rotary_dim=12)
    config = CONFIG.replace(selection=selection)
    # Each token is a row of a batch under strict selection, which takes the interpreter as long as a chunk.
    sizes = [19, 21, 1, 1, 4] if selection == "paper" else [4, 1, 3]
    starts = None if starts is None else list(starts)
    ours = _run(config, q, k, v, sizes, compressor, tables, starts)
    naive = _reference(config, q, k, v, sizes, compressor, tables, starts)
    torch.testing.assert_close(ours.cpu().double(), naive, rtol=0, atol=2e-5)


class _Scaled(torch.nn.Module):
    """A rotary module with a factor in its tables, as YaRN has one."""

    rope_type = "yarn"

    def forward(self, x, position_ids):
        angles = position_ids[..., None].float() / 10 ** (torch.arange(6, device=x.device) / 3)
        angles = torch.cat((angles, angles), dim=-1)
        return 1.3 * angles.cos(), 1.3 * angles.sin()


def test_scaled_tables_and_a_query_map_over_all_heads(device):
    q, k, v = (_randn(2, h, 46, 16, seed=s, device=device) for s, h in ((0, 4), (1, 2), (2, 2)))
    weights = [_randn(4, 64, seed=s) for s in (3, 4)]
    compressor = QKCompressor.from_unfolded(*weights, num_heads=4, num_kv_heads=2)
    tables = RopeTables(_Scaled())
    assert tables.attention_scaling == pytest.approx(1.3)
    ours = _run(CONFIG, q, k, v, [40, 1, 5], compressor, tables, [0, 5])
    naive = _reference(CONFIG, q, k, v, [40, 1, 5], compressor, tables, [0, 5])
    torch.testing.assert_close(ours.cpu().double(), naive, rtol=0, atol=2e-5)


def test_bfloat16_is_within_the_tolerance_rule(device):
    q, k, v = (_randn(1, h, 46, 16, seed=s, dtype=torch.bfloat16, device=device) for s, h in ((0, 4), (1, 2), (2, 2)))
    tables = RopeTables.standard(16)
    # Everything is selected: what is compared is arithmetic, and no choice between nearly equal scores.
    config = CONFIG.replace(num_selected=100)
    exact = _reference(config, q, k, v, [40, 6], None, tables)
    plain = _run(config.replace(backend="torch"), q.cpu(), k.cpu(), v.cpu(), [40, 6], QKCompressor.exact(2, 16), tables)
    ours = _run(config, q, k, v, [40, 6], QKCompressor.exact(2, 16), tables)
    assert_close_to_reference(ours.cpu(), plain, exact)


def test_int8_index_chooses_like_the_torch_path(device):
    q, k, v = (_randn(1, h, 62, 16, seed=s, device=device) for s, h in ((0, 4), (1, 2), (2, 2)))
    tables, chosen = RopeTables.standard(16), {}
    for backend in ("triton", "torch"):
        layer = ESALayer(CONFIG.replace(index_dtype="int8", backend=backend), _compressor(16), tables)
        seen = chosen[backend] = []
        layer.watchers = [lambda i, row, cut, choices, seen=seen: seen.append([c[2].tolist() for c in choices])]
        layer.update(k[:, :, :58], v[:, :, :58])
        for at in range(58, 62):
            layer.update(k[:, :, at : at + 1], v[:, :, at : at + 1])
            attend_layer(layer, q[:, :, at : at + 1], 0.25)
    assert len(chosen["triton"]) == 4
    same = [len(set(a[0]) & set(b[0])) for a, b in zip(chosen["triton"], chosen["torch"], strict=True)]
    assert sum(same) >= 4 * 7 - 2  # the torch path rounds the query too


def test_watchers_see_the_same_as_on_the_torch_path(device):
    q, k, v = (_randn(2, h, 40, 16, seed=s, device=device) for s, h in ((0, 4), (1, 2), (2, 2)))
    seen: dict[str, list] = {}
    for backend in ("triton", "torch"):
        layer = ESALayer(CONFIG.replace(backend=backend), _compressor(), RopeTables.standard(16))
        rows = seen[backend] = []
        layer.watchers = [
            lambda i, row, cut, choices, rows=rows: rows.append((row, cut, [(a, b, c.tolist()) for a, b, c in choices]))
        ]
        layer.update(k, v)
        attend_layer(layer, q, 0.25, [0, 9])
    assert sorted(seen["triton"]) == sorted(seen["torch"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "quest_pages"}, "quest_pages"),
        ({"selection": "rerank"}, "rerank"),
        ({"offload": True}, "offload"),
        ({"proximity": 100}, "100"),
    ],
)
def test_asked_for_by_name_it_runs_or_says_why_not(changes, words, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    layer = ESALayer(CONFIG.replace(**changes), QKCompressor.exact(2, 16), RopeTables.standard(16))
    layer.update(_randn(1, 2, 8, 16), _randn(1, 2, 8, 16))
    with pytest.raises(UserError, match=words):
        attend_layer(layer, _randn(1, 4, 8, 16), 0.25)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    layer = ESALayer(CONFIG, QKCompressor.exact(2, 16), RopeTables.standard(16))
    layer.update(_randn(1, 2, 8, 16), _randn(1, 2, 8, 16))
    with pytest.raises(UserError, match="CUDA"):
        attend_layer(layer, _randn(1, 4, 8, 16), 0.25)
