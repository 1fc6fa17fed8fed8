r"""The inner block in plain torch: the specification of the fused kernel, its fallback, and its backward pass.

One inner block of TNT (paper, equations 6 and 7) on the words of ``S`` sentences:

.. math:: Y' = Y + \mathrm{MSA}(\mathrm{LN}(Y)), \qquad Y_{out} = Y' + \mathrm{MLP}(\mathrm{LN}(Y'))

:func:`inner_reference` spells it out with einsum, :func:`inner_torch` uses torch's fused operators and keeps the
arithmetic types explicit, :func:`inner_backward` is the gradient in closed form: it starts from the inputs alone, so
a caller saves nothing else.

Shape legend: ``S`` sentences (images times patches), ``m`` words a sentence, ``c`` word width, ``h`` heads, ``d``
head width, ``L`` layers, ``o`` output features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["InnerParams", "inner_backward", "inner_reference", "inner_torch"]

_aten = torch.ops.aten


class InnerParams(NamedTuple):
    """Weights of one inner block; with a leading axis ``L`` in every tensor, of ``L`` blocks.

    Attributes:
        norm1_weight: ``(c,)`` affine of the norm before attention; ``None`` if it is folded into ``qkv``.
        norm1_bias: ``(c,)``, or ``None`` together with ``norm1_weight``.
        qkv_weight: ``(3c, c)``; rows are queries, keys, values, each head after head.
        qkv_bias: ``(3c,)`` or ``None``; the published models have none, but folding the norm's bias in makes one.
        proj_weight: ``(c, c)`` output projection of the attention.
        proj_bias: ``(c,)``.
        norm2_weight: ``(c,)`` affine of the norm before the MLP; ``None`` if it is folded into ``fc1``.
        norm2_bias: ``(c,)``, or ``None`` together with ``norm2_weight``.
        fc1_weight: ``(hidden, c)``.
        fc1_bias: ``(hidden,)``.
        fc2_weight: ``(c, hidden)``.
        fc2_bias: ``(c,)``.
        eps: Added to the variance in both norms.
    """

    norm1_weight: Tensor | None
    norm1_bias: Tensor | None
    qkv_weight: Tensor
    qkv_bias: Tensor | None
    proj_weight: Tensor
    proj_bias: Tensor
    norm2_weight: Tensor | None
    norm2_bias: Tensor | None
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor
    eps: float = 1e-5

    def layer(self, index: int) -> InnerParams:
        """Weights of one layer out of stacked ones."""
        return InnerParams._make([*(None if t is None else t[index] for t in self[:-1]), self.eps])

    @staticmethod
    def stack(layers: Sequence[InnerParams]) -> InnerParams:
        """Join the weights of equal layers along a new first axis, for :func:`tnt_vit.ops.inner_stack`."""
        joined = [
            None if group[0] is None else torch.stack(group) for group in zip(*(p[:-1] for p in layers), strict=True)
        ]
        return InnerParams._make([*joined, layers[0].eps])


def inner_reference(words: Tensor, params: InnerParams, num_heads: int, branch_scale: Tensor | None = None) -> Tensor:
    """The block as the equations read, without one fused operator; the specification the tests use in float64.

    Args:
        words: ``(S, m, c)``.
        params: Weights of the block.
        num_heads: Heads ``h``, dividing ``c``.
        branch_scale: ``(2, S)`` factors on the attention and the MLP branch of each sentence (stochastic depth), or
            ``None``.

    Returns:
        New words ``(S, m, c)``.
    """

    def norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        x = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + params.eps)
        return x if weight is None or bias is None else x * weight + bias

    scale1, scale2 = (1.0, 1.0) if branch_scale is None else branch_scale[:, :, None, None]
    qkv = torch.einsum("smc,oc->smo", norm(words, params.norm1_weight, params.norm1_bias), params.qkv_weight)
    if params.qkv_bias is not None:
        qkv = qkv + params.qkv_bias
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).unbind(2)
    scores = torch.einsum("sqhd,skhd->shqk", q, k) / q.shape[-1] ** 0.5
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    weights = weights / weights.sum(-1, keepdim=True)
    mixed = torch.einsum("shqk,skhd->sqhd", weights, v).flatten(-2)
    words = words + scale1 * (torch.einsum("smc,oc->smo", mixed, params.proj_weight) + params.proj_bias)
    hidden = (
        torch.einsum("smc,oc->smo", norm(words, params.norm2_weight, params.norm2_bias), params.fc1_weight)
        + params.fc1_bias
    )
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    return words + scale2 * (torch.einsum("smo,co->smc", hidden, params.fc2_weight) + params.fc2_bias)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _branch(update: Tensor, words: Tensor, branch_scale: Tensor | None, index: int) -> Tensor:
    """The branch's output in the words' type, scaled per sentence."""
    update = update.to(words.dtype)
    return update if branch_scale is None else update * branch_scale[index].to(words.dtype)[:, None, None]


def inner_torch(
    words: Tensor,
    params: InnerParams,
    num_heads: int,
    branch_scale: Tensor | None = None,
    dot_dtype: torch.dtype | None = None,
) -> Tensor:
    """The block with torch's own operators: every device, every floating type, differentiable by autograd.

    Attention is two matrix products around a softmax: with 16 words and heads 6 wide that beats
    ``scaled_dot_product_attention`` on a CPU, and on a GPU it does not meet the grid limit of 65,535 sequences.

    Args:
        words: ``(S, m, c)``.
        params: Weights of the block; cast to the types used here.
        num_heads: Heads ``h``, dividing ``c``.
        branch_scale: ``(2, S)`` factors on the attention and the MLP branch of each sentence, or ``None``.
        dot_dtype: Type of the matrix products (autocast); that of ``words`` if not given. Norms and residuals keep
            the words'.

    Returns:
        New words ``(S, m, c)`` in the type of ``words``.
    """
    kind = words.dtype
    dot = dot_dtype or kind
    width = words.shape[-1]

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight.to(dot), _cast(bias, dot))

    x = F.layer_norm(words, (width,), _cast(params.norm1_weight, kind), _cast(params.norm1_bias, kind), params.eps)
    qkv = linear(x.to(dot), params.qkv_weight, params.qkv_bias)
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1).to(dot)
    mixed = (weights @ v).transpose(1, 2).flatten(-2)
    words = words + _branch(linear(mixed, params.proj_weight, params.proj_bias), words, branch_scale, 0)
    x = F.layer_norm(words, (width,), _cast(params.norm2_weight, kind), _cast(params.norm2_bias, kind), params.eps)
    hidden = F.gelu(linear(x.to(dot), params.fc1_weight, params.fc1_bias))
    return words + _branch(linear(hidden, params.fc2_weight, params.fc2_bias), words, branch_scale, 1)


def _weight_grads(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Gradients of a linear layer's weight and bias, in their own types."""
    grad = grad.flatten(0, 1)
    by_bias = None if bias is None else grad.sum(0, dtype=torch.promote_types(bias.dtype, grad.dtype)).to(bias.dtype)
    return (grad.T @ x.flatten(0, 1)).to(weight.dtype), by_bias


def inner_backward(
    grad: Tensor,
    words: Tensor,
    params: InnerParams,
    num_heads: int,
    branch_scale: Tensor | None = None,
    dot_dtype: torch.dtype | None = None,
) -> tuple[Tensor, InnerParams]:
    """Gradient of :func:`inner_torch` in closed form, recomputing the forward pass from its inputs.

    Written with aten operators rather than by running autograd inside a backward pass, so that ``torch.compile``
    traces it.

    Args:
        grad: Gradient with respect to the output, ``(S, m, c)``.
        words: The block's input, ``(S, m, c)``.
        params: As in the forward pass.
        num_heads: As in the forward pass.
        branch_scale: As in the forward pass; treated as a constant.
        dot_dtype: As in the forward pass.

    Returns:
        The gradient with respect to ``words`` and, in an :class:`InnerParams`, to every weight.
    """
    kind = words.dtype
    dot = dot_dtype or kind
    shape = [words.shape[-1]]
    gain1, gain2 = _cast(params.norm1_weight, kind), _cast(params.norm2_weight, kind)
    shift1, shift2 = _cast(params.norm1_bias, kind), _cast(params.norm2_bias, kind)
    w_qkv, w_proj = params.qkv_weight.to(dot), params.proj_weight.to(dot)
    w_fc1, w_fc2 = params.fc1_weight.to(dot), params.fc2_weight.to(dot)
    grad = grad.to(kind)

    # Forward again, keeping what the gradients need.
    x1, mean1, rstd1 = torch.native_layer_norm(words, shape, gain1, shift1, params.eps)
    x1 = x1.to(dot)
    qkv = F.linear(x1, w_qkv, _cast(params.qkv_bias, dot))
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    scale = q.shape[-1] ** -0.5
    weights = ((q * scale) @ k.transpose(-2, -1)).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).flatten(-2)
    middle = words + _branch(F.linear(mixed, w_proj, params.proj_bias.to(dot)), words, branch_scale, 0)
    x2, mean2, rstd2 = torch.native_layer_norm(middle, shape, gain2, shift2, params.eps)
    x2 = x2.to(dot)
    before = F.linear(x2, w_fc1, params.fc1_bias.to(dot))
    hidden = F.gelu(before)

    # MLP branch.
    g = _branch(grad, words, branch_scale, 1).to(dot)
    d_fc2, d_fc2_bias = _weight_grads(g, hidden, params.fc2_weight, params.fc2_bias)
    g = _aten.gelu_backward(g @ w_fc2, before)
    d_fc1, d_fc1_bias = _weight_grads(g, x2, params.fc1_weight, params.fc1_bias)
    g = (g @ w_fc1).to(kind)
    affine2 = [True, gain2 is not None, gain2 is not None]
    g, d_gain2, d_shift2 = _aten.native_layer_norm_backward(g, middle, shape, mean2, rstd2, gain2, shift2, affine2)
    grad = grad + g

    # Attention branch.
    g = _branch(grad, words, branch_scale, 0).to(dot)
    d_proj, d_proj_bias = _weight_grads(g, mixed, params.proj_weight, params.proj_bias)
    g = (g @ w_proj).unflatten(-1, (num_heads, -1)).transpose(1, 2)
    d_v = weights.transpose(-2, -1) @ g
    g = scale * _aten._softmax_backward_data(g @ v.transpose(-2, -1), weights, -1, weights.dtype)
    g = torch.stack([g @ k, g.transpose(-2, -1) @ q, d_v]).permute(1, 3, 0, 2, 4).flatten(2)
    d_qkv, d_qkv_bias = _weight_grads(g, x1, params.qkv_weight, params.qkv_bias)
    g = (g @ w_qkv).to(kind)
    affine1 = [True, gain1 is not None, gain1 is not None]
    g, d_gain1, d_shift1 = _aten.native_layer_norm_backward(g, words, shape, mean1, rstd1, gain1, shift1, affine1)

    def like(value: Tensor | None, target: Tensor | None) -> Tensor | None:
        return None if value is None or target is None else value.to(target.dtype)

    return grad + g, InnerParams(
        norm1_weight=like(d_gain1, params.norm1_weight),
        norm1_bias=like(d_shift1, params.norm1_bias),
        qkv_weight=d_qkv,
        qkv_bias=d_qkv_bias,
        proj_weight=d_proj,
        proj_bias=d_proj_bias,  # type: ignore[arg-type]
        norm2_weight=like(d_gain2, params.norm2_weight),
        norm2_bias=like(d_shift2, params.norm2_bias),
        fc1_weight=d_fc1,
        fc1_bias=d_fc1_bias,  # type: ignore[arg-type]
        fc2_weight=d_fc2,
        fc2_bias=d_fc2_bias,  # type: ignore[arg-type]
        eps=params.eps,
    )
