"""The kernel of all paths against its specification: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

import pytest
import torch

from augshortcut.config import AugmentConfig
from augshortcut.layers.circulant import BlockCirculantLinear
from augshortcut.layers.shortcut import AugmentedShortcut
from augshortcut.ops.activations import ACTIVATIONS
from augshortcut.ops.layout import toeplitz
from augshortcut.ops.names import ACTS
from augshortcut.ops.paths import paths_torch
from augshortcut.ops.paths_triton import activated_paths
from augshortcut.ops.product import block_circulant
from effkit.cost import measure
from effkit.errors import UserError
from effkit.testing import assert_close_to_reference, kernels
from effkit.triton import compile_kernel, count_launches

device, interpreter, no_triton, compiler = kernels.device, kernels.interpreter, kernels.no_triton, kernels.compiler
HALF = [torch.bfloat16, torch.float16]


def _inputs(rows, paths, b_out, b_in, n, *, gate=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    weight = draw(paths, b_out, b_in, n) / (b_in * n) ** 0.5
    return draw(rows, b_in * n), weight, draw(paths, b_out * n), draw(paths, b_out * n) if gate else None


def _expected(x, weight, bias, gate, act):
    total = 0
    for t in range(weight.shape[0]):
        z = ACTIVATIONS[act](x @ toeplitz(weight[t]).T + (0 if bias is None else bias[t]))
        total = total + (z if gate is None else gate[t] * z)
    return total


@pytest.mark.parametrize("act", ACTS)
def test_logic_in_float64(interpreter, act):
    x, weight, bias, gate = _inputs(7, 3, 2, 3, 12, gate=True)
    out = activated_paths(x, weight, bias, gate, act, torch.float64)
    torch.testing.assert_close(out, _expected(x, weight, bias, gate, act), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "paths", "b_out", "b_in", "n"), [(1, 1, 1, 1, 2), (130, 2, 4, 4, 48), (65, 2, 2, 5, 26)]
)
def test_odd_sizes_and_partial_tiles(interpreter, rows, paths, b_out, b_in, n):
    x, weight, _, _ = _inputs(rows, paths, b_out, b_in, n)
    out = activated_paths(x, weight, None, None, "gelu", torch.float64)
    torch.testing.assert_close(out, _expected(x, weight, None, None, "gelu"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("n", [24, 96])
def test_tolerance_rule(device, dtype, n):
    x, weight, bias, _ = (t if t is None else t.to(dtype) for t in _inputs(70, 2, 2, 2, n))
    exact = _expected(x.double(), weight.double(), bias.double(), None, "gelu")
    plain = _expected(x, weight, bias, None, "gelu")
    x, weight, bias = (t.to(device) for t in (x, weight, bias))
    assert_close_to_reference(activated_paths(x, weight, bias, None, "gelu", dtype), plain, exact)


def test_gradients_are_those_of_torch(interpreter):
    inputs = _inputs(6, 2, 2, 2, 8, gate=True)
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = activated_paths(*leaves, "gelu", torch.float64)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = torch.autograd.grad(out, leaves, grad)
    again = torch.autograd.grad(activated_paths(*leaves, "gelu", torch.float64), leaves, grad)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    expected = torch.autograd.grad(paths_torch(*leaves, "gelu", torch.float64, 1), leaves, grad)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_compiled_graph_holds_the_kernel(interpreter):
    x, weight, bias, _ = _inputs(6, 2, 2, 2, 8)
    leaves = [t.float().requires_grad_() for t in (x, weight, bias)]
    call = lambda x, w, b: activated_paths(x, w, b, None, "gelu", torch.float32)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    grads = [torch.autograd.grad(f(*leaves).square().sum(), leaves) for f in (call, compiled)]
    torch.testing.assert_close(*grads)


def test_one_launch_counted_as_half_of_the_dense_matrix(interpreter):
    x, weight, _, _ = (t if t is None else t.float() for t in _inputs(5, 1, 2, 2, 8))

    class Product(torch.nn.Module):
        def forward(self, x):
            return block_circulant(x, weight[0], backend="triton")

    with count_launches() as launches:
        torch.testing.assert_close(Product()(x), block_circulant(x, weight[0]))
    assert launches.total() == 1
    assert measure(Product(), x).macs == 5 * 16 * 16 // 2


def test_layers_by_the_kernel_are_those_by_torch(interpreter):
    y = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for fields in ({}, {"gate": "channel", "gate_init": 0.5}, {"bias": False, "act": "silu"}):
        shortcuts = []
        for backend in ("triton", "crt"):
            torch.manual_seed(0)
            shortcuts.append(AugmentedShortcut(32, AugmentConfig(backend=backend, **fields), dtype=torch.float64))
        with count_launches() as launches:
            torch.testing.assert_close(shortcuts[0](y), shortcuts[1](y), rtol=0, atol=1e-12)
        assert launches.total() == 1
    torch.manual_seed(0)
    layer = BlockCirculantLinear(32, 48, 4, "triton", dtype=torch.float64)
    expected = y @ layer.weight_dense().T + layer.bias
    torch.testing.assert_close(layer(y), expected, rtol=0, atol=1e-12)


def test_leading_sizes_and_no_rows(interpreter):
    x, weight, bias, _ = _inputs(6, 2, 2, 2, 8)
    flat = activated_paths(x, weight, bias, None, "gelu", torch.float64)
    assert torch.equal(
        activated_paths(x.view(2, 3, 16), weight, bias, None, "gelu", torch.float64), flat.view(2, 3, 16)
    )
    assert activated_paths(x[:0], weight, bias, None, "gelu", torch.float64).shape == (0, 16)


def test_refusals(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, weight, bias, _ = _inputs(2, 1, 2, 2, 8)
    with pytest.raises(UserError, match="CUDA"):
        activated_paths(x, weight, bias, None, "gelu", torch.float64)
    with pytest.raises(UserError, match="even size, got 3"):
        activated_paths(torch.zeros(2, 6), torch.zeros(1, 2, 2, 3), None, None, "gelu", torch.float32)


def test_without_triton(no_triton):
    x, weight, _, _ = _inputs(2, 1, 2, 2, 8)
    with pytest.raises(UserError, match="not installed"):
        block_circulant(x, weight[0], backend="triton")


def test_compiles_for_hopper_without_spilling(compiler):
    from effkit.triton import kernels as load

    kernel = load("augshortcut.ops", "paths_kernel").activated_paths_kernel
    constants = {"T": 2, "H": 48, "K": 192, "C": 192, "ACT": 0, "DOT": "bf16", "ACC": "fp32"}
    constants |= {"PRECISION": "ieee", "EMULATE_BF16": False, "BM": 128, "BC": 32, "BK": 32, "gate_ptr": None}
    types = {"bias_ptr": "*fp32", "*_ptr": "*bf16"}
    compiled = compile_kernel(kernel, types, constants, aligned=["*_ptr"], warps=8, stages=2, capability=90)
    assert "wgmma" in compiled.assembly
    assert compiled.stack <= kernels.SPILLED
