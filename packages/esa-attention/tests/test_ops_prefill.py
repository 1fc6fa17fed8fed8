"""Scores and attention of a chunk against the equations in float64: interpreted on a CPU, compiled on a GPU."""

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference
from effkit.testing.kernels import SPILLED
from esa_attention.ops import chunk_attend_triton, prefill_triton
from esa_attention.ops.attend_triton import prefill_attention
from esa_attention.ops.prefill_triton import chunk_scores

NAN, INF = float("nan"), float("inf")
NUM_INITIAL, NUM_LOCAL, NUM_SELECTED = 4, 10, 6
SCALES = {"scale_far": 0.31, "scale_local": 0.27}
SIZES = {"num_initial": NUM_INITIAL, "num_local": NUM_LOCAL}


def _segments(start, length, new_tokens):
    """First middle token and first local token (section 3.2)."""
    past = max(length - new_tokens - start, 0)
    local = min(NUM_LOCAL, past)
    return start + min(NUM_INITIAL, past - local), start + past - local


# Scores of a chunk.


def _score_problem(starts, length, tokens, rank, capacity, seed=0):
    """Index and queries; what the kernels must not read is NaN."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randn(len(starts), capacity, rank, generator=generator, dtype=torch.float64)
    query = torch.randn(len(starts), tokens, rank, generator=generator, dtype=torch.float64)
    for b, start in enumerate(starts):
        low, high = _segments(start, length, tokens)
        index[b, :low], index[b, high:] = NAN, NAN
        query[b, : max(start - (length - tokens), 0)] = NAN
    return index, query


def _expected_scores(index, query, starts, length, tokens, block, proximity, first_new=0):
    """Eqs. 4 and 8 by loops, in the type of the arguments."""
    batch, capacity = index.shape[:2]
    blocks = -(-query.shape[1] // block)
    own = torch.full((batch, blocks, capacity), -INF, dtype=index.dtype)
    dilated = own.clone()
    for b, start in enumerate(starts):
        low, high = _segments(start, length, tokens)
        for n in range(blocks):
            for t in range(n * block, min((n + 1) * block, query.shape[1])):
                if low < high and length - tokens + first_new + t >= start:
                    scores = index[b, low:high] @ query[b, t]
                    own[b, n, low:high] = torch.maximum(own[b, n, low:high], scores - scores.max())
            for j in range(low, high):
                dilated[b, n, j] = own[b, n, max(j - proximity, low) : min(j + proximity + 1, high)].max()
    return own, dilated


def _run_scores(index, scale, query, starts, length, proximity, blocks=1, dtype=torch.float32, **options):
    own = torch.full((index.shape[0], blocks, index.shape[1]), 7.0, dtype=dtype, device=index.device)
    dilated = own.clone()
    start = torch.tensor(starts, device=index.device)
    total = torch.tensor([length], device=index.device)
    given = {"proximity": proximity, "own": own, "dilated": dilated, **options}
    chunk_scores(index, scale, query, start, total, **SIZES, **given)
    return own, dilated


@pytest.mark.parametrize("proximity", [0, 3])
@pytest.mark.parametrize(("rank", "tokens", "block"), [(16, 40, 40), (33, 7, 3), (128, 6, 1), (200, 50, 20)])
def test_scores_in_float64(interpreter, rank, tokens, block, proximity):
    starts, length = [0, 9], 161
    index, query = _score_problem(starts, length, tokens, rank, 170)
    expected = _expected_scores(index, query, starts, length, tokens, block, proximity)
    blocks = -(-tokens // block)
    results = _run_scores(index, None, query, starts, length, proximity, blocks, torch.float64, selection_block=block)
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("length", [20, 29, 30, 33, 34, 35, 36, 43, 44, 45, 60])
def test_scores_at_the_borders_of_the_segments(interpreter, length):
    """A chunk of 20 tokens, in the second row partly padding for the first two lengths."""
    index, query = _score_problem([0, 9], length, 20, 16, 70)
    expected = _expected_scores(index, query, [0, 9], length, 20, 20, 2)
    results = _run_scores(index, None, query, [0, 9], length, 2, 1, torch.float64)
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


def test_scores_of_a_part_of_the_chunk(interpreter):
    """Queries 6 to 15 of a chunk of 20: the middle ends where it ends for the chunk."""
    index, query = _score_problem([0, 9], 100, 20, 16, 110)
    expected = _expected_scores(index, query[:, 6:16], [0, 9], 100, 20, 4, 1, first_new=6)
    results = _run_scores(
        *(index, None, query[:, 6:16], [0, 9], 100, 1, 3, torch.float64),
        **{"new_tokens": 20, "first_new": 6, "selection_block": 4},
    )
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_score_types(device, kind):
    starts, length = [0, 9], 161
    index, query = _score_problem(starts, length, 40, 128, 170)
    index, query = index.to(kind), query.to(kind)
    expected = _expected_scores(index.double(), query.double(), starts, length, 40, 40, 3)
    same_dtype = _expected_scores(index, query, starts, length, 40, 40, 3)
    results = _run_scores(index.to(device), None, query.to(device), starts, length, 3)
    assert_close_to_reference(results, tuple(t.float() for t in same_dtype), expected)


def test_int8_index(device):
    """Products in bfloat16, which holds 8-bit keys exactly."""
    starts, length = [0, 9], 161
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(-127, 128, (2, 170, 64), dtype=torch.int8, generator=generator)
    scale = 0.1 + torch.rand(2, 170, generator=generator)
    query = torch.randn(2, 30, 64, generator=generator).bfloat16()
    exact = index.double() * scale.double()[..., None]
    expected = _expected_scores(exact, query.double(), starts, length, 30, 30, 1)
    same_dtype = _expected_scores(exact.bfloat16(), query, starts, length, 30, 30, 1)
    results = _run_scores(index.to(device), scale.to(device), query.to(device), starts, length, 1)
    assert_close_to_reference(results, tuple(t.float() for t in same_dtype), expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("rank", "block"), [(64, 5), (200, 2)])
def test_the_best_token_of_every_query_gets_exactly_zero(device, kind, rank, block):
    """Max F = 0 and F <= 0 (section 3.3) without rounding noise, which would decide ties: both passes round alike."""
    index, query = _score_problem([0], 361, 10, rank, 370)
    scale = None
    if kind == torch.int8:
        index, scale = (index.nan_to_num() * 30).clamp(-127, 127), index[:, :, 0].abs().float().to(device)
    blocks = 10 // block
    index, query = index.to(kind).to(device), query.float().to(device)
    own, _ = _run_scores(index, scale, query, [0], 361, 0, blocks, selection_block=block)
    assert (own.amax(dim=-1) == 0).all()
    assert (own == 0).sum() <= 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_index": torch.zeros(2, 16)}, r"query_index must have the shape \(B, T, R\), got \(2, 16\)"),
        ({"query_index": torch.zeros(2, 5, 8)}, r"query_index must have the shape \(2, 5, 16\), got \(2, 5, 8\)"),
        ({"selection_block": 0}, "selection_block must be at least 1, got 0"),
        ({"selection_block": 2}, r"own must be float32 of shape \(2, 3, 50\)"),
        ({"first_new": 1}, r"new_tokens must be at least first_new \+ T = 6, got 5"),
        ({"proximity": 33}, "proximity must be at most 32, got 33"),
    ],
)
def test_mistakes_with_scores_are_named(interpreter, change, message):
    arguments = {
        "index": torch.zeros(2, 50, 16),
        "index_scale": None,
        "query_index": torch.zeros(2, 5, 16),
        "start": torch.zeros(2).long(),
        "length": torch.tensor([50]),
        "proximity": 1,
        "own": torch.zeros(2, 50),
        "dilated": torch.zeros(2, 50),
    }
    with pytest.raises(UserError, match=message):
        chunk_scores(**{**arguments, **SIZES, **change})


# Attention of a chunk.


def _rotate(x, cos, sin):
    half = cos.shape[-1]
    x_1, x_2 = x[..., :half], x[..., half : 2 * half]
    return torch.cat([x_1 * cos - x_2 * sin, x_2 * cos + x_1 * sin, x[..., 2 * half :]], dim=-1)


def _problem(starts, length, tokens, heads, kv_heads, dim, half, block=None, capacity=None, seed=0):
    """Arguments of ``prefill_attention`` in float64; what it must not read is NaN, or an index out of range."""
    generator = torch.Generator().manual_seed(seed)
    batch, capacity, blocks = len(starts), capacity or length + 3, -(-tokens // (block or tokens))
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    query_far, query_local = random(2, batch, heads, tokens, dim)
    kv = random(batch, capacity, 2, kv_heads, dim)
    angle = torch.arange(NUM_LOCAL + tokens)[:, None] * 100.0 ** -torch.linspace(0, 1, half, dtype=torch.float64)
    selected = torch.full((batch, blocks, NUM_SELECTED), -1)
    count = torch.zeros(batch, blocks, dtype=torch.int32)
    for b, start in enumerate(starts):
        kv[b, :start], kv[b, length:] = NAN, NAN
        padding = max(start - (length - tokens), 0)
        query_far[b, :, :padding], query_local[b, :, :padding] = NAN, NAN
        middle, local = _segments(start, length, tokens)
        for n in range(blocks):
            count[b, n] = number = min(NUM_SELECTED - n % 3, local - middle)
            chosen = torch.randperm(local - middle, generator=generator)[:number]
            selected[b, n, :number] = middle + chosen.sort().values
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


def _expected(query_far, query_local, kv, selected, count, start, length, cos, sin, block=None):
    """One softmax over all keys that each query sees, by loops, in the type of the arguments."""
    out = torch.zeros_like(query_far)
    lse = torch.full(query_far.shape[:3], -INF, dtype=query_far.dtype)
    heads, tokens = query_far.shape[1:3]
    group, block = heads // kv.shape[3], block or tokens
    for b in range(query_far.shape[0]):
        first, last = int(start[b]), int(length[0])
        middle, local = _segments(first, last, tokens)
        near = list(range(local, last))
        turned = _rotate(kv[b, near, 0], *(t[: len(near), None].to(kv.dtype) for t in (cos, sin)))
        for t in range(max(first - (last - tokens), 0), tokens):
            far = [*range(first, middle), *selected[b, t // block, : int(count[b, t // block])].tolist()]
            seen = last - tokens + t + 1 - local
            for h in range(heads):
                scores = torch.cat(
                    [
                        kv[b, far, 0, h // group] @ query_far[b, h, t] * SCALES["scale_far"],
                        turned[:seen, h // group] @ query_local[b, h, t] * SCALES["scale_local"],
                    ]
                )
                out[b, h, t] = scores.softmax(0) @ kv[b, far + near[:seen], 1, h // group]
                lse[b, h, t] = scores.logsumexp(0)
    return out, lse


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "half", "tokens", "block"),
    [
        (4, 4, 64, 32, 5, None),
        (6, 2, 80, 16, 7, 3),
        (4, 1, 128, 64, 20, None),
        (8, 1, 24, 12, 6, 1),
        (3, 1, 10, 3, 50, 16),
        (2, 2, 16, 8, 1, None),
    ],
)
def test_attention_in_float64(interpreter, heads, kv_heads, dim, half, tokens, block):
    problem = _problem([0, 9], 90, tokens, heads, kv_heads, dim, half, block)
    results = prefill_attention(**problem, **SCALES, **SIZES, selection_block=block)
    torch.testing.assert_close(results, _expected(**problem, block=block), rtol=0, atol=1e-10)


@pytest.mark.parametrize("length", [12, 13, 21, 22, 23, 26, 27, 31, 32, 36, 60])
def test_attention_at_the_borders_of_the_segments(interpreter, length):
    """A chunk of 12 tokens; the second row begins inside it, with it, or before it."""
    problem = _problem([0, 10], length, 12, 2, 1, 16, 8)
    out, lse = prefill_attention(**problem, **SCALES, **SIZES)
    torch.testing.assert_close((out, lse), _expected(**problem), rtol=0, atol=1e-10)
    padding = max(10 - (length - 12), 0)
    assert (out[1, :, :padding] == 0).all()
    assert (lse[1, :, :padding] == -INF).all()


def test_rows_without_tokens(interpreter):
    problem = _problem([0, 30], 20, 12, 2, 1, 16, 8)
    torch.testing.assert_close(
        prefill_attention(**problem, **SCALES, **SIZES), _expected(**problem), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("sizes", [(70, 100), (40, 33)])
def test_many_tiles_of_keys(interpreter, monkeypatch, sizes):
    """Far list and window longer than a tile of 16 keys, with tiles that need no mask."""
    tile = {"ROWS": 16, "KEYS": 16, "warps": 4, "stages": 1}
    monkeypatch.setattr(chunk_attend_triton, "_tile", lambda *_: tile)
    monkeypatch.setitem(globals(), "NUM_LOCAL", sizes[0])
    monkeypatch.setitem(globals(), "NUM_SELECTED", sizes[1])
    problem = _problem([0, 9], 250, 21, 2, 1, 16, 8)
    results = prefill_attention(**problem, **SCALES, num_initial=NUM_INITIAL, num_local=sizes[0])
    torch.testing.assert_close(results, _expected(**problem), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "half"), [(6, 2, 80, 16), (4, 1, 128, 64)])
def test_tolerance_rule(device, heads, kv_heads, dim, half, dtype):
    problem = _to(_problem([0, 9], 90, 20, heads, kv_heads, dim, half), "cpu", dtype, torch.float32)
    reference = _expected(**_to(problem, "cpu", torch.float64, torch.float64))
    same_dtype = _expected(**problem)
    out, lse = prefill_attention(**_to(problem, device), **SCALES, **SIZES)
    assert_close_to_reference(out, same_dtype[0], reference[0])
    assert_close_to_reference(lse, same_dtype[1].float(), reference[1])


def test_views_scratch_and_results_of_the_caller(interpreter):
    problem = _problem([0, 9], 60, 12, 4, 2, 16, 8, block=5)
    expected = _expected(**problem, block=5)
    kv = torch.full((2, 3, 80, 2, 2, 20), NAN, dtype=torch.float64)
    kv[:, 1, :63, :, :, 2:18] = problem["kv"]
    views = {
        "kv": kv[:, 1, :, :, :, 2:18],
        "query_far": problem["query_far"].transpose(1, 2).contiguous().transpose(1, 2),
        "selected": problem["selected"].transpose(0, 1).contiguous().transpose(0, 1),
        "count": problem["count"].T.contiguous().T,
    }
    out = torch.full((2, 12, 4, 16), NAN, dtype=torch.float64).transpose(1, 2)
    rotated = torch.full((2, NUM_LOCAL + 12, 2, 16), NAN, dtype=torch.float64)
    results = prefill_attention(**{**problem, **views}, **SCALES, **SIZES, selection_block=5, out=out, rotated=rotated)
    assert results[0] is out
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


def test_offsets_beyond_two_to_the_31(interpreter, tmp_path):
    """Tokens that lie 2^25 numbers apart, in a file that has only the pages that are written."""
    stride, tokens = 2**25, 70
    assert tokens * stride > 2**31
    problem = _to(_problem([0], tokens, 4, 2, 1, 16, 8, capacity=tokens), "cpu", torch.float16, torch.float32)
    file = torch.from_file(str(tmp_path / "kv"), shared=True, size=tokens * stride, dtype=torch.float16)
    kv = file.view(1, tokens, stride)[:, :, :32].view(1, tokens, 2, 1, 16)
    kv.copy_(problem["kv"])
    results = prefill_attention(**{**problem, "kv": kv}, **SCALES, **SIZES)
    expected = prefill_attention(**problem, **SCALES, **SIZES)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_far": torch.zeros(2, 4, 16)}, r"query_far must have the shape \(B, H, T, D\), got \(2, 4, 16\)"),
        ({"selection_block": 0}, "selection_block must be at least 1, got 0"),
        ({"selection_block": 4}, r"selected must be int64 of shape \(2, 3, 'k'\), got"),
        ({"rotated": torch.zeros(2, 22, 2, 16)}, r"rotated must be contiguous torch.float64 of shape \(2, 22, 2, 16\)"),
        ({"out": torch.zeros(2, 4, 16)}, r"out must be torch.float64 of shape \(2, 4, 12, 16\)"),
    ],
)
def test_mistakes_with_attention_are_named(interpreter, change, message):
    problem = _problem([0, 9], 60, 12, 4, 2, 16, 8)
    with pytest.raises(UserError, match=message):
        prefill_attention(**{**problem, **SCALES, **SIZES, **change})


# Compiled code.


PRODUCTS = {"ACC": "fp32", "PRECISION": "ieee", "EMULATE_BF16": False}


@pytest.mark.parametrize(
    ("name", "kind", "rank"),
    [
        ("row_max", "bf16", 128),
        *(
            pytest.param(*variant, marks=pytest.mark.slow)
            for variant in [
                ("chunk_scores", "bf16", 128),
                ("row_max", "i8", 128),
                ("chunk_scores", "i8", 128),
                ("row_max", "fp32", 128),
                ("chunk_scores", "fp32", 128),
                ("chunk_scores", "bf16", 1024),
            ]
        ),
    ],
)
def test_scores_compile_for_hopper(compile_kernel, name, kind, rank):
    """Scores of 512 queries are warp-group products without spills."""
    queries, tokens, warps, stages = prefill_triton._tile(512, rank > 128, kind != "fp32")
    types = {"index_ptr": f"*{kind}", "query_ptr": "*fp32" if kind == "fp32" else "*bf16"}
    types |= {"start_ptr": "*i64", "length_ptr": "*i64", "best_ptr": "*u32"}
    fixed = {"RANK": rank, "PART": 128, "QUERIES": queries, "TOKENS": tokens, **PRODUCTS}
    fixed |= {"DOT": "fp32" if kind == "fp32" else "bf16"} | ({} if kind == "i8" else {"scale_ptr": None})
    options = {"warps": warps, "stages": stages, "fuse": False}
    usage = compile_kernel("prefill_kernel", f"{name}_kernel", types, fixed, **options)
    assert usage.stack <= SPILLED
    assert usage.shared <= 227 * 1024
    assert ("wgmma" in usage.assembly) == (kind != "fp32")


@pytest.mark.parametrize(
    ("kind", "dim", "group", "rows"),
    [
        ("bf16", 128, 4, 2048),
        *(
            pytest.param(*variant, marks=pytest.mark.slow)
            for variant in [
                ("bf16", 64, 1, 512),
                ("bf16", 80, 3, 1536),
                ("bf16", 256, 2, 1024),
                ("bf16", 128, 4, 4),
                ("fp32", 128, 4, 2048),
            ]
        ),
    ],
)
def test_attention_compiles_for_hopper(compile_kernel, kind, dim, group, rows):
    """Attention uses warp-group products where there are 64 rows, prefetches its keys and does not spill."""
    padded = max(1 << (dim - 1).bit_length(), 16)
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    tile = chunk_attend_triton._tile(rows, group, padded, dtype, kind == "bf16")
    warps, stages = tile.pop("warps"), tile.pop("stages")
    types = dict.fromkeys(("far_ptr", "local_ptr", "kv_ptr", "rotated_ptr", "out_ptr"), f"*{kind}")
    types |= {"selected_ptr": "*i64", "count_ptr": "*i32", "start_ptr": "*i64", "length_ptr": "*i64"}
    fixed = {**tile, "GROUP": group, "DIM": dim, "DIM_PADDED": padded, "DOT": kind, **PRODUCTS}
    usage = compile_kernel("chunk_attend_kernel", "chunk_attention_kernel", types, fixed, warps=warps, stages=stages)
    assert usage.stack <= SPILLED
    assert usage.shared <= 227 * 1024
    assert ("wgmma" in usage.assembly) == (kind == "bf16" and rows >= 64)
    assert ("cp.async" in usage.assembly) == (kind == "bf16")


@pytest.mark.slow
def test_rotation_and_max_filter_compile_for_hopper(compile_kernel):
    types = {"kv_ptr": "*bf16", "rotated_ptr": "*bf16", "start_ptr": "*i64", "length_ptr": "*i64"}
    fixed = {"DIM": 128, "HALF": 64, "HALF_PADDED": 64, "REST_PADDED": 0, "TOKENS": chunk_attend_triton._ROTATE_TOKENS}
    fixed |= {"DOT": "bf16", "ACC": "fp32", "EMULATE_BF16": False}
    assert compile_kernel("chunk_attend_kernel", "rotate_kernel", types, fixed).stack <= SPILLED
    types = {"start_ptr": "*i64", "length_ptr": "*i64", "histogram_ptr": "*i32"}
    fixed = {"EPS": 3, "TOKENS": prefill_triton._DILATE_TOKENS, "BITS": 12}
    assert compile_kernel("prefill_kernel", "dilate_kernel", types, fixed, warps=8).stack <= SPILLED


@pytest.mark.gpu
def test_replays_in_a_cuda_graph_while_the_sequence_grows():
    problem = _to(_problem([0, 9], 300, 32, 8, 2, 128, 64), "cuda", torch.bfloat16, torch.float32)
    index, query = (t.nan_to_num(0.5).cuda() for t in _score_problem([0, 9], 300, 32, 128, 303))
    index, query = index.float(), query.float()
    own, dilated = torch.empty(2, 2, 303, device="cuda")
    start, length = problem["start"], problem["length"]

    def call():
        chunk_scores(index, None, query, start, length, **SIZES, proximity=2, own=own, dilated=dilated)
        return prefill_attention(**problem, **SCALES, **SIZES)

    call()  # compiles outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    for tokens in (32, 50, 100, 300):
        new = _problem([0, 9], tokens, 32, 8, 2, 128, 64, capacity=303, seed=tokens)
        for name, tensor in problem.items():
            tensor.copy_(new[name])
        graph.replay()
        now = _to(problem, "cpu")
        reference = _expected(**_to(now, "cpu", torch.float64, torch.float64))
        assert_close_to_reference(results[0], _expected(**now)[0], reference[0])
        expected = _expected_scores(index.cpu().double(), query.cpu().double(), [0, 9], tokens, 32, 32, 2)
        for result, exact in zip((own, dilated), expected, strict=True):
            torch.testing.assert_close(result.cpu(), exact[:, 0].float(), rtol=1e-4, atol=1e-4)
