"""The inner block on tensors, and the one place that chooses between its implementations.

:func:`inner_block` runs one inner block (equations 6 and 7 of the paper) and :func:`inner_stack` all of them in a
row, which is possible because the words never read the sentences. Backends:

- ``triton``: one fused kernel (CUDA, or ``TRITON_INTERPRET=1`` for tests).
- ``torch``: torch's own operators; every device and type.
- ``reference``: the equations spelled out.
- ``auto``: ``triton`` where it can run and is meant to be fast, else ``torch``; logged once for each kind of input.

Importing this module does not import triton.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from effkit.errors import UserError, choose
from effkit.notes import say_once
from effkit.triton import why_not
from tnt_vit.ops.inner_tiles import unsupported
from tnt_vit.ops.inner_torch import InnerParams, inner_reference, inner_torch
from tnt_vit.ops.inner_triton import inner_block_op, inner_stack_op

__all__ = ["BACKENDS", "InnerParams", "inner_block", "inner_stack"]

BACKENDS = ("auto", "triton", "torch", "reference")


def _dot_dtype(words: Tensor) -> torch.dtype:
    """Type of the matrix products: autocast's if it is on, else the words'."""
    kind = words.device.type
    if kind in ("cpu", "cuda", "mps", "xpu") and torch.is_autocast_enabled(kind):  # "meta" would raise
        return torch.get_autocast_dtype(kind)
    return words.dtype


# Under torch.compile the choice is made once, while tracing, outside the traced graph.
@torch.compiler.assume_constant_result
def _auto(device: torch.device, dtype: torch.dtype, dot_dtype: torch.dtype, num_words: int, width: int) -> str:
    backend = "torch"
    if why_not(device, {dtype, dot_dtype}, auto=True) is None:
        # Wide words in exact float32 spill registers: no tensor cores there.
        slow = dot_dtype == torch.float32 and width > 32
        if unsupported(num_words, width, dtype, dot_dtype) is None and not slow:
            backend = "triton"
    line = f"inner block of {num_words} words of width {width}, {dtype} on {device.type}: backend {backend}"
    say_once(line, __name__, logging.INFO)
    return backend


def _check(
    words: Tensor, params: InnerParams, num_heads: int, branch_scale: Tensor | None, layers: tuple[int, ...]
) -> None:
    if words.ndim != 3:
        raise UserError(f"words must have the shape (sentences, words, width), got {tuple(words.shape)}")
    if not words.is_floating_point():
        raise UserError(f"words must be floating point, got {words.dtype}; convert them, e.g. with .float()")
    width = words.shape[2]
    if num_heads < 1 or width % num_heads != 0:
        raise UserError(f"num_heads={num_heads} must divide the width {width} of the words")
    hidden = params.fc1_bias.shape[-1]
    expected = {
        "norm1_weight": (width,),
        "norm1_bias": (width,),
        "qkv_weight": (3 * width, width),
        "qkv_bias": (3 * width,),
        "proj_weight": (width, width),
        "proj_bias": (width,),
        "norm2_weight": (width,),
        "norm2_bias": (width,),
        "fc1_weight": (hidden, width),
        "fc1_bias": (hidden,),
        "fc2_weight": (width, hidden),
        "fc2_bias": (width,),
    }
    for name, shape in expected.items():
        tensor = getattr(params, name)
        if tensor is not None and tuple(tensor.shape) != (*layers, *shape):
            raise UserError(
                f"{name} must have the shape {(*layers, *shape)} for words of width {width}, got {tuple(tensor.shape)}"
            )
    for norm in ("norm1", "norm2"):
        if (getattr(params, f"{norm}_weight") is None) != (getattr(params, f"{norm}_bias") is None):
            raise UserError(f"{norm}_weight and {norm}_bias must both be given or both be None (folded)")
    if branch_scale is not None:
        if tuple(branch_scale.shape) != (*layers, 2, words.shape[0]):
            raise UserError(
                f"branch_scale must have the shape {(*layers, 2, words.shape[0])}, got {tuple(branch_scale.shape)}"
            )
        if branch_scale.requires_grad:
            raise UserError(
                "branch_scale is a constant of the block, but requires_grad is True; pass branch_scale.detach()"
            )


def _choose(backend: str, words: Tensor, dot_dtype: torch.dtype) -> str:
    choose("backend", backend, BACKENDS)
    return _auto(words.device, words.dtype, dot_dtype, words.shape[1], words.shape[2]) if backend == "auto" else backend


def inner_block(
    words: Tensor, params: InnerParams, num_heads: int, backend: str = "auto", branch_scale: Tensor | None = None
) -> Tensor:
    """Run one inner block: ``y + MSA(LN(y))``, then ``y + MLP(LN(y))`` (equations 6 and 7).

    Differentiable with every backend. Under autocast the matrix products run in its type, norms, softmax and
    residuals in the words' (the Triton kernel keeps the last three in float32 always).

    Args:
        words: Words of all sentences, ``(S, m, c)``; ``S`` may be 0.
        params: Weights of the block; they may have another floating type than the words.
        num_heads: Heads; must divide ``c``. The softmax scale is ``(c / num_heads) ** -0.5``.
        backend: ``auto``, ``triton``, ``torch`` or ``reference``.
        branch_scale: Factors ``(2, S)`` on the attention and the MLP branch of each sentence, without gradient: 0 or
            ``1 / keep_prob`` for stochastic depth. ``None`` for 1.

    Returns:
        New words ``(S, m, c)``, contiguous, in the type of ``words``.

    Raises:
        UserError: If shapes disagree, or ``backend="triton"`` cannot run here.

    Example:
        >>> shapes = [24, 24, (72, 24), 72, (24, 24), 24, 24, 24, (96, 24), 96, (24, 96), 24]
        >>> params = InnerParams(*(torch.zeros(s) for s in shapes))
        >>> inner_block(torch.randn(196, 16, 24), params, num_heads=4).shape
        torch.Size([196, 16, 24])
    """
    _check(words, params, num_heads, branch_scale, ())
    dot_dtype = _dot_dtype(words)
    chosen = _choose(backend, words, dot_dtype)
    if chosen == "triton":
        return inner_block_op(words, *params, num_heads, branch_scale, dot_dtype)
    if chosen == "reference":
        return inner_reference(words, params, num_heads, branch_scale)
    return inner_torch(words, params, num_heads, branch_scale, dot_dtype)


def inner_stack(
    words: Tensor, params: InnerParams, num_heads: int, backend: str = "auto", branch_scale: Tensor | None = None
) -> Tensor:
    """Run ``L`` inner blocks one after another and return the words after each.

    The fused kernel reads the words once for all layers and keeps them in registers in float32 in between.

    Args:
        words: Words of all sentences, ``(S, m, c)``.
        params: Stacked weights, every tensor with a leading axis ``L``; see :meth:`InnerParams.stack`.
        num_heads: Heads; must divide ``c``.
        backend: ``auto``, ``triton``, ``torch`` or ``reference``.
        branch_scale: Factors ``(L, 2, S)``, see :func:`inner_block`.

    Returns:
        Words after each layer, ``(L, S, m, c)``.

    Raises:
        UserError: If shapes disagree, or ``backend="triton"`` cannot run here.
    """
    num_layers = params.qkv_weight.shape[0]
    _check(words, params, num_heads, branch_scale, (num_layers,))
    dot_dtype = _dot_dtype(words)
    chosen = _choose(backend, words, dot_dtype)
    if chosen == "triton":
        return inner_stack_op(words, *params, num_heads, branch_scale, dot_dtype)
    outs = []
    for layer in range(num_layers):
        scale = None if branch_scale is None else branch_scale[layer]
        if chosen == "reference":
            words = inner_reference(words, params.layer(layer), num_heads, scale)
        else:
            words = inner_torch(words, params.layer(layer), num_heads, scale, dot_dtype)
        outs.append(words)
    return torch.stack(outs)
