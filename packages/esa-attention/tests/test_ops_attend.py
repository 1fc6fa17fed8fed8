"""Attention of a decoding step against the equations in float64 loops: interpreted on a CPU, compiled on a GPU."""

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference
from effkit.testing.kernels import SPILLED
from esa_attention.ops import attend_triton
from esa_attention.ops.attend_triton import decode_attention, decode_splits

NAN, INF = float("nan"), float("inf")
NUM_INITIAL, NUM_LOCAL, NUM_SELECTED = 4, 10, 6
SCALES = {"scale_far": 0.31, "scale_local": 0.27}
SIZES = {"num_initial": NUM_INITIAL, "num_local": NUM_LOCAL}


def _segments(start, length):
    """First middle token and first local token (section 3.2)."""
    past = max(length - 1 - start, 0)
    local = min(NUM_LOCAL, past)
    return start + min(NUM_INITIAL, past - local), start + past - local


def _rotate(x, cos, sin):
    half = cos.shape[-1]
    x_1, x_2 = x[..., :half], x[..., half : 2 * half]
    return torch.cat([x_1 * cos - x_2 * sin, x_2 * cos + x_1 * sin, x[..., 2 * half :]], dim=-1)


def _problem(starts, length, heads, kv_heads, dim, half, capacity=None, seed=0):
    """Arguments of ``decode_attention`` in float64; what it must not read is NaN, or an index out of range."""
    generator = torch.Generator().manual_seed(seed)
    batch, capacity = len(starts), capacity or length + 3
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    query_far, query_local = random(2, batch, heads, dim)
    kv = random(batch, capacity, 2, kv_heads, dim)
    angle = torch.arange(NUM_LOCAL + 1)[:, None] * 100.0 ** -torch.linspace(0, 1, half, dtype=torch.float64)
    selected = torch.full((batch, NUM_SELECTED), -1)
    count = torch.zeros(batch, dtype=torch.int32)
    for b, start in enumerate(starts):
        kv[b, :start], kv[b, length:] = NAN, NAN
        middle, local = _segments(start, length)
        count[b] = min(NUM_SELECTED - b, local - middle)
        chosen = torch.randperm(local - middle, generator=generator)[: int(count[b])]
        selected[b, : int(count[b])] = middle + chosen.sort().values
    return {
        "query_far": query_far,
        "query_local": query_local,
        "kv": kv,
        "selected": selected,
        "count": count,
        "start": torch.tensor(starts),
        "length": torch.tensor([length]),
        "cos": angle.cos(),
        "sin": angle.sin(),
    }


def _to(problem, device, dtype=None, table=None):
    """On a device; queries, keys and values in ``dtype``, tables in ``table``."""
    kinds = {"query_far": dtype, "query_local": dtype, "kv": dtype, "cos": table, "sin": table}
    return {name: t.to(device, kinds.get(name) or t.dtype) for name, t in problem.items()}


def _expected(query_far, query_local, kv, selected, count, start, length, cos, sin, scale_far=0.31, scale_local=0.27):
    """One softmax over all keys of a head, by loops, in the type of the arguments."""
    out = torch.zeros_like(query_far)
    lse = torch.full(query_far.shape[:2], -INF, dtype=query_far.dtype)
    group = query_far.shape[1] // kv.shape[3]
    for b in range(query_far.shape[0]):
        first, last = int(start[b]), int(length[0])
        middle, local = _segments(first, last)
        far = [*range(first, middle), *selected[b, : int(count[b])].tolist()]
        near = list(range(local, last))
        if not near:
            continue
        for h in range(query_far.shape[1]):
            keys = kv[b, :, 0, h // group]
            turned = _rotate(keys[near], *(t[: len(near)].to(keys.dtype) for t in (cos, sin)))
            scores = torch.cat([keys[far] @ query_far[b, h] * scale_far, turned @ query_local[b, h] * scale_local])
            out[b, h] = scores.softmax(0) @ kv[b, far + near, 1, h // group]
            lse[b, h] = scores.logsumexp(0)
    return out, lse


@pytest.mark.parametrize("splits", [1, 3, 7])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "half"),
    [(4, 4, 64, 32), (6, 2, 80, 16), (4, 1, 128, 64), (8, 1, 24, 12), (6, 2, 10, 3), (34, 2, 16, 8)],
)
def test_float64_equals_the_equations(interpreter, heads, kv_heads, dim, half, splits):
    problem = _problem([0, 9], 60, heads, kv_heads, dim, half)
    results = decode_attention(**problem, **SCALES, **SIZES, num_splits=splits)
    torch.testing.assert_close(results, _expected(**problem), rtol=0, atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 10, 11, 12, 14, 15, 16, 20, 21, 22, 30])
def test_borders_of_the_segments(interpreter, length):
    """The second row begins later, or not at all."""
    problem = _problem([0, 9], length, 4, 2, 16, 8)
    results = decode_attention(**problem, **SCALES, **SIZES, num_splits=2)
    torch.testing.assert_close(results, _expected(**problem), rtol=0, atol=1e-10)


def test_many_tiles(interpreter):
    """Far and local parts longer than a tile of keys, and shares that end inside one."""
    generator = torch.Generator().manual_seed(5)
    problem = _problem([0], 400, 2, 1, 16, 8)
    problem["selected"] = torch.randperm(380, generator=generator)[:150].sort().values[None] + NUM_INITIAL
    problem["count"] = torch.tensor([150], dtype=torch.int32)
    for splits in (1, 4):
        results = decode_attention(**problem, **SCALES, **SIZES, num_splits=splits)
        torch.testing.assert_close(results, _expected(**problem), rtol=0, atol=1e-10)


@pytest.mark.parametrize("where", ["query_far", "query_local"])
def test_large_scores(interpreter, where):
    """Scores in the thousands: either part may hold all the weight, and nothing overflows."""
    problem = _problem([0, 9], 60, 4, 2, 16, 8)
    problem[where] *= 3000
    out, lse = decode_attention(**problem, **SCALES, **SIZES, num_splits=3)
    expected, expected_lse = _expected(**problem)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(lse, expected_lse, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "half"), [(6, 2, 80, 16), (4, 1, 128, 64), (3, 3, 64, 32)])
def test_tolerance_rule(device, heads, kv_heads, dim, half, dtype):
    problem = _problem([0, 9], 60, heads, kv_heads, dim, half)
    problem = _to(problem, "cpu", dtype, torch.float32)
    reference = _expected(**_to(problem, "cpu", torch.float64, torch.float64))
    same_dtype = _expected(**problem)
    out, lse = decode_attention(**_to(problem, device), **SCALES, **SIZES)
    assert_close_to_reference(out, same_dtype[0], reference[0])
    assert_close_to_reference(lse, same_dtype[1].float(), reference[1])


def test_views_of_larger_buffers(interpreter):
    problem = _problem([0, 9], 60, 4, 2, 16, 8)
    expected = _expected(**problem)
    kv = torch.full((2, 3, 80, 2, 2, 20), NAN, dtype=torch.float64)
    kv[:, 1, :63, :, :, 2:18] = problem["kv"]
    queries = torch.full((2, 4, 2, 16), NAN, dtype=torch.float64)
    queries[:, :, 0], queries[:, :, 1] = problem["query_far"], problem["query_local"]
    selected = torch.full((2, 30), -1)
    selected[:, 3:9] = problem["selected"]
    views = {
        "kv": kv[:, 1, :, :, :, 2:18],
        "query_far": queries[:, :, 0],
        "query_local": queries[:, :, 1],
        "selected": selected[:, 3:9],
    }
    out = torch.zeros(2, 4, 24, dtype=torch.float64)[:, :, 4:20]
    results = decode_attention(**{**problem, **views}, **SCALES, **SIZES, num_splits=2, out=out)
    assert results[0] is out
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


def test_offsets_beyond_two_to_the_31(interpreter, tmp_path):
    """Tokens that lie 2^25 numbers apart, in a file that has only the pages that are written."""
    stride, tokens = 2**25, 70
    assert tokens * stride > 2**31
    problem = _to(_problem([0], tokens, 2, 1, 16, 8, tokens), "cpu", torch.float16, torch.float32)
    file = torch.from_file(str(tmp_path / "kv"), shared=True, size=tokens * stride, dtype=torch.float16)
    kv = file.view(1, tokens, stride)[:, :, :32].view(1, tokens, 2, 1, 16)
    kv.copy_(problem["kv"])
    results = decode_attention(**{**problem, "kv": kv}, **SCALES, **SIZES, num_splits=2)
    expected = decode_attention(**problem, **SCALES, **SIZES, num_splits=2)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def test_number_of_splits():
    assert decode_splits(1, 8, 6272) == 33  # 264 programs
    assert decode_splits(4, 8, 6272) == 9
    assert decode_splits(64, 8, 6272) == 1
    assert decode_splits(1, 1, 300) == 2
    assert decode_splits(1, 1, 10) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_far": torch.zeros(2, 4, 1, 16)}, r"must have the shape \(B, H, D\), got \(2, 4, 1, 16\)"),
        ({"query_local": torch.zeros(2, 5, 16)}, r"query_local must be for 2 rows and 16 dimensions .*\(2, 5, 1, 16\)"),
        ({"kv": torch.zeros(2, 30, 3, 2, 16)}, r"kv must be .*\(B, capacity, 2, K, D\).*got .*\(2, 30, 3, 2, 16\)"),
        ({"kv": torch.zeros(2, 30, 2, 3, 16)}, "kv must have heads that divide the 4 of the queries, got 3"),
        ({"selected": torch.zeros(2, 6)}, r"selected must be int64 of shape \(2, 'k'\), got torch.float32"),
        ({"count": torch.zeros(2).long()}, r"count must be int32 of shape \(2,\), got torch.int64"),
        ({"cos": torch.zeros(11, 9)}, r"cos and sin must have the shape .*at most 16, got \(11, 9\) and \(11, 8\)"),
        ({"cos": torch.zeros(5, 8), "sin": torch.zeros(5, 8)}, "cos and sin must hold 11 positions, got 5"),
        ({"sin": torch.zeros(11, 8)}, "cos and sin must be of one type"),
        (
            {"out": torch.zeros(2, 4, 16)},
            r"out must be torch.float64 of shape \(2, 4, 16\) on 'cpu'.*got torch.float32",
        ),
        ({"num_splits": 0}, "num_splits must be at least 1, got 0"),
        ({"num_initial": -1}, "num_initial must be at least 0, got -1"),
    ],
)
def test_mistakes_are_named(interpreter, change, message):
    with pytest.raises(UserError, match=message):
        decode_attention(**{**_problem([0, 9], 30, 4, 2, 16, 8), **SCALES, **SIZES, **change})


@pytest.mark.parametrize(
    ("kind", "dim", "half", "group"),
    [
        ("bf16", 128, 64, 4),
        *(
            pytest.param(*variant, marks=pytest.mark.slow)
            for variant in [("bf16", 64, 32, 1), ("bf16", 80, 16, 8), ("bf16", 256, 128, 2), ("fp32", 128, 64, 4)]
        ),
    ],
)
def test_compiles_for_hopper(compile_kernel, kind, dim, half, group):
    """The real compiler needs no GPU: no spills, and room for at least two programs on a processor."""
    padded = lambda n: max(1 << (n - 1).bit_length(), 16) if n else 0
    types = dict.fromkeys(("far_ptr", "local_ptr", "kv_ptr"), f"*{kind}")
    types |= {"selected_ptr": "*i64", "count_ptr": "*i32", "start_ptr": "*i64", "length_ptr": "*i64"}
    types |= {"out_ptr": f"*{kind}", "finished_ptr": "*i32"}
    tile = attend_triton._tile(padded(dim), kind == "bf16")
    warps, stages = tile.pop("warps"), tile.pop("stages")
    fixed = {
        **tile,
        "SPLITS": 64,
        "GROUP": group,
        "ROWS": 16,
        "DIM": dim,
        "DIM_PADDED": padded(dim),
        "HALF": half,
        "HALF_PADDED": padded(half),
        "REST_PADDED": padded(dim - 2 * half),
        "DOT": kind,
        "ACC": "fp32",
        "PRECISION": "ieee",
        "EMULATE_BF16": False,
    }
    usage = compile_kernel("attend_kernel", "decode_attention_kernel", types, fixed, warps=warps, stages=stages)
    assert usage.stack <= SPILLED
    assert usage.registers * 32 * warps <= 65536 // 2
    assert usage.shared <= 227 * 1024 // 2
    assert ("mma.sync" in usage.assembly) == (kind == "bf16")
    assert ("cp.async" in usage.assembly) == (kind == "bf16")


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "splits", "warps"), [(128, 64, 4), (256, 128, 16)])
def test_merge_compiles_for_hopper(compile_kernel, dim, splits, warps):
    fixed = {"DIM": dim, "DIM_PADDED": dim, "SPLITS": splits}
    assert compile_kernel("attend_kernel", "merge_kernel", {"out_ptr": "*bf16"}, fixed, warps=warps).stack <= SPILLED


@pytest.mark.gpu
def test_replays_in_a_cuda_graph_while_the_sequence_grows():
    problem = _to(_problem([0, 9], 200, 8, 2, 128, 64), "cuda", torch.bfloat16, torch.float32)
    call = lambda: decode_attention(**problem, **SCALES, **SIZES)
    call()  # compiles outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    for length in (5, 12, 100, 200):
        new = _problem([0, 9], length, 8, 2, 128, 64, capacity=203, seed=length)
        for name, tensor in problem.items():
            tensor.copy_(new[name])
        graph.replay()
        now = _to(problem, "cpu")
        reference = _expected(**_to(now, "cpu", torch.float64, torch.float64))
        assert_close_to_reference(results[0], _expected(**now)[0], reference[0])
