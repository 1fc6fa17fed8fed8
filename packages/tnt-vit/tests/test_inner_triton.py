"""The fused inner block against its specification: through triton's interpreter on a CPU, compiled on a GPU.

The specification is ``inner_reference`` in float64. The interpreter also runs the kernel in float64, which checks its
logic to the last digits; narrower types follow the tolerance rule of ``effkit.testing``.
"""

import ast
from pathlib import Path

import pytest
import torch

import effkit.notes
from effkit.errors import UserError
from effkit.testing import assert_close_to_reference, count_launches, kernels
from effkit.triton import compile_kernel, power_of_two
from effkit.triton import kernels as kernel_file
from tnt_vit import ops
from tnt_vit.ops import InnerParams, inner_block, inner_stack
from tnt_vit.ops import inner_backward_triton as fused_backward
from tnt_vit.ops import inner_triton as fused
from tnt_vit.ops.inner_backward_triton import block_gradients
from tnt_vit.ops.inner_tiles import chunk_of, tile_shapes
from tnt_vit.ops.inner_torch import inner_backward, inner_reference, inner_torch

# (words, width, heads): Tables 1 and 8 of the paper, the digits recipe, and sizes that are no power of two.
VARIANTS = [(16, 24, 4), (16, 12, 2), (16, 40, 4), (64, 6, 3), (4, 96, 4), (4, 12, 3), (9, 10, 2)]
TNT_S = VARIANTS[0]
HALF = [torch.bfloat16, torch.float16]

device, interpreter, no_triton = kernels.device, kernels.interpreter, kernels.no_triton
compiler, needs_triton = kernels.compiler, kernels.needs_triton


def _params(width, *, folded=False, layers=(), hidden=None, seed=0):
    """Random float64 weights; every one of them matters, and the branches are as large as the residual."""
    generator = torch.Generator().manual_seed(seed)
    hidden = hidden or 4 * width

    def random(*shape, mean=0.0, std=width**-0.5):
        return mean + std * torch.randn(*layers, *shape, generator=generator, dtype=torch.float64)

    return InnerParams(
        norm1_weight=None if folded else random(width, mean=1.0, std=0.2),
        norm1_bias=None if folded else random(width),
        qkv_weight=random(3 * width, width, std=1.5 * width**-0.5),
        qkv_bias=random(3 * width) if folded else None,
        proj_weight=random(width, width),
        proj_bias=random(width),
        norm2_weight=None if folded else random(width, mean=1.0, std=0.2),
        norm2_bias=None if folded else random(width),
        fc1_weight=random(hidden, width, std=1.5 * width**-0.5),
        fc1_bias=random(hidden),
        fc2_weight=random(width, hidden),
        fc2_bias=random(width),
    )


def _words(sentences, num_words, width, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + torch.randn(sentences, num_words, width, generator=generator, dtype=torch.float64)


def _to(params, *args):
    return InnerParams._make([*(t if t is None else t.to(*args) for t in params[:-1]), params.eps])


def _tensors(params):
    return [t for t in params[:-1] if t is not None]


def _requires_grad(params):
    return InnerParams._make([*(t if t is None else t.detach().requires_grad_() for t in params[:-1]), params.eps])


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(("num_words", "width", "heads"), VARIANTS)
def test_torch_path_equals_the_equations(num_words, width, heads, folded):
    params, words = _params(width, folded=folded), _words(5, num_words, width)
    scale = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for branch_scale in (None, scale):
        expected = inner_reference(words, params, heads, branch_scale)
        torch.testing.assert_close(inner_torch(words, params, heads, branch_scale), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("sentences", [1, 7])
@pytest.mark.parametrize(("num_words", "width", "heads"), VARIANTS)
def test_kernel_logic_in_float64(interpreter, num_words, width, heads, sentences, folded):
    params, words = _params(width, folded=folded), _words(sentences, num_words, width)
    out = inner_block(words, params, heads, backend="triton")
    torch.testing.assert_close(out, inner_reference(words, params, heads), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num_words", "width", "heads"), [TNT_S, (4, 96, 4)])
def test_many_tiles_and_a_partial_one(interpreter, num_words, width, heads):
    params, words = _params(width), _words(129, num_words, width)
    out = inner_block(words, params, heads, backend="triton")
    torch.testing.assert_close(out, inner_reference(words, params, heads), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("num_words", "width", "heads"), VARIANTS)
def test_tolerance_rule(device, num_words, width, heads, dtype):
    params, words = _to(_params(width), dtype), _words(7, num_words, width).to(dtype)
    reference = inner_reference(words.double(), _to(params, torch.float64), heads)
    params, words = _to(params, device), words.to(device)
    if device == "cuda" and dtype == torch.float32 and width > 64:
        with pytest.raises(UserError, match="exact float32 products of words wider than 64, got 96"):
            inner_block(words, params, heads, backend="triton")
        return
    same_dtype = inner_torch(words, params, heads)
    assert_close_to_reference(inner_block(words, params, heads, backend="triton"), same_dtype, reference)


@pytest.mark.parametrize("sentences", [1, 129])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.gpu
def test_partial_tiles_and_folded_norms_on_gpu(sentences, folded):
    num_words, width, heads = TNT_S
    params, words = _params(width, folded=folded), _words(sentences, num_words, width)
    reference = inner_reference(words, params, heads)
    words, params = words.to("cuda", torch.bfloat16), _to(params, "cuda", torch.bfloat16)
    out = inner_block(words, params, heads, backend="triton")
    assert_close_to_reference(out, inner_torch(words, params, heads), reference)


def test_non_contiguous_words_and_weights(device):
    num_words, width, heads = TNT_S
    dtype = torch.float64 if device == "cpu" else torch.float32
    params, words = _to(_params(width), device, dtype), _words(7, num_words, width).to(device, dtype)
    expected = inner_block(words, params, heads, backend="triton")
    strided = words.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    turned = params._replace(proj_weight=params.proj_weight.T.contiguous().T)
    assert not turned.proj_weight.is_contiguous()
    out = inner_block(strided, turned, heads, backend="triton")
    assert out.is_contiguous()
    assert torch.equal(out, expected)


def test_no_sentences(device):
    num_words, width, heads = TNT_S
    params, words = _to(_params(width), device, torch.float32), torch.empty(0, num_words, width, device=device)
    for backend in ("triton", "torch", "reference"):
        assert inner_block(words, params, heads, backend=backend).shape == (0, num_words, width)


def test_branch_scale_drops_single_sentences(device):
    num_words, width, heads = TNT_S
    dtype = torch.float64 if device == "cpu" else torch.float32
    params, words = _params(width), _words(7, num_words, width)
    scale = torch.tensor([[0, 0, 1, 1.25, 1, 0, 1], [0, 1.25, 0, 1, 1, 0, 1]], dtype=torch.float64)
    reference = inner_reference(words, params, heads, scale)
    words, params, scale = words.to(device, dtype), _to(params, device, dtype), scale.to(device, dtype)
    out = inner_block(words, params, heads, backend="triton", branch_scale=scale)
    assert_close_to_reference(out, inner_torch(words, params, heads, scale), reference)
    assert torch.equal(out[0], words[0])  # both branches dropped


def test_wide_residual_survives_half_precision_products(device):
    """Under autocast only the products are narrow: a small update of a large word is not lost."""
    num_words, width, heads = TNT_S
    params, words = _params(width), 1000 + _words(7, num_words, width)
    reference = inner_reference(words, params, heads)
    words, params = words.to(device, torch.float32), _to(params, device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        out, same = (inner_block(words, params, heads, backend=backend) for backend in ("triton", "torch"))
    assert out.dtype == torch.float32
    assert_close_to_reference(out, same, reference)
    assert (out - reference.to(device)).abs().max() < 0.1  # bfloat16 words would be off by up to 2


def test_fast_gelu(device):
    """Half-precision products use a polynomial: at most 2e-4 off between -4 and 4, exact outside, rounding aside."""
    x = torch.linspace(-8, 8, 128)
    zeros, eye = torch.zeros(128), torch.eye(128)
    params = InnerParams(
        None, None, torch.zeros(384, 128), None, 0 * eye, zeros, None, None, 0 * eye, x, eye, zeros
    )  # the output is gelu(fc1_bias)
    words = torch.zeros(1, 1, 128, device=device)
    out = fused.inner_block_op(words, *_to(params, device), 4, None, torch.float16)[0, 0].cpu()
    expected = torch.nn.functional.gelu(x.double())
    error = (out - expected).abs() - expected.abs() * 2**-11  # the hidden layer is rounded to half precision
    assert error.max() < 2e-4
    assert error[x.abs() > 4.5].max() < 1e-5


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_closed_form_gradient_equals_autograd(folded, scaled):
    num_words, width, heads = TNT_S
    params, words = _requires_grad(_params(width, folded=folded)), _words(5, num_words, width).requires_grad_()
    scale = torch.tensor([[0.0, 1, 2, 1, 0.5], [1.0, 0, 1, 2, 0.5]], dtype=torch.float64) if scaled else None
    grad = _words(5, num_words, width, seed=3)
    out = inner_reference(words, params, heads, scale)
    expected = torch.autograd.grad(out, [words, *_tensors(params)], grad)
    by_words, by_params = inner_backward(grad, words.detach(), _to(params, torch.float64), heads, scale)
    for ours, theirs in zip([by_words, *_tensors(by_params)], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("num_words", "width", "heads", "folded"),
    [
        (*TNT_S, False),
        (16, 12, 2, True),
        (64, 6, 3, False),
        (9, 10, 2, True),
        pytest.param(4, 12, 3, False, marks=pytest.mark.slow),
        pytest.param(16, 40, 4, True, marks=pytest.mark.slow),
    ],
)
def test_backward_kernel_in_float64(interpreter, monkeypatch, num_words, width, heads, folded):
    """Several programs of several tiles, the last one partial; whole sentences dropped."""
    monkeypatch.setattr(fused_backward, "_PROGRAMS", 2)
    sentences = 3 * max(64 // power_of_two(num_words), 1) - 1
    params, words = _params(width, folded=folded), _words(sentences, num_words, width)
    grad, more = _words(sentences, num_words, width, seed=3), _words(sentences, num_words, width, seed=4)
    scale = (torch.rand(2, sentences, generator=torch.Generator().manual_seed(2)) > 0.3).double() * 1.5
    expected, by_params = inner_backward(grad + more, words, params, heads, scale)
    found, found_params = block_gradients(grad, words, params, heads, scale, torch.float64, more)
    for ours, theirs in zip([found, *_tensors(found_params)], [expected, *_tensors(by_params)], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_gradients_through_the_operator(device, dtype):
    num_words, width, heads = TNT_S
    params, words = _params(width), _words(7, num_words, width)
    grad = _words(7, num_words, width, seed=3)

    def gradients(backend, dtype, device):
        leaf, leaves = words.to(device, dtype).requires_grad_(), _requires_grad(_to(params, device, dtype))
        out = inner_block(leaf, leaves, heads, backend=backend)
        return list(torch.autograd.grad(out, [leaf, *_tensors(leaves)], grad.to(device, dtype)))

    reference = gradients("reference", torch.float64, "cpu")
    assert_close_to_reference(gradients("triton", dtype, device), gradients("torch", dtype, device), reference)


def test_the_same_input_has_the_same_gradients(device, monkeypatch):
    """Also where the sums are many: nothing depends on which program is the first to finish."""
    monkeypatch.setattr(fused_backward, "_PROGRAMS", 3)
    params, words = _to(_params(12), device, torch.float32), _words(20, 4, 12).to(device, torch.float32)
    results = [block_gradients(words.cos(), words, params, 3, None, torch.float32) for _ in range(2)]
    (first, by_first), (second, by_second) = results
    assert all(map(torch.equal, [first, *_tensors(by_first)], [second, *_tensors(by_second)]))


def test_launches_and_what_is_kept(interpreter):
    """Of a block one launch, back two; of a stack one, back one and two a layer. Nothing but the input is kept."""
    params, words = _to(_params(12, layers=(3,)), torch.float32), _words(5, 4, 12).float()
    one = _requires_grad(params.layer(0))
    leaf = words.clone().requires_grad_()
    forward = count_launches(lambda: inner_block(leaf, one, 3, "triton"))
    assert forward.by_name == {"launches": {"inner_stack_kernel": 1}, "copies": {}, "reads": {}}
    backward = count_launches(lambda: torch.autograd.grad(forward.result, [leaf, *_tensors(one)], words))
    assert backward.by_name == {
        "launches": {"inner_backward_kernel": 1, "sum_kernel": 1}, "copies": {}, "reads": {},
    }  # fmt: skip
    layers, kept = _requires_grad(params), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        counted = count_launches(lambda: inner_stack(leaf, layers, 3, "triton"))
    assert counted.launches == 1
    of_params = {t.data_ptr() for t in _tensors(layers)}
    assert [t.data_ptr() for t in kept if t.data_ptr() not in of_params] == [leaf.data_ptr()]
    backward = count_launches(lambda: torch.autograd.grad(counted.result.unbind()[2], leaf, words))
    assert backward.by_name["launches"].items() >= {"inner_backward_kernel": 3, "inner_stack_kernel": 1}.items()


def test_wide_words_go_back_by_torch():
    """What a tile's gradients need would not fit in registers."""
    fits = fused_backward.fits
    assert (fits(64, torch.bfloat16), fits(65, torch.bfloat16)) == (True, False)
    assert (fits(32, torch.float32), fits(33, torch.float32)) == (True, False)


def test_gradcheck_of_the_torch_path():
    params, words = _requires_grad(_params(6)), _words(2, 4, 6).requires_grad_()
    block = lambda words, *tensors: inner_torch(words, InnerParams(*tensors[:3], None, *tensors[3:]), 2)
    assert torch.autograd.gradcheck(block, (words, *_tensors(params)), fast_mode=True)


def test_gradcheck_of_the_operator(interpreter):
    params, words = _requires_grad(_params(6)), _words(2, 4, 6).requires_grad_()
    block = lambda words, *tensors: inner_block(words, InnerParams(*tensors[:3], None, *tensors[3:]), 2, "triton")
    assert torch.autograd.gradcheck(block, (words, *_tensors(params)), fast_mode=True)


def test_stack_equals_layer_after_layer(device):
    num_words, width, heads = TNT_S
    dtype = torch.float64 if device == "cpu" else torch.bfloat16
    params, words = _params(width, layers=(3,)), _words(7, num_words, width)
    scale = torch.rand(3, 2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for branch_scale in (None, scale):
        reference = inner_stack(words, params, heads, "reference", branch_scale)
        y, p = words.to(device, dtype), _to(params, device, dtype)
        s = None if branch_scale is None else branch_scale.to(device, dtype)
        out = inner_stack(y, p, heads, "triton", s)
        assert_close_to_reference(out, inner_stack(y, p, heads, "torch", s), reference)
    joined = InnerParams.stack([params.layer(i) for i in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(_tensors(joined), _tensors(params), strict=True))


def test_gradients_through_the_stack(interpreter):
    params, words = _params(12, layers=(3,)), _words(5, 4, 12)
    grad = torch.stack([_words(5, 4, 12, seed=i) for i in range(3)])
    results = []
    for backend in ("triton", "reference"):
        leaf, leaves = words.clone().requires_grad_(), _requires_grad(params)
        out = inner_stack(leaf, leaves, 3, backend)
        results.append(torch.autograd.grad(out, [leaf, *_tensors(leaves)], grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


# opcheck itself reads .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("layers", [(), (2,)], ids=["block", "stack"])
def test_operators_are_registered_correctly(device, layers):
    params = _requires_grad(_to(_params(12, layers=layers), device, torch.float32))
    words = _words(3, 4, 12).to(device, torch.float32).requires_grad_()
    op = fused.inner_stack_op if layers else fused.inner_block_op
    checks = ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
    torch.library.opcheck(op, (words, *params, 3, None, torch.float32), test_utils=checks[: 3 if layers else 4])


# Inductor recommends TF32 on GPUs that have it; these tests want exact float32.
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
@pytest.mark.parametrize("backend", ["auto", "triton", "torch"])
def test_compiles_without_graph_break(device, backend):
    """Forward and backward; on a CPU with ``aot_eager``, which needs no C++ compiler."""
    torch._dynamo.reset()
    num_words, width, heads = 4, 12, 3
    params = _requires_grad(_to(_params(width), device, torch.float32))
    words = _words(5, num_words, width).to(device, torch.float32).requires_grad_()

    def function(words, params):
        out = inner_block(words + 1, params, heads, backend=backend).square()
        with torch.autocast(device, torch.bfloat16):
            return out, inner_block(words, params, heads, backend=backend)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager" if device == "cpu" else "inductor")
    (expected, expected_half), (out, out_half) = function(words, params), compiled(words, params)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out_half, expected_half, rtol=2e-2, atol=2e-2)
    assert not torch.equal(out_half, inner_block(words, params, heads, backend=backend))  # autocast was seen
    leaves = [words, *_tensors(params)]
    expected_grads, grads = (torch.autograd.grad(y.sum(), leaves) for y in (expected, out))
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-4)


def test_auto_is_torch_without_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    params, words = _params(12), _words(3, 4, 12)
    assert torch.equal(inner_block(words, params, 3), inner_block(words, params, 3, backend="torch"))


@pytest.mark.gpu
def test_auto_is_triton_on_gpu(caplog, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(effkit.notes, "_said", set())
    params, words = _to(_params(24), "cuda", torch.bfloat16), _words(3, 16, 24).to("cuda", torch.bfloat16)
    with caplog.at_level("INFO", logger="tnt_vit.ops"):
        for _ in range(2):
            inner_block(words, params, 4)
    assert [record.message.endswith("backend triton") for record in caplog.records] == [True]  # said once


@needs_triton
def test_triton_without_gpu_says_what_to_do(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match=r"CUDA device, got words on device 'cpu'.*TRITON_INTERPRET=1.*backend='torch'"):
        inner_block(_words(3, 4, 12), _params(12), 3, backend="triton")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "cuda"}, "backend='cuda' is not known, choose one of auto, triton, torch, reference"),
        ({"num_heads": 5}, "num_heads=5 must divide the width 12"),
        ({"words": torch.zeros(4, 12)}, r"words must have the shape \(sentences, words, width\), got \(4, 12\)"),
        ({"words": torch.zeros(3, 4, 12, dtype=torch.long)}, "words must be floating point, got torch.int64"),
        ({"words": torch.zeros(3, 4, 24)}, r"norm1_weight must have the shape \(24,\).*got \(12,\)"),
        ({"params": _params(12)._replace(norm2_bias=None)}, "norm2_weight and norm2_bias must both be given or both"),
        ({"branch_scale": torch.ones(2, 4)}, r"branch_scale must have the shape \(2, 3\), got \(2, 4\)"),
        ({"branch_scale": torch.ones(2, 3, requires_grad=True)}, "branch_scale is a constant.*detach"),
    ],
)
def test_mistakes_are_named(change, message):
    arguments = {"words": _words(3, 4, 12), "params": _params(12), "num_heads": 3, "backend": "torch", **change}
    with pytest.raises(UserError, match=message):
        inner_block(**arguments)


def test_words_too_large_for_the_kernel(interpreter):
    with pytest.raises(UserError, match=r"256 words of width 6; allowed are at most 64 words of width at most 128"):
        inner_block(_words(1, 256, 6), _params(6), 3, backend="triton")


def test_nothing_imports_triton_at_import():
    """There is no triton on macOS: only the kernel's own file, loaded at the first call, may import it at the top."""
    package = Path(ops.__file__).parents[1]
    importing = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in getattr(node, "names", [])]
            )
            importing += [file.name for name in names if isinstance(name, str) and name.split(".")[0] == "triton"]
    assert set(importing) == {"inner_kernel.py"}


def test_without_triton_the_error_names_it(no_triton):
    with pytest.raises(UserError, match="needs the package triton, which is not installed; use backend='torch'"):
        inner_block(_words(3, 4, 12), _params(12), 3, backend="triton")


@needs_triton
@pytest.mark.parametrize(
    ("num_words", "width", "heads", "dtype", "count"),
    [
        (16, 12, 2, "bf16", 1),
        *(pytest.param(*variant, "bf16", None, marks=pytest.mark.slow) for variant in VARIANTS[:4]),
        *(pytest.param(*variant, "fp32", None, marks=pytest.mark.slow) for variant in VARIANTS[:3]),
        pytest.param(4, 96, 4, "bf16", 1, marks=pytest.mark.slow),
    ],
)
def test_tiles_compile_for_hopper(compiler, num_words, width, heads, dtype, count):
    """The real compiler needs no GPU: the candidate tiles become sm_90 code that fits in shared memory."""
    kernel = fused._kernel()
    padded_words, padded_width = power_of_two(num_words), power_of_two(width, 16)
    constants = {
        "M": num_words,
        "MP": padded_words,
        "C": width,
        "CP": padded_width,
        "HEADS": heads,
        "HIDDEN": 4 * width,
        "CHUNK": chunk_of(4 * width, padded_width),
        "EPS": 1e-5,
        "DOT": dtype,
        "ACC": "fp32",
        "PRECISION": "ieee",
        "FAST_GELU": dtype != "fp32",
        "EMULATE_BF16": False,
        "LAYERS": None,
        "scale_ptr": None,
        "qkv_bias_ptr": None,
    }
    for rows, warps, stages in tile_shapes(padded_words, padded_width, tensor_cores=dtype != "fp32")[:count]:
        fixed = {**constants, "TILE": rows // padded_words}
        compiled = compile_kernel(kernel, {"*_ptr": f"*{dtype}"}, fixed, warps=warps, stages=stages)
        assert compiled.binary
        assert compiled.shared <= 227 * 1024, (rows, warps, stages)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(("num_words", "width", "heads"), [(16, 12, 2), TNT_S])
def test_backward_compiles_for_hopper(compiler, num_words, width, heads):
    padded_words, padded_width = power_of_two(num_words), power_of_two(width, 16)
    tile, warps, stages = fused_backward._tile(padded_words, padded_width, exact=False)
    constants = {"M": num_words, "MP": padded_words, "C": width, "CP": padded_width, "HEADS": heads, "TILE": tile}
    constants |= {"HIDDEN": 4 * width, "CHUNK": chunk_of(4 * width, padded_width), "EPS": 1e-5, "DOT": "bf16"}
    constants |= {"ACC": "fp32", "PRECISION": "ieee", "FAST_GELU": True, "EMULATE_BF16": False}
    constants |= dict.fromkeys(["scale_ptr", "qkv_bias_ptr", "more_ptr"])
    types = {"sums_ptr": "*fp32", "*_weight_ptr": "*fp32", "*_bias_ptr": "*fp32", "*_ptr": "*bf16"}
    file = kernel_file("tnt_vit.ops", "inner_backward_kernel")
    compiled = compile_kernel(file.inner_backward_kernel, types, constants, warps=warps, stages=stages)
    assert compiled.shared <= 227 * 1024
    assert compiled.stack <= 192  # bytes a thread that are spilled
    sums = {"ACC": "fp32", "ROWS": fused_backward._SUM_ROWS, "BLOCK": fused_backward._SUM_BLOCK}
    assert compile_kernel(file.sum_kernel, {"*_ptr": "*fp32"}, sums).stack == 0


@pytest.mark.gpu
def test_many_images_on_gpu():
    """400 images of 224: 78,400 sentences, beyond the 65,535 that stop torch's fused attention."""
    num_words, width, heads = TNT_S
    params, words = _params(width), _words(78_400, num_words, width)
    words, params = words.to("cuda", torch.bfloat16), _to(params, "cuda", torch.bfloat16)
    reference = inner_torch(words.float(), _to(params, torch.float32), heads)
    assert_close_to_reference(
        inner_block(words, params, heads, backend="triton"), inner_torch(words, params, heads), reference
    )


@pytest.mark.gpu
@pytest.mark.slow
def test_more_than_two_to_the_31_elements_on_gpu():
    num_words, width, heads = TNT_S
    size = 4096  # the same size class, hence the same tile, as the whole
    sentences = 2**31 // (num_words * width) + 2 * size
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free GPU memory")
    params = _to(_params(width), "cuda", torch.bfloat16)
    part = _words(size, num_words, width).to("cuda", torch.bfloat16)
    words = part.repeat(-(-sentences // size), 1, 1)[:sentences]
    out = inner_block(words, params, heads, backend="triton")
    expected = inner_block(part, params, heads, backend="triton")
    for start in (0, sentences // size * size - size):
        assert torch.equal(out[start : start + size], expected)


@pytest.mark.gpu
def test_replays_in_a_cuda_graph():
    num_words, width, heads = TNT_S
    params, words = (
        _to(_params(width), "cuda", torch.bfloat16),
        _words(196, num_words, width).to("cuda", torch.bfloat16),
    )
    expected = inner_block(words, params, heads, backend="triton")  # tunes outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = inner_block(words, params, heads, backend="triton")
    out.zero_()
    graph.replay()
    assert torch.equal(out, expected)
