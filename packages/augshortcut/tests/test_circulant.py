"""The block-circulant layer: the known answer, the identities of circulant algebra, gradients, and bad input."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from augshortcut import reference
from augshortcut.layers.circulant import BlockCirculantLinear, spectral_norms
from augshortcut.layers.shortcut import AugmentedShortcut
from augshortcut.ops.butterflies import join, joining, leaf_rings, most_levels, pieces, split
from augshortcut.ops.flat import join_flat, split_flat
from augshortcut.ops.layout import diagonal_means, diagonal_pairs, toeplitz, toeplitz_blocks
from augshortcut.ops.product import block_circulant, resolve
from effkit.cost import measure
from effkit.errors import UserError
from effkit.testing import assert_close_to_reference

REAL = ["dense", "crt"]
BACKENDS = [*REAL, "fft"]
# (in, out, b): square, wide, tall, odd blocks, one circulant, all blocks of size one, three halvings.
SIZES = [(8, 8, 2), (24, 8, 2), (8, 24, 4), (15, 15, 3), (12, 12, 1), (6, 6, 6), (16, 16, 2), (48, 32, 2), (32, 32, 1)]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _layer(in_features: int, out_features: int, block: int, backend: str = "auto") -> BlockCirculantLinear:
    torch.manual_seed(0)
    return BlockCirculantLinear(in_features, out_features, block, backend, dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_known_answer(backend):
    weight = torch.arange(16.0, dtype=torch.float64).view(2, 2, 4)
    rows = [
        [0, 3, 2, 1, 4, 7, 6, 5],
        [1, 0, 3, 2, 5, 4, 7, 6],
        [2, 1, 0, 3, 6, 5, 4, 7],
        [3, 2, 1, 0, 7, 6, 5, 4],
        [8, 11, 10, 9, 12, 15, 14, 13],
        [9, 8, 11, 10, 13, 12, 15, 14],
        [10, 9, 8, 11, 14, 13, 12, 15],
        [11, 10, 9, 8, 15, 14, 13, 12],
    ]
    matrix = torch.tensor(rows, dtype=torch.float64)
    assert torch.equal(toeplitz(weight), matrix)
    assert torch.equal(reference.circulant_matrix(weight), matrix)
    columns = block_circulant(torch.eye(8, dtype=torch.float64), weight, backend=backend)
    torch.testing.assert_close(columns, matrix.T, rtol=0, atol=1e-13)
    torch.testing.assert_close(columns[0], torch.tensor([0, 1, 2, 3, 8, 9, 10, 11.0]).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("in_features", "out_features", "block"), SIZES)
def test_every_backend_is_the_sum_of_convolutions(in_features, out_features, block, backend):
    layer = _layer(in_features, out_features, block, "fft" if backend == "fft" else "auto")
    x = _random(2, 3, in_features)
    for level in range(5) if backend == "crt" else (None,):
        if level is not None and level > most_levels(layer.weight.shape[2]):
            continue
        y = block_circulant(x, layer.weight, layer.bias, backend=backend, level=level)
        expected = reference.convolve(layer.weight.detach(), x) + layer.bias
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    dense = x @ reference.circulant_matrix(layer.weight.detach()).T + layer.bias
    torch.testing.assert_close(layer(x), dense, rtol=0, atol=1e-13)
    assert torch.equal(layer.weight_dense(), reference.circulant_matrix(layer.weight.detach()))


@pytest.mark.parametrize(("in_features", "out_features", "block"), SIZES)
def test_norms_and_algebra(in_features, out_features, block):
    layer = _layer(in_features, out_features, block)
    weight, matrix = layer.weight.detach(), layer.weight_dense().detach()
    n = weight.shape[2]
    torch.testing.assert_close(layer.spectral_norm(), torch.linalg.matrix_norm(matrix, 2), rtol=1e-12, atol=0)
    torch.testing.assert_close(matrix.norm(), n**0.5 * weight.norm(), rtol=1e-12, atol=0)
    # Transpose: indices backwards, blocks swapped.
    turned = weight.transpose(0, 1)[..., [-k % n for k in range(n)]]
    torch.testing.assert_close(toeplitz(turned), matrix.T, rtol=0, atol=1e-14)
    # A product of two is block-circulant, so projecting it changes nothing.
    product = matrix @ matrix.T
    again = toeplitz(diagonal_means(product, weight.shape[0], weight.shape[0]))
    torch.testing.assert_close(again, product, rtol=0, atol=1e-13)
    if in_features == out_features:
        trace = n * sum(weight[i, i, 0] for i in range(weight.shape[0]))
        torch.testing.assert_close(matrix.trace(), trace, rtol=1e-12, atol=1e-13)


def test_gradient_is_the_sum_along_wrapped_diagonals():
    layer, x, grad = _layer(12, 8, 2), _random(5, 12), _random(5, 8, seed=1)
    layer(x).backward(grad)
    outer = grad.T @ x
    expected = 4 * diagonal_means(outer, 2, 3)
    torch.testing.assert_close(layer.weight.grad, expected, rtol=0, atol=1e-13)


def test_c3a_of_peft_is_the_same_with_first_rows():
    """C3A's weights are first rows (its layer divides the result by the width besides)."""
    c3a = pytest.importorskip("peft.tuners.c3a.utils")
    weight, x = _random(2, 3, 4), _random(5, 12)
    theirs = c3a.BlockCircularConvolution.apply(x, weight)
    ours = block_circulant(x, weight[..., [-k % 4 for k in range(4)]])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend):
    for in_features, out_features, block in [(8, 8, 2), (12, 4, 1), (6, 12, 2)]:
        layer = _layer(in_features, out_features, block)
        inputs = (_random(3, in_features).requires_grad_(), layer.weight, layer.bias)
        call = lambda x, w, b, backend=backend: block_circulant(x, w, b, backend=backend)
        assert gradcheck(call, inputs)
        assert gradgradcheck(call, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_is_that_of_the_dense_matrix_and_repeats_bitwise(backend):
    layer = _layer(48, 32, 4, "fft" if backend == "fft" else backend)
    x, grad = _random(7, 48).requires_grad_(), _random(7, 32, seed=1)
    found = [torch.autograd.grad(layer(x), [x, layer.weight, layer.bias], grad) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    y = x @ reference.circulant_matrix(layer.weight.detach()).T
    torch.testing.assert_close(found[0][0], torch.autograd.grad(y, x, grad)[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("width", [192, 384, 768])
def test_tolerance_rule(width, dtype):
    layer = BlockCirculantLinear(width, width, 4).to(dtype)
    x = _random(9, width).to(dtype)
    exact = reference_product(x, layer)
    for level in (0, 1, 2, 3):
        fast = block_circulant(x, layer.weight, layer.bias, backend="crt", level=level)
        assert_close_to_reference(fast, x @ layer.weight_dense().T + layer.bias, exact)


def reference_product(x: torch.Tensor, layer: BlockCirculantLinear) -> torch.Tensor:
    """In float64, from the weights as they are stored."""
    return x.double() @ toeplitz(layer.weight.detach().double()).T + layer.bias.detach().double()


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_and_bfloat16(backend):
    layer = BlockCirculantLinear(48, 48, 4, backend)
    x = _random(9, 48).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        mixed = layer(x.bfloat16())
    assert y.dtype == mixed.dtype == torch.bfloat16
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer.float()(x), rtol=0.05, atol=0.05)


def test_empty_and_strided_inputs():
    layer = _layer(8, 8, 2)
    assert layer(torch.empty(0, 8, dtype=torch.float64)).shape == (0, 8)
    assert layer(torch.empty(3, 0, 8, dtype=torch.float64)).shape == (3, 0, 8)
    assert layer(_random(8)).shape == (8,)
    x = _random(8, 5, 3).permute(2, 1, 0)
    torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=0, atol=0)


def test_nan_goes_through():
    x = _random(4, 8)
    x[2, 3] = float("nan")
    for backend in BACKENDS:
        assert _layer(8, 8, 2, backend)(x).isnan().any(dim=1).tolist() == [False, False, True, False]


def test_parts_are_kept_and_never_stale():
    layer, x = _layer(8, 8, 2), _random(4, 8)
    with torch.no_grad():
        before = layer(x)
        assert layer._kept._kept is not None
        parts = layer._kept._kept[4]
        assert torch.equal(layer(x), before)
        assert layer._kept._kept[4] is parts
        layer.weight.data.mul_(2)  # changes no version
        layer.bias.data.mul_(2)
        torch.testing.assert_close(layer(x), 2 * before, rtol=0, atol=1e-14)
        layer.weight = torch.nn.Parameter(layer.weight / 2)
        layer.bias.data.div_(2)
        torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-14)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_state_dict_holds_parameters_only_and_copies_work():
    layer, x = _layer(24, 8, 2), _random(4, 24)
    with torch.no_grad():
        expected = layer(x)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {"weight": (2, 6, 4), "bias": (8,)}
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin._kept._kept is None
        with torch.no_grad():
            assert torch.equal(twin(x), expected)
        torch.testing.assert_close(twin(x), expected, rtol=0, atol=1e-14)  # sums in another order
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    assert len(buffer.getvalue()) < 3000
    swapped = {"weight": layer.weight * 2, "bias": layer.bias * 2}
    with torch.no_grad():
        doubled = torch.func.functional_call(layer, swapped, (x,))
        torch.testing.assert_close(doubled, 2 * expected, rtol=0, atol=1e-14)
        batched = torch.func.vmap(lambda w: torch.func.functional_call(layer, {"weight": w}, (x,)))
        torch.testing.assert_close(batched(layer.weight[None])[0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", REAL)
def test_compiles_whole(backend):
    layer, x = BlockCirculantLinear(48, 48, 4, backend), _random(5, 48).float().requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    grads = [torch.autograd.grad(call(x).square().sum(), [x, layer.weight]) for call in (compiled, layer)]
    torch.testing.assert_close(*grads)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("grad", [False, True])
def test_traces_keep_weights_and_take_any_number_of_rows(grad):
    """torch.jit.trace, which torch's older ONNX exporter uses, gives tensors for sizes."""
    layer = BlockCirculantLinear(24, 48, block=2)
    shortcut = AugmentedShortcut(48, "retrofit")
    x, more = torch.randn(2, 3, 24), torch.randn(5, 3, 24)
    with warnings.catch_warnings(), torch.set_grad_enabled(grad):
        warnings.simplefilter("ignore", FutureWarning)  # that torch.jit will go
        traced = torch.jit.trace(nn.Sequential(layer, shortcut), x, check_trace=False)
        with torch.no_grad():
            layer.weight.mul_(2)
            shortcut.gate.fill_(1.0)
        torch.testing.assert_close(traced(more), shortcut(layer(more)))


def test_from_dense_projects_orthogonally():
    matrix = _random(8, 24)
    layer = BlockCirculantLinear.from_dense(matrix, 2, bias=_random(8, seed=3))
    assert torch.equal(layer.weight.detach(), diagonal_means(matrix, 2, 6))
    torch.testing.assert_close(layer.weight.detach(), reference.nearest_block_circulant(matrix, 2, 6))
    rest = matrix - layer.weight_dense().detach()
    other = toeplitz(_random(2, 6, 4, seed=5))
    assert abs(float((rest * other).sum())) < 1e-12  # what is lost is orthogonal to every block-circulant matrix
    same = BlockCirculantLinear.from_dense(layer.weight_dense().detach(), 2)
    torch.testing.assert_close(same.weight, layer.weight, rtol=0, atol=1e-15)
    assert same.bias is None


def test_stacked_spectral_norms_are_differentiable():
    weight = _random(3, 2, 2, 6).requires_grad_()
    norms = spectral_norms(weight)
    assert norms.shape == (3,)
    norms.sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(("level", "share"), [(0, 1.0), (1, 1 / 2), (2, 1 / 4), (3, 1 / 8)])
def test_multiply_adds_by_level(level, share):
    layer = BlockCirculantLinear(384, 384, 4, "crt", crt_level=level)
    assert measure(layer, torch.zeros(10, 384)).macs == round(10 * 384 * 384 * share)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_joining_matrix_is_the_joining(level):
    """At inference on a CPU one product stands for the additions that put outputs together."""
    g, e, chunks, rows = pieces(level), 3, 4, 5
    z = _random(g, rows, chunks, e)
    leaves = z.view(2**level, -1, rows, chunks, e).permute(0, 2, 1, 3, 4).flatten(2)
    expected = join(leaves, chunks, level, tokens=False)  # (rows, chunks, n)
    found = (joining(level, z.dtype) @ z.view(g, -1)).view(g, rows, chunks, e).permute(1, 2, 0, 3).flatten(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("n", "levels"), [(5, 0), (6, 1), (12, 1), (8, 2), (96, 4), (32, 4), (2, 1)])
def test_butterflies_are_orthogonal_and_their_forms_agree(n, levels):
    assert most_levels(n) == levels
    x = _random(3, 2, n)
    for level in range(levels + 1):
        leaves = split(x, level)
        assert leaves.shape == (2**level, 3, 2 * n >> level)
        assert len(leaf_rings(level)) == 2**level
        torch.testing.assert_close(join(leaves, 2, level), 2**level * x, rtol=0, atol=1e-12)
        torch.testing.assert_close(leaves.square().sum(), 2**level * x.square().sum(), rtol=1e-12, atol=0)
        if level == 0:
            continue
        count = pieces(level)
        seen = x.view(3, 2, count, n // count).transpose(1, 2)
        for tokens in (True, False):
            leaves = split(x, level, tokens=tokens)
            torch.testing.assert_close(split_flat(seen, level, tokens=tokens), leaves, rtol=0, atol=1e-13)
            noise = _random(*leaves.shape, seed=1)
            expected = join(noise, 2, level, tokens=tokens)
            assert abs(float((leaves * noise).sum() - (x * expected).sum())) < 1e-11  # transposes of each other
            for order in (True, False):
                found = join_flat(noise, 2, tokens=tokens, out_tokens=order)
                torch.testing.assert_close(found.transpose(1, 2).flatten(2), expected, rtol=0, atol=1e-13)


def test_sums_of_diagonals_are_the_adjoint_of_toeplitz():
    weight, above, matrix = _random(2, 5), _random(2, 5, seed=1), _random(2, 5, 5, seed=2)
    low, high = diagonal_pairs(matrix.transpose(1, 2))
    inner = (toeplitz_blocks(weight, above) * matrix).sum()
    torch.testing.assert_close(inner, (weight * low).sum() + (above * high).sum(), rtol=0, atol=1e-12)
    assert torch.equal(high[:, 0], torch.zeros(2, dtype=torch.float64))  # no entry of it lies above the diagonal


def test_auto_chooses_and_names_refuse():
    assert resolve("auto", 96) == ("crt", 2)
    assert resolve("auto", 6) == ("crt", 1)
    assert resolve("auto", 5) == ("crt", 0)
    assert resolve("dense", 96) == ("dense", 0)
    with pytest.raises(UserError, match=r"crt_level=2 needs circulants whose size is a multiple of 8, got 6"):
        resolve("crt", 6, 2)
    with pytest.raises(UserError, match="even size, got 5"):
        resolve("triton", 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((384, 384, 5), ["block=5", "384", "4"]),
        ((384, 512, 4), ["384", "512", "96"]),
        ((384, 384, 0), ["block", "0"]),
        ((0, 384, 4), ["in_features", "0"]),
        ((384, 384, 4, "cuda"), ["cuda", "crt"]),
        ((5, 5, 1, "triton"), ["even", "5"]),
    ],
)
def test_refusals_at_construction(arguments, said):
    with pytest.raises(UserError) as caught:
        BlockCirculantLinear(*arguments)
    assert all(word in str(caught.value) for word in said), str(caught.value)


def test_refusals_of_inputs():
    layer = BlockCirculantLinear(8, 8, 2)
    with pytest.raises(UserError, match="8 channels"):
        layer(torch.zeros(2, 9))
    with pytest.raises(UserError, match="int64"):
        layer(torch.zeros(2, 8, dtype=torch.long))
    with pytest.raises(UserError, match="complex64"):
        layer(torch.zeros(2, 8, dtype=torch.complex64))
    with pytest.raises(UserError, match=r"float64 and torch\.float32"):
        layer(torch.zeros(2, 8, dtype=torch.float64))
    with pytest.raises(UserError, match="2-D"):
        BlockCirculantLinear.from_dense(torch.zeros(8))
