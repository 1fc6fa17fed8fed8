"""What folded models consist of: attention with a bottleneck inside, and paths whose matrices are constants."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import register_notrace_module
from torch import Tensor, nn

from augshortcut.layers.projections import CirculantPaths, DensePaths
from augshortcut.layers.shortcut import AugmentedShortcut
from augshortcut.ops.activations import ACTIVATIONS
from augshortcut.ops.crt import CrtParts
from augshortcut.ops.paths import paths_with_parts
from augshortcut.ops.product import materialise, resolve

__all__ = ["FoldedAttention", "FrozenPaths"]


class FoldedAttention(nn.Module):
    """timm's attention whose qkv also computes the bottlenecks, and whose projection takes them in.

    Args:
        attn: The attention it was.
        qkv: ``(3 d + T d / r)`` rows.
        proj: ``(d + T d / r)`` columns, LayerScale and gates inside.
        act: Activation of the bottlenecks.
    """

    def __init__(self, attn: Any, qkv: nn.Linear, proj: nn.Linear, act: str) -> None:
        super().__init__()
        self.num_heads, self.dim = attn.num_heads, attn.proj.weight.shape[0]
        self.scale, self.act = attn.scale, act
        self.qkv, self.proj, self.q_norm, self.k_norm = qkv, proj, attn.q_norm, attn.k_norm

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attention and bottlenecks, projected together: ``(B, N, d) -> (B, N, d)``."""
        batch, tokens, _ = x.shape
        both = self.qkv(x)
        width = 3 * self.dim
        q, k, v = both[..., :width].reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, is_causal=is_causal, scale=self.scale)
        out = out.transpose(1, 2).reshape(batch, tokens, self.dim)
        return self.proj(torch.cat([out, ACTIVATIONS[self.act](both[..., width:])], dim=-1))


@register_notrace_module
class FrozenPaths(nn.Module):
    """All paths of a sub-layer with their dense parts as constants.

    Args:
        parts: Of all matrices, stacked along the outputs.
        num_paths: T after merging.
        gate: ``(T, d)`` or ``None``.
        act: Name of the activation.
    """

    matrices: Tensor
    biases: Tensor | None
    gate: Tensor | None

    def __init__(self, parts: CrtParts, num_paths: int, gate: Tensor | None, act: str) -> None:
        super().__init__()
        self.num_paths, self.act = num_paths, act
        self.b_out, self.b_in = parts.b_out, parts.b_in
        self.register_buffer("matrices", parts.matrices)
        self.register_buffer("biases", parts.biases)
        self.register_buffer("gate", gate)

    @classmethod
    @torch.no_grad()
    def of(cls, shortcut: AugmentedShortcut) -> nn.Module:
        """The frozen form of paths, or the paths themselves where there is none (bottleneck, Kronecker, a kernel)."""
        paths, config = shortcut.paths, shortcut.config
        if not isinstance(paths, CirculantPaths | DensePaths) or config.backend in ("fft", "triton"):
            return shortcut
        circulant = isinstance(paths, CirculantPaths)
        weight = paths.weight if circulant else paths.weight.unsqueeze(-1)  # a dense matrix: d x d circulants of size 1
        bias: Tensor | None = paths.bias
        gate = shortcut.gate
        if config.act == "identity" and config.gate != "channel":
            gates = torch.ones_like(weight[:, :1, 0, 0]) if gate is None else gate
            weight = (weight * gates[..., None, None]).sum(dim=0, keepdim=True)
            bias = None if bias is None else (bias * gates).sum(dim=0, keepdim=True)
            gate = None
        level = resolve(config.backend, weight.shape[-1], config.crt_level)[1] if circulant else 0
        flat = None if bias is None else bias.flatten()
        parts = materialise(weight.flatten(0, 1), flat, level, weight.dtype)
        return cls(parts, len(weight), gate, config.act)

    def undecayed(self) -> list[str]:
        """No parameters, so none that weight decay would have to leave alone."""
        return []

    def forward(self, y: Tensor) -> Tensor:
        """The paths' sum: ``(..., d) -> (..., d)``."""
        parts = CrtParts(self.matrices, self.biases, self.b_out, self.b_in)
        return paths_with_parts(y, parts, self.num_paths, self.gate, self.act)
