"""The fused inner block as torch operators: ``tnt_vit::inner_block`` and ``tnt_vit::inner_stack``.

One kernel (:mod:`tnt_vit.ops.inner_kernel`) serves both; a block is a stack of one layer. Design of this layer:

- Importing this module does not import triton (there is none on macOS); the first call does.
- The operators are opaque to ``torch.compile`` and have shape functions and a gradient, so ``fullgraph=True`` works.
  Only the inputs are saved for the backward pass (and, for a stack, its outputs);
  :func:`tnt_vit.ops.inner_torch.inner_backward` recomputes the rest.
- ``TRITON_INTERPRET=1`` runs the kernel in NumPy on the CPU, see :mod:`effkit.triton`.
- On a GPU a short list of tile shapes is timed at the first call for a problem (words, width, heads, types, size
  class), which takes some seconds. Make that first call outside CUDA graph capture.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.triton import check_runs, dot_constants, interpreted, kernels, launch, power_of_two, tf32, widened
from tnt_vit.ops.inner_torch import InnerParams, inner_backward

__all__ = ["inner_block_op", "inner_stack_op", "unsupported"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MAX_WORDS, _MAX_WIDTH = 64, 128  # beyond that a tile's scores or rows do not fit in registers
_SMALL = 2048  # sentences (ten images of 224): below, a GPU is not full and smaller tiles may win

Tile = tuple[int, int, int]


def unsupported(num_words: int, width: int, dtype: torch.dtype, dot_dtype: torch.dtype) -> str | None:
    """What about these words the kernel cannot take, whatever the device; ``None`` if nothing."""
    for kind in (dtype, dot_dtype):
        if kind not in _DTYPES:
            return f"words of type {kind}; allowed are {', '.join(map(str, _DTYPES))}"
    if num_words > _MAX_WORDS or width > _MAX_WIDTH:
        return (
            f"{num_words} words of width {width}; allowed are at most {_MAX_WORDS} words of width at most {_MAX_WIDTH}"
        )
    return None


def _kernel() -> Any:
    """The kernel, decorated for the mode in force."""
    return kernels(__package__, "inner_kernel").inner_stack_kernel


def _chunk(hidden: int, padded_width: int) -> int:
    """Hidden channels at a time: the largest size that needs no padding, more where the words are wide."""
    sizes = (64, 32, 16) if padded_width > 64 else (32, 16)
    return next((size for size in sizes if hidden % size == 0), 32)


def _tiles(padded_words: int, padded_width: int, tensor_cores: bool) -> tuple[Tile, ...]:
    """Candidate ``(rows, warps, stages)``, chosen by registers, spills and barriers of the code compiled for sm_90.

    Hopper's tensor cores want 64 rows and four warps. With two stages all weights of a layer are loaded
    asynchronously while the words are normalised, for twice their size in shared memory. fp32 products without tensor
    cores keep their operands in registers, so those tiles are small and spread over many warps.
    """
    if not tensor_cores:
        shapes = [(32, 8, 1)] if padded_width <= 32 else [(16, 4, 1)]
    elif padded_words >= 64:
        shapes = [(64, 4, 2), (64, 4, 1), (64, 8, 1)]
    elif padded_width <= 32:
        shapes = [(64, 4, 2), (128, 8, 2), (128, 4, 2), (64, 4, 1), (128, 8, 1), (32, 2, 1)]
    elif padded_width <= 64:
        shapes = [(64, 4, 1), (128, 8, 1), (128, 8, 2)]
    else:
        shapes = [(64, 4, 1), (64, 8, 1)]
    group = max(padded_words, 16)
    if group < 64 and tensor_cores:  # batched products: a warp takes whole groups, so give each warp at least one
        shapes = [(max(rows, group * warps), warps, stages) for rows, warps, stages in shapes]
    return tuple(dict.fromkeys((max(rows, group), warps, stages) for rows, warps, stages in shapes))


@cache
def _tuned(padded_words: int, tiles: tuple[Tile, ...], _problem: tuple[Any, ...]) -> Any:
    """An autotuner of its own for each problem; all of them share the compiled kernels."""
    import triton

    configs = [triton.Config({"TILE": rows // padded_words}, num_warps=w, num_stages=s) for rows, w, s in tiles]
    return triton.autotune(configs=configs, key=[])(_kernel())


def _check_runnable(words: Tensor, dot_dtype: torch.dtype) -> None:
    reason = unsupported(words.shape[1], words.shape[2], words.dtype, dot_dtype)
    if reason is not None:
        raise UserError(f"backend='triton' does not take {reason}; use backend='torch'")
    got, move = f"words on device {str(words.device)!r}", "move them to one, set TRITON_INTERPRET=1 (slow, for tests)"
    check_runs(words.device, {words.dtype, dot_dtype}, got=got, advice=f"{move}, or use backend='torch'")
    if not interpreted() and dot_dtype == torch.float32 and words.shape[2] > 64 and not tf32():
        raise UserError(
            f"backend='triton' does not take exact float32 products of words wider than 64, got {words.shape[2]} "
            "(no registers for them); use backend='torch', a narrower dtype, or allow TF32"
        )


def _launch(
    words: Tensor,
    params: InnerParams,
    num_layers: int,
    num_heads: int,
    branch_scale: Tensor | None,
    dot_dtype: torch.dtype,
) -> Tensor:
    """Run the kernel: words ``(S, m, c)`` to the words after each layer, ``(L, S, m, c)``."""
    _check_runnable(words, dot_dtype)
    sentences, num_words, width = words.shape
    shape = (num_layers, sentences, num_words, width)
    if words.numel() == 0:
        return words.new_empty(shape)
    given = (words, branch_scale, *params[:-1])
    tensors = [None if t is None else widened(t.contiguous()) for t in given]
    out = torch.empty(shape, dtype=tensors[0].dtype, device=words.device)  # type: ignore[union-attr]
    padded_words, padded_width = power_of_two(num_words), power_of_two(width, 16)
    hidden = params.fc1_weight.shape[-2]
    constants: dict[str, Any] = {
        "M": num_words,
        "MP": padded_words,
        "C": width,
        "CP": padded_width,
        "HEADS": num_heads,
        "HIDDEN": hidden,
        "CHUNK": _chunk(hidden, padded_width),
        "EPS": params.eps,
        "FAST_GELU": dot_dtype in (torch.float16, torch.bfloat16),
        "LAYERS": num_layers if interpreted() else None,
        **dot_constants(dot_dtype),
    }
    arguments = (tensors[0], out, *tensors[1:], sentences, num_layers)
    if interpreted():
        tile = max(64 // padded_words, 1)
        launch(_kernel(), (-(-sentences // tile),), *arguments, TILE=tile, **constants)
    else:
        exact = constants["PRECISION"] == "ieee" and dot_dtype == torch.float32
        tiles = _tiles(padded_words, padded_width, tensor_cores=not exact)
        kinds = tuple(None if t is None else t.dtype for t in tensors)
        problem = (*constants.values(), kinds, words.device, num_layers > 1, sentences < _SMALL)
        grid = lambda meta: (-(-sentences // meta["TILE"]),)
        launch(_tuned(padded_words, tiles, problem), grid, *arguments, warps=None, stages=None, **constants)
    return out.to(words.dtype)


# What both operators take: words, the fields of InnerParams in their order, and the rest.
_SCHEMA = (
    "(Tensor words, Tensor? norm1_weight, Tensor? norm1_bias, Tensor qkv_weight, Tensor? qkv_bias, "
    "Tensor proj_weight, Tensor proj_bias, Tensor? norm2_weight, Tensor? norm2_bias, Tensor fc1_weight, "
    "Tensor fc1_bias, Tensor fc2_weight, Tensor fc2_bias, float eps, int num_heads, Tensor? branch_scale, "
    "ScalarType dot_dtype) -> Tensor"
)
_NUM_PARAMS = len(InnerParams._fields)


def _block(words: Tensor, *rest: Any) -> Tensor:
    num_heads, branch_scale, dot_dtype = rest[_NUM_PARAMS:]
    return _launch(words, InnerParams(*rest[:_NUM_PARAMS]), 1, num_heads, branch_scale, dot_dtype)[0]


def _stack(words: Tensor, *rest: Any) -> Tensor:
    num_heads, branch_scale, dot_dtype = rest[_NUM_PARAMS:]
    params = InnerParams(*rest[:_NUM_PARAMS])
    return _launch(words, params, params.qkv_weight.shape[0], num_heads, branch_scale, dot_dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor | None) -> None:
    words, *rest = inputs
    *tensors, eps = rest[:_NUM_PARAMS]
    ctx.eps = eps
    ctx.num_heads, branch_scale, ctx.dot_dtype = rest[_NUM_PARAMS:]
    ctx.save_for_backward(words, branch_scale, output, *tensors)


def _block_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _save(ctx, inputs, None)


def _block_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    words, branch_scale, _, *tensors = ctx.saved_tensors
    params = InnerParams._make([*tensors, ctx.eps])
    grad, grads = inner_backward(grad, words, params, ctx.num_heads, branch_scale, ctx.dot_dtype)
    return grad, *grads[:-1], None, None, None, None


def _stack_backward(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
    words, branch_scale, out, *tensors = ctx.saved_tensors
    params = InnerParams._make([*tensors, ctx.eps])
    num_layers = out.shape[0]
    grad = torch.zeros_like(words)
    grads = []
    for layer in reversed(range(num_layers)):
        before = words if layer == 0 else out[layer - 1]
        scale = None if branch_scale is None else branch_scale[layer]
        grad, of_layer = inner_backward(
            grad + grad_out[layer], before, params.layer(layer), ctx.num_heads, scale, ctx.dot_dtype
        )
        grads.append(of_layer)
    return grad, *InnerParams.stack(grads[::-1])[:-1], None, None, None, None


inner_block_op = torch.library.custom_op("tnt_vit::inner_block", _block, mutates_args=(), schema=_SCHEMA)
inner_block_op.register_fake(lambda words, *rest: words.new_empty(words.shape))
inner_block_op.register_autograd(_block_backward, setup_context=_block_save)

inner_stack_op = torch.library.custom_op("tnt_vit::inner_stack", _stack, mutates_args=(), schema=_SCHEMA)
inner_stack_op.register_fake(
    lambda words, _norm, _bias, qkv_weight, *rest: words.new_empty((qkv_weight.shape[0], *words.shape))
)
inner_stack_op.register_autograd(_stack_backward, setup_context=_save)
