"""The k best tokens against sorting by (dilated, own, index): interpreted on a CPU, compiled on a GPU."""

import pytest
import torch

from effkit.errors import UserError
from effkit.testing.kernels import SPILLED
from esa_attention.ops import select_triton
from esa_attention.ops.score_triton import decode_scores
from esa_attention.ops.select_triton import select, select_scratch

NAN = float("nan")
NUM_INITIAL, NUM_LOCAL = 5, 20


@pytest.fixture
def interpreter(interpreter, monkeypatch):
    """Small tiles, so that rows span many of them."""
    monkeypatch.setattr(select_triton, "_TILE", 64)
    monkeypatch.setattr(select_triton, "_CHUNK", 32)


@pytest.fixture(params=[(128, 12, 10), (4, 12, 10), (4, 8, 8)], ids=["few", "many", "short digits"])
def finish(request, monkeypatch):
    """Candidates are ranked if they are few, else sorted by digits, whose length depends on the version of triton."""
    few, *bits = request.param
    monkeypatch.setattr(select_triton, "_FEW", few)
    monkeypatch.setattr(select_triton, "digit_bits", lambda: tuple(bits))


def _middle(start, length, new_tokens):
    past = max(length - new_tokens - start, 0)
    local = min(NUM_LOCAL, past)
    return start + min(NUM_INITIAL, past - local), start + past - local


def _dilate(own, proximity):
    padded = torch.nn.functional.max_pool1d(own[:, None], 2 * proximity + 1, 1, proximity)
    return padded[:, 0]


def _scores(kind, batch, capacity, seed=0):
    """Own and dilated scores of different degeneracy; finite everywhere."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(batch, capacity, generator=generator)
    if kind == "small differences":  # 24 bits in common
        own = 1000 + own * 1e-3
    elif kind == "negative":
        own = -own.abs() - 1e-30
    elif kind == "five values":
        own = own.mul(1.2).round()
    elif kind == "zeros of both signs":
        own = torch.where(own > 0, 0.0, -0.0)
    elif kind == "all equal":
        own = torch.full_like(own, -3.5)
    elif kind == "chunk":  # many scores of exactly 0, as Eq. 4 makes them
        own = (own - 0.5).clamp(max=0)
    elif kind == "extremes":
        own = own.sign() * 10.0 ** (own * 20).clamp(-38, 38)
    return own, _dilate(own, 0 if kind == "extremes" else 2)


KINDS = [
    "normal",
    "small differences",
    "negative",
    "five values",
    "zeros of both signs",
    "all equal",
    "chunk",
    "extremes",
]


def _expected(own, dilated, start, length, new_tokens, k):
    low, high = _middle(start, length, new_tokens)
    own, dilated = own.tolist(), dilated.tolist()
    best = sorted(range(low, high), key=lambda j: (-dilated[j], -own[j], j))[:k]
    return sorted(best) + [-1] * (k - len(best)), len(best)


def _check(own, dilated, starts, length, new_tokens, k, device, **options):
    """Run, compare, and return what the kernels gave."""
    blocks = 1 if own.ndim == 2 else own.shape[1]
    expected = [
        _expected(o, d, starts[i // blocks], length, new_tokens, k)
        for i, (o, d) in enumerate(zip(own.flatten(0, -2), dilated.flatten(0, -2), strict=True))
    ]
    own, dilated = own.clone(), dilated.clone()
    for b, start in enumerate(starts):  # what must not be read
        low, high = _middle(start, length, new_tokens)
        for tensor in (own, dilated):
            tensor[b, ..., :low], tensor[b, ..., high:] = NAN, NAN
    sizes = (new_tokens, k, NUM_INITIAL, NUM_LOCAL)
    start, length = torch.tensor(starts, device=device), torch.tensor([length], device=device)
    indices, count = select(own.to(device), dilated.to(device), start, length, *sizes, **options)
    assert indices.dtype == torch.int64
    assert count.dtype == torch.int32
    assert indices.cpu().flatten(0, -2).tolist() == [chosen for chosen, _ in expected]
    assert count.cpu().flatten().tolist() == [number for _, number in expected]
    return indices, count


@pytest.mark.parametrize("kind", KINDS)
def test_order_is_exact(device, finish, kind):
    own, dilated = _scores(kind, 1, 200)
    _check(own, dilated, [4], 190, 1, 37, device)


@pytest.mark.parametrize("k", [1, 164])
def test_the_best_or_all_but_one(device, finish, k):
    """The middle has 165 tokens."""
    own, dilated = _scores("five values", 1, 200)
    _check(own, dilated, [0], 191, 1, k, device)


@pytest.mark.parametrize("k", [30, 31, 32, 200])
@pytest.mark.parametrize("kind", ["five values", "all equal"])
def test_as_many_as_there_are(device, kind, k):
    """The middle has 31 tokens: one may be left out, none, or slots stay empty."""
    own, dilated = _scores(kind, 1, 100)
    _check(own, dilated, [4], 61, 1, k, device)


@pytest.mark.parametrize("length", [1, 20, 21, 22, 26, 27, 28, 36, 90])
def test_borders_of_the_segments(interpreter, length):
    own, dilated = _scores("five values", 2, 90)
    _check(own, dilated, [0, 9], length, 1, 3, "cpu")


@pytest.mark.parametrize("new_tokens", [7, 64, 100])
def test_blocks_of_a_chunk(device, new_tokens):
    own, dilated = (t.view(2, 2, 200) for t in _scores("chunk", 4, 200))
    _check(own, dilated, [0, 50], 190, new_tokens, 25, device)


def test_scratch_and_results_are_used_again(device):
    """Whatever the last selection left in them."""
    scratch = select_scratch(2, 150, device)
    for tensor in scratch:
        tensor.fill_(77)
    indices = torch.full((2, 30), 5, device=device)
    count = torch.full((2,), 5, dtype=torch.int32, device=device)
    for seed, length in enumerate((141, 40, 120)):
        own, dilated = _scores("five values", 2, 150, seed)
        given = {"scratch": scratch, "indices": indices, "count": count}
        results = _check(own, dilated, [0, 9], length, 1, 30, device, **given)
        assert results[0] is indices
        assert results[1] is count


@pytest.mark.parametrize("length", [30, 261])
def test_histogram_of_the_score_kernel(device, length):
    """A decoding step as it is meant to run: the score kernel counts the first digits."""
    generator = torch.Generator().manual_seed(3)
    index = torch.randint(-3, 4, (2, 300, 16), generator=generator).float()
    query = torch.randint(-3, 4, (2, 16), generator=generator).float()
    start, total = torch.tensor([0, 9], device=device), torch.tensor([length], device=device)
    own, dilated = torch.zeros(2, 2, 300, device=device)
    scratch = select_scratch(2, 300, device)
    sizes = {"num_initial": NUM_INITIAL, "num_local": NUM_LOCAL}
    decode_scores(
        *(index.to(device), None, query.to(device), start, total),
        **{**sizes, "proximity": 2, "own": own, "dilated": dilated, "num_selected": 20, "scratch": scratch},
    )
    indices, count = select(own, dilated, start, total, 1, 20, **sizes, scratch=scratch, histogram="ready")
    for b, first in enumerate((0, 9)):
        chosen, number = _expected(own[b].cpu(), dilated[b].cpu(), first, length, 1, 20)
        assert (indices[b].tolist(), int(count[b])) == (chosen, number)


def test_strided_scores_and_one_length_for_each_row(interpreter):
    own, dilated = _scores("five values", 4, 200)
    start, length = torch.tensor([0, 9], dtype=torch.int32), torch.tensor([150, 190], dtype=torch.int32)
    indices, _ = select(own[::2, :180], dilated[1::2, :180], start, length, 1, 12, NUM_INITIAL, NUM_LOCAL)
    for b, (first, last) in enumerate([(0, 150), (9, 190)]):
        assert indices[b].tolist() == _expected(own[2 * b], dilated[2 * b + 1], first, last, 1, 12)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"own": torch.zeros(2, 50).double()}, r"own must be float32 .*got torch.float64 of shape \(2, 50\)"),
        ({"dilated": torch.zeros(100)}, r"dilated must be float32 of shape \(B, capacity\) or \(B, N, capacity\)"),
        ({"dilated": torch.zeros(2, 60)}, r"one shape, got \(2, 50\) and \(2, 60\)"),
        ({"num_selected": 0}, "num_selected must be at least 1, got 0"),
        ({"new_tokens": 0}, "new_tokens must be at least 1, got 0"),
        ({"histogram": "later"}, "histogram='later' is not known, choose one of build, ready"),
        ({"histogram": "ready"}, "histogram must be 'build' without scratch, got 'ready'"),
        (
            {"scratch": select_scratch(1, 50, "cpu")},
            "scratch must be for 2 rows and .* at least 50, got one for 1 and 50",
        ),
        (
            {"indices": torch.zeros(2, 5)},
            r"indices must be contiguous torch.int64 of shape \(2, 5\), got torch.float32",
        ),
        ({"count": torch.zeros(1).int()}, r"count must be contiguous torch.int32 of shape \(2,\), got .*\(1,\)"),
    ],
)
def test_mistakes_are_named(interpreter, change, message):
    arguments = {
        "own": torch.zeros(2, 50),
        "dilated": torch.zeros(2, 50),
        "start": torch.zeros(2).long(),
        "length": torch.tensor([50]),
        "new_tokens": 1,
        "num_selected": 5,
        "num_initial": 4,
        "num_local": 8,
    }
    with pytest.raises(UserError, match=message):
        select(**{**arguments, **change})


@pytest.mark.parametrize(
    "name",
    ["collect_kernel", *(pytest.param(f"{n}_kernel", marks=pytest.mark.slow) for n in ("count", "refine", "write"))],
)
def test_compiles_for_hopper(compile_kernel, name):
    """The real compiler needs no GPU: no spills, and shared memory for several programs on a processor."""
    types = dict.fromkeys(("zeroed_ptr", "better_ptr", "candidates_ptr", "count_ptr"), "*i32")
    types |= dict.fromkeys(("start_ptr", "length_ptr", "indices_ptr"), "*i64")
    bits, fine_bits = select_triton.digit_bits()
    fixed = {"TILE": select_triton._TILE, "BITS": bits}
    if name == "write_kernel":
        fixed |= {"FEW": select_triton._FEW, "CHUNK": select_triton._CHUNK, "FINE_BITS": fine_bits}
    file = "select_write_kernel" if name == "write_kernel" else "select_kernel"
    usage = compile_kernel(file, name, types, fixed, warps=select_triton._WARPS)
    assert usage.stack <= SPILLED
    assert usage.shared <= 48 * 1024


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_long_rows_on_gpu(kind):
    """131,072 tokens on all processors at once, twice with the same result."""
    own, dilated = _scores(kind, 1, 131_072)
    first = _check(own, dilated, [3], 131_000, 1, 2048, "cuda")
    second = _check(own, dilated, [3], 131_000, 1, 2048, "cuda")
    assert torch.equal(first[0], second[0])


@pytest.mark.gpu
def test_replays_in_a_cuda_graph_while_the_sequence_grows():
    own, dilated = (t.cuda() for t in _scores("five values", 2, 600))
    start, length = torch.tensor([0, 9], device="cuda"), torch.tensor([100], device="cuda")
    call = lambda: select(own, dilated, start, length, 1, 50, NUM_INITIAL, NUM_LOCAL)
    call()  # compiles outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        indices, count = call()
    for tokens in (30, 101, 333, 600):
        length.fill_(tokens)
        graph.replay()
        for b, first in enumerate((0, 9)):
            expected = _expected(own[b].cpu(), dilated[b].cpu(), first, tokens, 1, 50)
            assert (indices[b].tolist(), int(count[b])) == expected
