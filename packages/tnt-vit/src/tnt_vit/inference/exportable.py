"""The form of an :class:`~tnt_vit.inference.optimize.InferenceTNT` that exporters like.

Nothing happens in place, and no kernel is of one machine: writes into rows of a buffer become scatters in an exported
graph, and packed weights exist on torch's CPU backend only. What is left of the rewriting is what any runtime profits
from: one product for the stem, folded norms, the words' bilinear attention.
"""

from __future__ import annotations

import copy
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnt_vit.inference.optimize import InferenceTNT
from tnt_vit.inference.packed import PackedLinear
from tnt_vit.layers.checks import check_input
from tnt_vit.layers.stem import patchify
from tnt_vit.model import TNT

__all__ = ["ExportableTNT"]


class _PlainLinear(nn.Module):
    """What a :class:`PackedLinear` computes, with torch's own linear."""

    def __init__(self, packed: PackedLinear) -> None:
        super().__init__()
        self.weight, self.bias, self.gelu = nn.Parameter(packed.weight, False), None, packed.gelu
        if packed.bias is not None:
            self.bias = nn.Parameter(packed.bias, False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)
        return F.gelu(out) if self.gelu else out


def _unpack(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, PackedLinear):
            setattr(module, name, _PlainLinear(child))
        else:
            _unpack(child)


class ExportableTNT(InferenceTNT):
    """A TNT rewritten for inference, out of place; any batch of at least one picture runs as a whole.

    Args:
        model: The trained model; stays as it is.
    """

    def __init__(self, model: TNT) -> None:
        super().__init__(copy.deepcopy(model).eval(), "layers", tile=sys.maxsize, images=sys.maxsize)
        _unpack(self)

    def _features(self, x: Tensor, *, read_class: bool) -> Tensor:
        check_input(x, self.in_chans, self.img_size, self.patch_size, dynamic=False)
        batch, n, dim = x.shape[0], self.sentence_pos.shape[1], self.sentence_pos.shape[2]
        if self.legacy:
            words = self.stem(x, self.pixel_pos).contiguous()
        else:
            words = self.stem(patchify(x, self.patch_size).flatten(1)).view(-1, self.num_words, self.inner_dim)
        flat = words.view(batch * n, self.num_words * self.inner_dim)
        first = self.project_norm(self.project(self.flat_normalize(flat))).view(batch, n, dim) + self.sentence_pos
        z = torch.cat([self.first.expand(batch, -1, -1), first], dim=1)
        for i, (inner, outer) in enumerate(zip(self.inner, self.outer, strict=True)):
            if self.has_inner[i]:
                words = inner.words(words, None)
                z = z + F.pad(inner.update(words).view(batch, n, dim), (0, 0, 1, 0))
            if i + 1 < len(self.outer):
                z = outer(z)
        return self.norm(self.outer[-1].class_token(z) if read_class else self.outer[-1](z))
