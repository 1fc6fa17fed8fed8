"""Queries of a step against rotation and folding spelled out: interpreted on a CPU, compiled on a GPU."""

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference
from esa_attention.ops.query_triton import step_queries

NUM_LOCAL, FAR = 10, 23


def _problem(tokens, heads, dim, half, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, heads, tokens, dim, generator=generator, dtype=torch.float64).to(dtype)
    angle = torch.arange(40)[:, None] * 100.0 ** -torch.linspace(0, 1, half, dtype=torch.float64)
    wide = torch.promote_types(dtype, torch.float32)
    return query, angle.cos().to(wide), angle.sin().to(wide)


def _rotate(x, cos, sin):
    half = cos.shape[-1]
    x_1, x_2 = x[..., :half], x[..., half : 2 * half]
    return torch.cat([x_1 * cos - x_2 * sin, x_2 * cos + x_1 * sin, x[..., 2 * half :]], dim=-1)


def _expected(query, cos, sin, starts, length, kv_heads, factor=1.0):
    """Token by token; the place of padding is 0."""
    batch, heads, tokens, dim = query.shape
    cos, sin = cos.to(query.dtype), sin.to(query.dtype)
    far = _rotate(query, cos[FAR], sin[FAR])
    far[..., : 2 * cos.shape[1]] *= factor
    local = torch.empty_like(query)
    for b, start in enumerate(starts):
        past = max(length - tokens - start, 0)
        first_local = start + past - min(NUM_LOCAL, past)
        for t in range(tokens):
            place = max(length - tokens + t - first_local, 0)
            local[b, :, t] = _rotate(query[b, :, t], cos[place], sin[place])
    folded = far.view(batch, kv_heads, heads // kv_heads, tokens, dim).sum(2).transpose(1, 2).flatten(2)
    return far, local, folded


def _run(query, cos, sin, starts, length, kv_heads, **options):
    start, total = torch.tensor(starts, device=query.device), torch.tensor([length], device=query.device)
    sizes = {"num_kv_heads": kv_heads, "num_local": NUM_LOCAL, "far_position": FAR}
    return step_queries(query, cos, sin, start, total, **sizes, **options)


@pytest.mark.parametrize("tokens", [1, 5, 20])
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "half"), [(4, 4, 64, 32), (6, 2, 80, 16), (3, 1, 10, 3)])
def test_float64_equals_the_equations(interpreter, heads, kv_heads, dim, half, tokens):
    query, cos, sin = _problem(tokens, heads, dim, half)
    for length in (tokens, tokens + 12, tokens + 60):
        expected = _expected(query, cos, sin, [0, 9], length, kv_heads, 1.5)
        results = _run(query, cos, sin, [0, 9], length, kv_heads, far_factor=1.5)
        torch.testing.assert_close(tuple(results), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tolerance_rule(device, dtype):
    query, cos, sin = _problem(20, 8, 128, 64, dtype)
    reference = _expected(query.double(), cos.double(), sin.double(), [0, 9], 90, 2)
    far, local, folded = _expected(query, cos, sin, [0, 9], 90, 2)
    results = _run(query.to(device), cos.to(device), sin.to(device), [0, 9], 90, 2)
    assert_close_to_reference(tuple(results), (far, local, folded.float()), reference)


def test_views(interpreter):
    """Heads and tokens in the other order, tables in the left half of wider ones, as models have them."""
    query, cos, sin = _problem(5, 6, 16, 6)
    expected = _expected(query, cos, sin, [0, 9], 60, 2)
    view = query.transpose(1, 2).contiguous().transpose(1, 2)
    cos, sin = (torch.cat((t, t), dim=1)[:, :6] for t in (cos, sin))
    torch.testing.assert_close(tuple(_run(view, cos, sin, [0, 9], 60, 2)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(2, 4, 16)}, r"query must be floating point of shape \(B, H, T, D\).*got .*\(2, 4, 16\)"),
        ({"num_kv_heads": 3}, "num_kv_heads must divide the 4 query heads, got 3"),
        ({"far_position": 40}, "cos and sin must hold 41 positions, got 40"),
        ({"num_local": 39}, "cos and sin must hold 44 positions, got 40"),
        ({"cos": torch.zeros(40, 9)}, r"rotary_dim at most 16, got \(40, 9\) and \(40, 8\)"),
        ({"cos": torch.zeros(40, 8).half()}, "cos and sin must be of one type"),
    ],
)
def test_mistakes_are_named(interpreter, change, message):
    query, cos, sin = _problem(5, 4, 16, 8)
    arguments = {"query": query, "cos": cos, "sin": sin, "start": torch.zeros(2).long(), "length": torch.tensor([50])}
    arguments |= {"num_kv_heads": 2, "num_local": NUM_LOCAL, "far_position": FAR}
    with pytest.raises(UserError, match=message):
        step_queries(**{**arguments, **change})


def test_compiles_for_hopper(compile_kernel):
    """The real compiler needs no GPU: no spills."""
    types = dict.fromkeys(("query_ptr", "far_ptr", "local_ptr"), "*bf16") | {"start_ptr": "*i64", "length_ptr": "*i64"}
    fixed = {"GROUP": 4, "DIM": 128, "HALF": 64, "HALF_PADDED": 64, "REST_PADDED": 0, "TOKENS": 16}
    fixed |= {"DOT": "bf16", "ACC": "fp32", "EMULATE_BF16": False}
    assert compile_kernel("query_kernel", "query_kernel", types, fixed).stack == 0
