"""The gradient of a fused inner block as a torch operator, ``tnt_vit::inner_block_backward``.

Two launches: the block again and back through it, and the sum of the partial sums of the weights' gradients. How is
said in :mod:`tnt_vit.ops.inner_backward_kernel`. The same input gives the same bits: tiles are not tuned, and the
partial sums do not depend on the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effkit.triton import dot_constants, interpreted, kernels, launch, power_of_two, tf32, widened
from tnt_vit.ops.inner_tiles import check_runnable, chunk_of, tile_shapes
from tnt_vit.ops.inner_torch import InnerParams, inner_backward

__all__ = ["block_gradients", "inner_backward_op"]

_PROGRAMS = 512  # rows of partial sums at most: 28 MB for TNT-S
_SUM_ROWS, _SUM_BLOCK = 32, 64


def fits(width: int, dot_dtype: torch.dtype) -> bool:
    """Whether what the gradients need of a tile fits in registers; else torch's operators go back through the block."""
    exact = dot_dtype == torch.float32 and not tf32()
    return power_of_two(width, 16) <= (32 if exact else 64)


def _tile(padded_words: int, padded_width: int, exact: bool) -> tuple[int, int, int]:
    """Sentences of a tile, warps and stages.

    The forward kernel's first tile, with twice the warps where words are wide: compiled for sm_90 at ``c = 24`` in
    bfloat16, four warps spill 296 bytes a thread.
    """
    if interpreted():
        return max(64 // padded_words, 1), 4, 1
    rows, warps, _ = tile_shapes(padded_words, padded_width, tensor_cores=not exact)[0]
    return rows // padded_words, 8 if padded_width > 16 else warps, 1


def _backward(grad: Tensor, more: Tensor | None, words: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    fields = len(InnerParams._fields)
    params = InnerParams(*rest[:fields])
    num_heads, branch_scale, dot_dtype, grad_dtype = rest[fields:]
    check_runnable(words, dot_dtype)
    sentences, num_words, width = words.shape
    hidden = params.fc1_weight.shape[0]
    num_sums = sum(t.numel() for t in params[:-1] if t is not None)
    if words.numel() == 0:
        return torch.empty_like(words), words.new_zeros(num_sums, dtype=grad_dtype)
    constants = dot_constants(dot_dtype)
    padded_words, padded_width = power_of_two(num_words), power_of_two(width, 16)
    exact = constants["PRECISION"] == "ieee" and dot_dtype == torch.float32
    tile, warps, stages = _tile(padded_words, padded_width, exact)
    tiles = -(-sentences // tile)
    programs = min(tiles, _PROGRAMS)
    given = (words, grad, more)
    words_, grad_, more_ = (None if t is None else widened(t.contiguous()) for t in given)
    tensors = [None if t is None else widened(t.contiguous()) for t in (branch_scale, *params[:-1])]
    out = torch.empty_like(words_)  # type: ignore[arg-type]
    wide = torch.float64 if dot_dtype == torch.float64 else torch.float32
    sums = torch.empty(programs, num_sums, dtype=wide, device=words.device)
    file = kernels(__package__, "inner_backward_kernel")
    launch(
        file.inner_backward_kernel,
        (programs,),
        words_,
        grad_,
        more_,
        out,
        sums,
        *tensors,
        sentences,
        programs,
        -(-tiles // programs),
        num_sums,
        M=num_words,
        MP=padded_words,
        C=width,
        CP=padded_width,
        HEADS=num_heads,
        HIDDEN=hidden,
        CHUNK=chunk_of(hidden, padded_width),
        EPS=params.eps,
        FAST_GELU=dot_dtype in (torch.float16, torch.bfloat16),
        TILE=tile,
        warps=warps,
        stages=stages,
        **constants,
    )
    total = widened(torch.empty(num_sums, dtype=grad_dtype, device=words.device))
    launch(
        file.sum_kernel,
        (-(-num_sums // _SUM_BLOCK),),
        sums,
        total,
        programs,
        num_sums,
        ACC=constants["ACC"],
        ROWS=_SUM_ROWS,
        BLOCK=_SUM_BLOCK,
    )
    return out.to(words.dtype), total.to(grad_dtype)


inner_backward_op = torch.library.custom_op(
    "tnt_vit::inner_block_backward",
    _backward,
    mutates_args=(),
    schema=(
        "(Tensor grad, Tensor? more, Tensor words, Tensor? norm1_weight, Tensor? norm1_bias, Tensor qkv_weight, "
        "Tensor? qkv_bias, Tensor proj_weight, Tensor proj_bias, Tensor? norm2_weight, Tensor? norm2_bias, "
        "Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight, Tensor fc2_bias, float eps, int num_heads, "
        "Tensor? branch_scale, ScalarType dot_dtype, ScalarType grad_dtype) -> (Tensor, Tensor)"
    ),
)


@inner_backward_op.register_fake
def _(grad: Tensor, more: Tensor | None, words: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    params = rest[: len(InnerParams._fields) - 1]
    total = sum(t.numel() for t in params if t is not None)
    return words.new_empty(words.shape), words.new_empty(total, dtype=rest[-1])


def block_gradients(
    grad: Tensor,
    words: Tensor,
    params: InnerParams,
    num_heads: int,
    branch_scale: Tensor | None,
    dot_dtype: torch.dtype,
    more: Tensor | None = None,
) -> tuple[Tensor, InnerParams]:
    """Gradients of one inner block, by the kernels where they fit, else by torch's operators.

    Args:
        grad: Gradient with respect to the output, ``(S, m, c)``.
        words: The block's input, ``(S, m, c)``.
        params: Weights of the block.
        num_heads: Heads.
        branch_scale: ``(2, S)`` factors on both branches, or ``None``.
        dot_dtype: Type of the matrix products.
        more: To be added to ``grad``, or ``None``.

    Returns:
        The gradient with respect to ``words`` and, in an :class:`InnerParams`, to every weight, in their types.
    """
    if not fits(words.shape[2], dot_dtype):
        whole = grad if more is None else grad + more
        return inner_backward(whole, words, params, num_heads, branch_scale, dot_dtype)
    given = [t for t in params[:-1] if t is not None]
    kinds = {t.dtype for t in given}
    grad_dtype = kinds.pop() if len(kinds) == 1 else torch.promote_types(torch.float32, dot_dtype)
    by_words, flat = inner_backward_op(grad, more, words, *params, num_heads, branch_scale, dot_dtype, grad_dtype)
    parts = iter(flat.split([t.numel() for t in given]))
    shaped = [None if t is None else next(parts).view(t.shape).to(t.dtype) for t in params[:-1]]
    return by_words, InnerParams._make([*shaped, params.eps])
