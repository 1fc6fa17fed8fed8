"""Scores of a decoding step against Eqs. 3 and 8 spelled out: interpreted on a CPU, compiled on a GPU."""

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference
from effkit.testing.kernels import SPILLED, needs_triton
from esa_attention.ops import score_triton
from esa_attention.ops.score_triton import decode_scores
from esa_attention.ops.select_triton import digit_bits, select_scratch

NAN, INF = float("nan"), float("inf")
NUM_INITIAL, NUM_LOCAL = 5, 20


def _middle(start, length):
    """Borders of the middle (section 3.2) for one new token."""
    past = max(length - 1 - start, 0)
    local = min(NUM_LOCAL, past)
    return start + min(NUM_INITIAL, past - local), start + past - local


def _expected(index, query, starts, length, proximity):
    """Own and dilated scores by loops, float64."""
    batch, capacity = index.shape[:2]
    own = torch.full((batch, capacity), -INF, dtype=torch.float64)
    dilated = own.clone()
    for b in range(batch):
        low, high = _middle(starts[b], length)
        for j in range(low, high):
            own[b, j] = (index[b, j].double() * query[b].double()).sum()
        for j in range(low, high):
            dilated[b, j] = own[b, max(j - proximity, low) : min(j + proximity + 1, high)].max()
    return own, dilated


def _problem(batch, capacity, rank, starts, length, seed=0):
    """Index and queries; what the kernel must not read is NaN."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randn(batch, capacity, rank, generator=generator, dtype=torch.float64)
    query = torch.randn(batch, rank, generator=generator, dtype=torch.float64)
    for b in range(batch):
        low, high = _middle(starts[b], length)
        index[b, :low], index[b, high:] = NAN, NAN
    return index, query


def _run(index, scale, query, starts, length, proximity, device="cpu", dtype=torch.float32, **options):
    own = torch.full(index.shape[:2], 7.0, dtype=dtype, device=device)
    dilated = own.clone()
    decode_scores(
        index,
        scale,
        query,
        torch.tensor(starts, device=device),
        torch.tensor([length], device=device),
        num_initial=NUM_INITIAL,
        num_local=NUM_LOCAL,
        proximity=proximity,
        own=own,
        dilated=dilated,
        **options,
    )
    return own, dilated


@pytest.mark.parametrize("proximity", [0, 1, 3, 5])
@pytest.mark.parametrize("rank", [16, 33, 128, 200])
def test_float64_equals_the_equations(interpreter, rank, proximity):
    starts, length = [0, 9], 561
    index, query = _problem(2, 600, rank, starts, length)
    expected = _expected(index, query, starts, length, proximity)
    results = _run(index, None, query, starts, length, proximity, dtype=torch.float64)
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 20, 21, 22, 25, 26, 27, 28, 34, 35, 36, 250, 272, 273, 274, 300])
def test_borders_of_the_segments(interpreter, length):
    starts = [0, 9]
    index, query = _problem(2, 300, 16, starts, length)
    expected = _expected(index, query, starts, length, 3)
    results = _run(index, None, query, starts, length, 3, dtype=torch.float64)
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


def test_wider_window_than_middle(interpreter):
    index, query = _problem(1, 60, 16, [0], 30)
    expected = _expected(index, query, [0], 30, score_triton.MAX_PROXIMITY)
    results = _run(index, None, query, [0], 30, score_triton.MAX_PROXIMITY, dtype=torch.float64)
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rank", [33, 128])
def test_index_types(device, kind, rank):
    """The query stays in float32: as exact as torch's float32 product with the same stored keys."""
    starts, length = [0, 9], 561
    index, query = _problem(2, 600, rank, starts, length)
    index, query = index.to(kind), query.float()
    expected = _expected(index, query, starts, length, 3)
    plain = torch.einsum("bjr,br->bj", index.float(), query)
    same_own = torch.where(expected[0].isinf(), expected[0].float(), plain)
    same_dilated = torch.nn.functional.max_pool1d(same_own, 7, 1, 3)
    same_dilated = torch.where(expected[1].isinf(), expected[1].float(), same_dilated)
    results = _run(index.to(device), None, query.to(device), starts, length, 3, device)
    assert_close_to_reference(results, (same_own, same_dilated), expected)


@pytest.mark.parametrize("rank", [16, 128])
def test_int8_index(device, rank):
    starts, length = [0, 9], 561
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(-127, 128, (2, 600, rank), dtype=torch.int8, generator=generator)
    scale = torch.rand(2, 600, generator=generator)
    query = torch.randn(2, rank, generator=generator)
    expected = _expected(index.double() * scale.double()[..., None], query, starts, length, 1)
    plain = torch.einsum("bjr,br->bj", index.float(), query) * scale
    same_own = torch.where(expected[0].isinf(), expected[0].float(), plain)
    same_dilated = torch.nn.functional.max_pool1d(same_own, 3, 1, 1)
    same_dilated = torch.where(expected[1].isinf(), expected[1].float(), same_dilated)
    results = _run(index.to(device), scale.to(device), query.to(device), starts, length, 1, device)
    assert_close_to_reference(results, (same_own, same_dilated), expected)


def test_views_of_larger_buffers(interpreter):
    starts, length = [0, 9], 261
    index, query = _problem(2, 300, 16, starts, length)
    expected = _expected(index, query, starts, length, 3)
    buffer = torch.full((2, 2, 300, 24), NAN, dtype=torch.float64)
    buffer[:, 1, :, 3:19] = index
    wide = torch.full((2, 40), NAN, dtype=torch.float64)
    wide[:, 5:21] = query
    results = _run(buffer[:, 1, :, 3:19], None, wide[:, 5:21], starts, length, 3, dtype=torch.float64)
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-10)


def test_one_length_for_each_row(interpreter):
    index, query = _problem(2, 100, 16, [0, 9], 61)
    index = index.nan_to_num(2.0)
    own, dilated = torch.empty(2, 2, 100, dtype=torch.float64)
    start, length = torch.tensor([0, 9], dtype=torch.int32), torch.tensor([50, 61], dtype=torch.int32)
    decode_scores(
        *(index, None, query, start, length),
        **{"num_initial": NUM_INITIAL, "num_local": NUM_LOCAL, "proximity": 2, "own": own, "dilated": dilated},
    )
    for b, (first, last) in enumerate([(0, 50), (9, 61)]):
        expected = _expected(index[b : b + 1], query[b : b + 1], [first], last, 2)
        torch.testing.assert_close((own[b : b + 1], dilated[b : b + 1]), expected, rtol=0, atol=1e-10)


def test_offsets_beyond_two_to_the_31(interpreter, tmp_path):
    """Tokens that lie 2^24 numbers apart, in a file that has only the pages that are written."""
    stride, tokens, rank = 2**24, 150, 16
    assert tokens * stride > 2**31
    file = torch.from_file(str(tmp_path / "index"), shared=True, size=tokens * stride, dtype=torch.int8)
    index = file.view(1, tokens, stride)[:, :, :rank]
    generator = torch.Generator().manual_seed(1)
    index.copy_(torch.randint(-127, 128, (1, tokens, rank), dtype=torch.int8, generator=generator))
    scale, query = torch.ones(1, tokens), torch.randint(-9, 10, (1, rank), generator=generator).float()
    own, dilated = _expected(index, query, [0], tokens, 1)
    results = _run(index, scale, query, [0], tokens, 1)
    torch.testing.assert_close(results, (own.float(), dilated.float()), rtol=0, atol=0)


def test_short_middle_is_left_alone(device):
    """Row 0 has a middle of 35 tokens, row 1 one of 26."""
    index, query = _problem(2, 100, 16, [0, 9], 61)
    results = _run(index.float().to(device), None, query.float().to(device), [0, 9], 61, 3, device, num_selected=30)
    for result in results:
        assert not (result[0] == 7.0).any()
        assert (result[1] == 7.0).all()


def test_histogram_of_the_first_digit(device):
    """Bins are the upper bits of a key that falls as the score rises; 0.0 and -0.0 share one."""
    starts, length = [0, 9], 561
    index, query = _problem(2, 600, 16, starts, length)
    index[0, 300:310] = 0.0
    index[0, 310:320] = -0.0
    scratch, bins = select_scratch(2, 600, device), 1 << digit_bits()[0]
    scratch.zeroed.fill_(5)
    _, dilated = _run(
        index.float().to(device), None, query.float().to(device), starts, length, 1, device, scratch=scratch
    )
    for b in range(2):
        low, high = _middle(starts[b], length)
        bits = (dilated[b, low:high].cpu() + 0.0).view(torch.int32).long() & 0xFFFFFFFF
        keys = torch.where(bits >= 2**31, bits, bits ^ 0x7FFFFFFF)
        digits = torch.bincount(keys * bins // 2**32, minlength=bins)
        assert torch.equal(scratch.zeroed[b, :bins].cpu().long(), digits)
        assert not scratch.zeroed[b, bins:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": torch.zeros(2, 100)}, r"index must have the shape \(B, capacity, R\), got \(2, 100\)"),
        ({"index": torch.zeros(2, 100, 16).long()}, "index must be int8 or floating point, got torch.int64"),
        ({"index": torch.zeros(2, 100, 16, dtype=torch.int8)}, r"index_scale must have the shape \(2, 100\).*got None"),
        ({"index_scale": torch.ones(2, 100)}, "index_scale must be None for an index in torch.float32"),
        ({"index": torch.zeros(2, 16, 100).mT}, "index must be contiguous in its last dimension"),
        ({"query_index": torch.zeros(2, 8)}, r"query_index must have the shape \(2, 16\), got \(2, 8\)"),
        ({"start": torch.zeros(3).long()}, r"start must be contiguous int32 or int64 of shape \(2,\), got"),
        ({"length": torch.ones(2)}, r"length must be .* of shape \(1,\) or \(2,\), got torch.float32"),
        ({"own": torch.zeros(2, 99)}, r"own must be float32 of shape \(2, 100\).*got torch.float32 of shape \(2, 99\)"),
        ({"dilated": torch.zeros(2, 100).double()}, "own and dilated must have one type"),
        ({"proximity": 33}, "proximity must be at most 32, got 33"),
        ({"proximity": -1}, "proximity must be at least 0, got -1"),
        ({"num_local": 0}, "num_local must be at least 1, got 0"),
        ({"scratch": select_scratch(2, 50, "cpu")}, "capacity of at least 100, got one for 2 and 50"),
    ],
)
def test_mistakes_are_named(interpreter, change, message):
    arguments = {
        "index": torch.zeros(2, 100, 16),
        "index_scale": None,
        "query_index": torch.zeros(2, 16),
        "start": torch.zeros(2).long(),
        "length": torch.tensor([50]),
        "num_initial": 4,
        "num_local": 8,
        "proximity": 1,
        "own": torch.zeros(2, 100),
        "dilated": torch.zeros(2, 100),
    }
    with pytest.raises(UserError, match=message):
        decode_scores(**{**arguments, **change})


@needs_triton
def test_without_gpu_the_error_says_what_to_do(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    index, query = _problem(1, 60, 16, [0], 30)
    with pytest.raises(UserError, match=r"CUDA device, got index on device 'cpu'.*TRITON_INTERPRET=1.*backend='torch'"):
        _run(index, None, query, [0], 30, 1)


def test_without_triton_the_error_names_it(no_triton):
    index, query = _problem(1, 60, 16, [0], 30)
    with pytest.raises(UserError, match="needs the package triton, which is not installed; use backend='torch'"):
        _run(index, None, query, [0], 30, 1)


@pytest.mark.parametrize(
    ("kind", "rank"),
    [("bf16", 128), *(pytest.param(*p, marks=pytest.mark.slow) for p in [("i8", 128), ("fp32", 128), ("bf16", 1024)])],
)
def test_compiles_for_hopper(compile_kernel, kind, rank):
    """The real compiler needs no GPU: no spills, and shared memory for several programs on a processor."""
    types = {"index_ptr": f"*{kind}", "start_ptr": "*i64", "length_ptr": "*i64", "histogram_ptr": "*i32"}
    fixed = {**score_triton._constants(rank, int(kind[-2:]) // 8 if kind != "i8" else 1, 3), "ACC": "fp32"}
    if kind != "i8":
        fixed["scale_ptr"] = None
    usage = compile_kernel("score_kernel", "decode_scores_kernel", types, fixed, warps=score_triton._WARPS)
    assert usage.stack <= SPILLED
    assert usage.registers <= 128
    assert usage.shared <= 48 * 1024


@pytest.mark.gpu
def test_replays_in_a_cuda_graph_while_the_sequence_grows():
    index, query = _problem(2, 600, 128, [0, 9], 600)
    index = index.nan_to_num(0.5).float().cuda()
    query, start = query.float().cuda(), torch.tensor([0, 9], device="cuda")
    length = torch.tensor([100], device="cuda")
    own, dilated = torch.empty(2, 2, 600, device="cuda")
    sizes = {"num_initial": NUM_INITIAL, "num_local": NUM_LOCAL, "proximity": 3}
    call = lambda: decode_scores(index, None, query, start, length, **sizes, own=own, dilated=dilated)
    call()  # compiles outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    for tokens in (100, 101, 333, 600):
        length.fill_(tokens)
        graph.replay()
        expected = _expected(index.cpu(), query.cpu(), [0, 9], tokens, 3)
        torch.testing.assert_close((own.cpu(), dilated.cpu()), tuple(t.float() for t in expected), rtol=1e-4, atol=1e-4)
