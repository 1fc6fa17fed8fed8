"""Many chains as one module: same layers side by side, each network with weights, norms and pictures of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ws_nas.ops.stacked import out_side, stacked_conv, stacked_linear, stacked_norm
from ws_nas.supernets.networks.chain import ChainNetwork, Head, InvertedResidual

__all__ = ["StackedChains"]


def _stack(tensors: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([t.detach() for t in tensors]))


class _Conv(nn.Module):
    def __init__(self, convs: Sequence[nn.Conv2d], side: int) -> None:
        super().__init__()
        self.weight = _stack([conv.weight for conv in convs])
        self.side, self.stride, self.groups = side, convs[0].stride[0], convs[0].groups
        self.out_side = out_side(side, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        return stacked_conv(x, self.weight, self.side, self.stride, self.groups)

    def unstack(self, number: int, conv: nn.Conv2d) -> None:
        conv.weight.data.copy_(self.weight[number])


class _Norm(nn.Module):
    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        super().__init__()
        self.weight, self.bias = _stack([n.weight for n in norms]), _stack([n.bias for n in norms])
        self.register_buffer("mean", torch.stack([cast(Tensor, n.running_mean) for n in norms]))
        self.register_buffer("var", torch.stack([cast(Tensor, n.running_var) for n in norms]))
        self.register_buffer("steps", torch.tensor(0))
        self.momentum, self.eps = float(norms[0].momentum or 0.1), norms[0].eps

    def forward(self, x: Tensor) -> Tensor:
        mean, var = cast(Tensor, self.mean), cast(Tensor, self.var)
        if self.training:
            cast(Tensor, self.steps).add_(1)
        how = {"training": self.training, "momentum": self.momentum, "eps": self.eps}
        return stacked_norm(x, mean, var, self.weight, self.bias, **how)  # type: ignore[arg-type]

    def unstack(self, number: int, norm: nn.BatchNorm2d) -> None:
        norm.weight.data.copy_(self.weight[number])
        norm.bias.data.copy_(self.bias[number])
        cast(Tensor, norm.running_mean).copy_(cast(Tensor, self.mean)[number])
        cast(Tensor, norm.running_var).copy_(cast(Tensor, self.var)[number])
        cast(Tensor, norm.num_batches_tracked).copy_(cast(Tensor, self.steps))


class _Sequence(nn.Module):
    """Convolutions, norms and activations after one another; nested sequences are flattened."""

    def __init__(self, sequences: Sequence[nn.Module], side: int) -> None:
        super().__init__()
        flat = [_flat(s) for s in sequences]
        self.parts = nn.ModuleList()
        for same in zip(*flat, strict=True):
            if isinstance(same[0], nn.Conv2d):
                conv = _Conv([cast(nn.Conv2d, m) for m in same], side)
                side = conv.out_side
                self.parts.append(conv)
            elif isinstance(same[0], nn.BatchNorm2d):
                self.parts.append(_Norm([cast(nn.BatchNorm2d, m) for m in same]))
            else:
                self.parts.append(type(same[0])())
        self.out_side = side

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def unstack(self, number: int, sequence: nn.Module) -> None:
        for part, module in zip(self.parts, _flat(sequence), strict=True):
            if isinstance(part, _Conv | _Norm):
                part.unstack(number, module)  # type: ignore[arg-type]


def _flat(module: nn.Module) -> list[nn.Module]:
    """Leaves in order."""
    if isinstance(module, nn.Sequential):
        return [leaf for child in module for leaf in _flat(child)]
    if isinstance(module, InvertedResidual):
        return [leaf for child in (module.expand, module.filter, module.project) for leaf in _flat(child)]
    return [] if isinstance(module, nn.Identity) else [module]


class _Layer(nn.Module):
    """One layer of all networks: those with the same option go together."""

    def __init__(self, layers: Sequence[nn.Module], options: Sequence[int], side: int) -> None:
        super().__init__()
        self.groups = nn.ModuleList()
        order: list[int] = []
        self.sizes: list[int] = []
        self.residual: list[bool] = []
        self.members: list[list[int]] = []
        for option in sorted(set(options)):
            members = [i for i, gene in enumerate(options) if gene == option]
            group = [layers[i] for i in members]
            self.groups.append(_Sequence(group, side))
            self.residual.append(isinstance(group[0], InvertedResidual) and group[0].residual)
            self.sizes.append(len(members))
            self.members.append(members)
            order += members
        self.register_buffer("order", torch.tensor(order))
        self.register_buffer("back", torch.tensor(order).argsort())
        self.out_side = cast(_Sequence, self.groups[0]).out_side

    def forward(self, x: Tensor) -> Tensor:
        if len(self.groups) == 1:
            y = self.groups[0](x)
            return x + y if self.residual[0] else y
        done = []
        for part, group, residual in zip(
            x.index_select(0, cast(Tensor, self.order)).split(self.sizes), self.groups, self.residual, strict=True
        ):
            y = group(part)
            done.append(part + y if residual else y)
        return torch.cat(done).index_select(0, cast(Tensor, self.back))

    def unstack(self, number: int, layer: nn.Module) -> None:
        for group, members in zip(self.groups, self.members, strict=True):
            if number in members:
                cast(_Sequence, group).unstack(members.index(number), layer)


class StackedChains(nn.Module):
    """Chains that are trained at once.

    Args:
        networks: K chains of one space, without dropout; their weights are copied.
        genotypes: Which each is.
        side: Of the pictures.
    """

    def __init__(self, networks: Sequence[ChainNetwork], genotypes: Sequence[Sequence[int]], side: int) -> None:
        super().__init__()
        self.stem = _Sequence([n.stem for n in networks], side)
        at = self.stem.out_side
        self.layers = nn.ModuleList()
        for depth in range(len(genotypes[0])):
            layer = _Layer([n.layers[depth] for n in networks], [g[depth] for g in genotypes], at)
            at = layer.out_side
            self.layers.append(layer)
        self.conv = _Sequence([n.head.conv for n in networks], at)
        self.weight = _stack([n.head.classifier.weight for n in networks])
        self.bias = _stack([n.head.classifier.bias for n in networks])

    def forward(self, x: Tensor) -> Tensor:
        """Answers of each network to pictures of its own.

        Args:
            x: (K, B, C, H, W).

        Returns:
            Logits (K, B, classes).
        """
        x = self.stem(x.flatten(3).transpose(1, 2).contiguous())
        for layer in self.layers:
            x = layer(x)
        return stacked_linear(self.conv(x).mean(3), self.weight, self.bias)

    def loss(self, x: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Sum over the networks of each one's mean cross entropy; labels are (K, B)."""
        logits = self(x).flatten(0, 1)
        found = functional.cross_entropy(logits, labels.flatten(), reduction="sum", label_smoothing=label_smoothing)
        return found / labels.shape[1]

    def unstack(self, number: int, network: ChainNetwork) -> None:
        """Copy what one network has learnt into a network of its own."""
        self.stem.unstack(number, network.stem)
        for layer, module in zip(self.layers, network.layers, strict=True):
            cast(_Layer, layer).unstack(number, module)
        head: Head = network.head
        self.conv.unstack(number, head.conv)
        head.classifier.weight.data.copy_(self.weight[number])
        head.classifier.bias.data.copy_(self.bias[number])
