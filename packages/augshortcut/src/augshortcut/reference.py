r"""The method again, naive and obviously right, in plain loops and tensors: the specification of the fast paths.

Symbols as in the paper: N tokens, d width, T paths, b circulant blocks per side, n the size of one block. A
block-circulant matrix is a grid of ``b_out x b_in`` circulants; that of block ``(i, j)`` is
:math:`C_{ij}[r, s] = w_{ij}[(r - s) \bmod n]`, so its first column is :math:`w_{ij}`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "GELU_LIPSCHITZ",
    "circulant_matrix",
    "convolve",
    "distance_to_constant",
    "gelu",
    "nearest_block_circulant",
    "official_logits",
    "paths",
    "spread",
    "textbook_multiplications",
]

# The largest slope of x Phi(x), at x = sqrt(2): Phi(sqrt 2) + sqrt 2 phi(sqrt 2).
GELU_LIPSCHITZ = 0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi)


def circulant_matrix(weight: Tensor) -> Tensor:
    """The dense matrix of a block-circulant one: column s of a block is the first one, turned s times.

    Args:
        weight: ``(b_out, b_in, n)``.

    Returns:
        ``(b_out n, b_in n)``.
    """
    columns = [[torch.stack([w.roll(s) for s in range(weight.shape[2])], dim=1) for w in row] for row in weight]
    return torch.cat([torch.cat(row, dim=1) for row in columns])


def convolve(weight: Tensor, x: Tensor) -> Tensor:
    """The same product as sums of circular convolutions, without a matrix: ``(..., b_in n) -> (..., b_out n)``."""
    b_out, b_in, n = weight.shape
    out = x.new_zeros(*x.shape[:-1], b_out * n)
    for i in range(b_out):
        for r in range(n):
            for j in range(b_in):
                for s in range(n):
                    out[..., i * n + r] += weight[i, j, (r - s) % n] * x[..., j * n + s]
    return out


def nearest_block_circulant(matrix: Tensor, b_out: int, b_in: int) -> Tensor:
    """Weights of the block-circulant matrix nearest to a dense one: means along its wrapped diagonals."""
    n = matrix.shape[0] // b_out
    weight = matrix.new_zeros(b_out, b_in, n)
    for i in range(b_out):
        for j in range(b_in):
            for k in range(n):
                entries = [matrix[i * n + r, j * n + (r - k) % n] for r in range(n)]
                weight[i, j, k] = sum(entries) / n
    return weight


def gelu(x: Tensor) -> Tensor:
    """Exact GELU: ``x Phi(x)``."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def paths(y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The sum of all paths of one sub-layer: ``sum_t GELU(Theta_t y + beta_t)`` (equations 4 and 5).

    Args:
        y: ``(..., d)``.
        weight: ``(T, b, b, n)``.
        bias: ``(T, d)``.

    Returns:
        ``(..., d)``.
    """
    out = torch.zeros_like(y)
    for t in range(weight.shape[0]):
        out = out + gelu(y @ circulant_matrix(weight[t]).T + (0 if bias is None else bias[t]))
    return out


def distance_to_constant(x: Tensor) -> float:
    """d_M of a matrix ``(N, d)``: Frobenius distance to the nearest matrix of equal rows, which is that of the mean."""
    mean = sum(row for row in x) / x.shape[0]
    return math.sqrt(sum(float((row - mean).square().sum()) for row in x))


def spread(attention: Tensor) -> float:
    r"""Lambda of an attention map ``(N, N)``: the largest eigenvalue of :math:`A^T (I - e e^T) A`, e = 1/sqrt(N)."""
    n = attention.shape[0]
    centre = torch.eye(n, dtype=attention.dtype) - torch.full((n, n), 1 / n, dtype=attention.dtype)
    return float(torch.linalg.eigvalsh(attention.T @ centre @ attention).max())


def textbook_multiplications(dim: int, num_blocks: int) -> int:
    """Real multiplications per token of one d x d projection by FFT, as the paper's cost column counts them.

    Four for each of the ``b^2 (n/2 + 1)`` complex products, and ``2 b n log2 n`` for ``b`` forward and ``b`` inverse
    transforms of real vectors. The increments of the paper's cost column come out of this count.
    """
    n = dim // num_blocks
    return round(4 * num_blocks**2 * (n / 2 + 1) + 2 * num_blocks * n * math.log2(n))


def official_logits(state: dict[str, Tensor], x: Tensor, num_heads: int, scale: float) -> Tensor:
    """A ViT of the official code, from a state dict in its layout: the formulation line by line, as functions.

    Args:
        state: Weights by the official names; a path is activated where the mode has two of them.
        x: Pictures ``(B, C, H, W)``.
        num_heads: Heads.
        scale: Of the residual stream after each sub-layer: 0.75 in the modes with two paths, else 1.

    Returns:
        Logits ``(B, classes)``.
    """
    functional = torch.nn.functional

    def linear(name: str, y: Tensor) -> Tensor:
        return functional.linear(y, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(name: str, y: Tensor) -> Tensor:
        return functional.layer_norm(y, y.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def path(prefix: str, y: Tensor) -> Tensor | float:
        for name, activated in ((prefix, False), (f"{prefix}.0", True)):
            if f"{name}.bias" not in state:
                continue
            matrix = state.get(f"{name}.weight")
            if matrix is None:
                vector, dim = state[f"{name}.weight_list"], y.shape[-1]
                blocks = vector.numel() // dim
                matrix = circulant_matrix(vector.view(blocks, blocks, dim // blocks))
            z = functional.linear(y, matrix, state[f"{name}.bias"])
            return gelu(z) if activated else z
        return 0.0

    patches = state["patch_embed.proj.weight"]
    x = (
        functional.conv2d(x, patches, state["patch_embed.proj.bias"], stride=patches.shape[2])
        .flatten(2)
        .transpose(1, 2)
    )
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    for i in range(depth):
        block = f"blocks.{i}"
        y = norm(f"{block}.norm1", x)
        q, k, v = (
            t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in linear(f"{block}.attn.qkv", y).chunk(3, -1)
        )
        attention = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        branch = linear(f"{block}.attn.proj", (attention @ v).transpose(1, 2).flatten(2))
        x = scale * (x + branch + path(f"{block}.augs_attn", y) + path(f"{block}.augs_attn2", y))
        y = norm(f"{block}.norm2", x)
        branch = linear(f"{block}.mlp.fc2", gelu(linear(f"{block}.mlp.fc1", y)))
        x = scale * (x + branch + path(f"{block}.augs", y) + path(f"{block}.augs2", y))
    return linear("head", norm("norm", x)[:, 0])
