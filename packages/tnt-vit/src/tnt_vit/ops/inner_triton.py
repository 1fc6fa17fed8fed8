"""The fused inner block as torch operators: ``tnt_vit::inner_block`` and ``tnt_vit::inner_stack``.

One kernel (:mod:`tnt_vit.ops.inner_kernel`) serves both; a block is a stack of one layer. Design of this layer:

- Importing this module does not import triton (there is none on macOS); the first call does.
- The operators are opaque to ``torch.compile`` and have shape functions and a gradient, so ``fullgraph=True`` works.
  Only the inputs are saved for the backward pass: :mod:`tnt_vit.ops.inner_backward_triton` recomputes the rest, a block
  in two launches, a stack in one more than two for each layer.
- ``TRITON_INTERPRET=1`` runs the kernel in NumPy on the CPU, see :mod:`effkit.triton`.
- On a GPU a short list of tile shapes is timed at the first call for a problem (words, width, heads, types, size
  class), which takes some seconds. Make that first call outside CUDA graph capture.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from effkit.triton import dot_constants, interpreted, kernels, launch, power_of_two, widened
from tnt_vit.ops.inner_backward_triton import block_gradients
from tnt_vit.ops.inner_tiles import Tile, check_runnable, chunk_of, tile_shapes
from tnt_vit.ops.inner_torch import InnerParams

__all__ = ["inner_block_op", "inner_stack_op"]

_SMALL = 2048  # sentences (ten images of 224): below, a GPU is not full and smaller tiles may win


def _kernel() -> Any:
    """The kernel, decorated for the mode in force."""
    return kernels(__package__, "inner_kernel").inner_stack_kernel


@cache
def _tuned(padded_words: int, tiles: tuple[Tile, ...], _problem: tuple[Any, ...]) -> Any:
    """An autotuner of its own for each problem; all of them share the compiled kernels."""
    import triton

    configs = [triton.Config({"TILE": rows // padded_words}, num_warps=w, num_stages=s) for rows, w, s in tiles]
    return triton.autotune(configs=configs, key=[])(_kernel())


def _launch(
    words: Tensor,
    params: InnerParams,
    num_layers: int,
    num_heads: int,
    branch_scale: Tensor | None,
    dot_dtype: torch.dtype,
) -> Tensor:
    """Run the kernel: words ``(S, m, c)`` to the words after each layer, ``(L, S, m, c)``."""
    check_runnable(words, dot_dtype)
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
        "CHUNK": chunk_of(hidden, padded_width),
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
        tiles = tile_shapes(padded_words, padded_width, tensor_cores=not exact)
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


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    words, *rest = inputs
    *tensors, eps = rest[:_NUM_PARAMS]
    ctx.eps = eps
    ctx.num_heads, branch_scale, ctx.dot_dtype = rest[_NUM_PARAMS:]
    ctx.save_for_backward(words, branch_scale, *tensors)


def _block_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    words, branch_scale, *tensors = ctx.saved_tensors
    params = InnerParams._make([*tensors, ctx.eps])
    grad, grads = block_gradients(grad, words, params, ctx.num_heads, branch_scale, ctx.dot_dtype)
    return grad, *grads[:-1], None, None, None, None


def _stack_backward(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
    words, branch_scale, *tensors = ctx.saved_tensors
    params = InnerParams._make([*tensors, ctx.eps])
    num_layers = grad_out.shape[0]
    # The words after each layer but the last, again: they live only as long as this call.
    before = [words]
    if num_layers > 1:
        lower = InnerParams._make([*(None if t is None else t[:-1] for t in params[:-1]), params.eps])
        scales = None if branch_scale is None else branch_scale[:-1]
        before += inner_stack_op(words, *lower, ctx.num_heads, scales, ctx.dot_dtype).unbind()
    grad, grads = None, []
    for layer in reversed(range(num_layers)):
        scale = None if branch_scale is None else branch_scale[layer]
        grad, of_layer = block_gradients(
            grad_out[layer], before[layer], params.layer(layer), ctx.num_heads, scale, ctx.dot_dtype, grad
        )
        grads.append(of_layer)
    return grad, *InnerParams.stack(grads[::-1])[:-1], None, None, None, None


inner_block_op = torch.library.custom_op("tnt_vit::inner_block", _block, mutates_args=(), schema=_SCHEMA)
inner_block_op.register_fake(lambda words, *rest: words.new_empty(words.shape))
inner_block_op.register_autograd(_block_backward, setup_context=_save)

inner_stack_op = torch.library.custom_op("tnt_vit::inner_stack", _stack, mutates_args=(), schema=_SCHEMA)
inner_stack_op.register_fake(
    lambda words, _norm, _bias, qkv_weight, *rest: words.new_empty((qkv_weight.shape[0], *words.shape))
)
inner_stack_op.register_autograd(_stack_backward, setup_context=_save)
