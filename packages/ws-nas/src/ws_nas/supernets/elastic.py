"""An elastic block: one set of weights from which blocks of several kernels and expansions are cut (Cai et al., 2020).

A smaller kernel is the centre of the larger one times a learnt matrix, one a block, the identity at the start; 3 is cut
from 5, and 5 from 7. A smaller expansion is the first channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ws_nas.supernets.networks.mobile import Block, BlockShape, divisible
from ws_nas.supernets.networks.parts import ACTIVATIONS, Norm, like, thinned
from ws_nas.supernets.norm import BatchNorm

__all__ = ["ElasticBatchNorm", "ElasticBlock", "ElasticConv2d"]


class ElasticBatchNorm(BatchNorm):
    """The norm of the first channels, as many as the input has."""

    def plain(self, x: Tensor) -> Tensor:
        """Without a session: by the batch in training, else by running statistics."""
        channels = x.shape[1]
        mean, var = self.running_mean, self.running_var
        use_batch = self.training or mean is None
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return functional.batch_norm(
            x,
            None if mean is None else mean[:channels],
            None if var is None else var[:channels],
            *self.scale_and_shift(channels),
            use_batch,
            momentum,
            self.eps,
        )


class ElasticConv2d(nn.Module):
    """A convolution of which the first channels run; depthwise ones also with a smaller kernel.

    Args:
        source: Most input channels.
        target: Most output channels.
        kernels: Kernels in rising order; one unless depthwise.
        stride: Of the convolution.
        depthwise: One filter a channel.
    """

    def __init__(
        self, source: int, target: int, kernels: Sequence[int], stride: int = 1, *, depthwise: bool = False
    ) -> None:
        super().__init__()
        self.kernels, self.stride, self.depthwise = tuple(kernels), stride, depthwise
        largest = max(kernels)
        made = nn.Conv2d(source, target, largest, groups=source if depthwise else 1, bias=False)
        self.weight = nn.Parameter(made.weight.detach().clone())
        self.matrices = nn.ParameterDict(
            {f"{large}to{small}": nn.Parameter(torch.eye(small**2)) for small, large in itertools.pairwise(kernels)}
        )

    def kernel_weight(self, kernel: int, target: int, source: int) -> Tensor:
        """The weight of some size: (target, source, kernel, kernel), or (target, 1, kernel, kernel) if depthwise."""
        weight = self.weight[:target] if self.depthwise else self.weight[:target, :source]
        for small, large in reversed(list(itertools.pairwise(self.kernels))):
            if large <= kernel:
                break
            edge = (large - small) // 2
            centre = weight[:, :, edge : edge + small, edge : edge + small]
            matrix = self.matrices[f"{large}to{small}"]
            weight = functional.linear(centre.flatten(2), matrix).unflatten(2, (small, small))
        return weight

    def forward(self, x: Tensor, target: int, kernel: int | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, target, H / stride, W / stride).

        Args:
            x: As many of the first channels as there are.
            target: Output channels.
            kernel: One of the kernels; the largest if not given.
        """
        kernel = self.kernels[-1] if kernel is None else kernel
        weight = self.kernel_weight(kernel, target, x.shape[1])
        return functional.conv2d(x, weight, None, self.stride, kernel // 2, 1, x.shape[1] if self.depthwise else 1)


class ElasticSqueeze(nn.Module):
    """Squeeze and excite on the first channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = divisible(channels // 4)
        self.reduce, self.expand = nn.Conv2d(channels, middle, 1), nn.Conv2d(middle, channels, 1)

    def weights(self, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights and biases of both maps for so many channels."""
        middle = divisible(channels // 4)
        first, second = self.reduce, self.expand
        assert first.bias is not None
        assert second.bias is not None
        return (
            first.weight[:middle, :channels],
            first.bias[:middle],
            second.weight[:channels, :middle],
            second.bias[:channels],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        w1, b1, w2, b2 = self.weights(x.shape[1])
        middle = functional.relu(functional.conv2d(x.mean((2, 3), keepdim=True), w1, b1))
        return x * functional.hardsigmoid(functional.conv2d(middle, w2, b2))


class ElasticBlock(nn.Module):
    """A block with kernel and expansion to choose.

    Args:
        shape: Shapes.
        kernels: In rising order.
        expands: In rising order.
        norm: Makes the norms.

    Attributes:
        drop_connect: How often a block with a residual gives a picture nothing but its input, in training.
    """

    def __init__(
        self, shape: BlockShape, kernels: Sequence[int], expands: Sequence[int], norm: Callable[[int], nn.BatchNorm2d]
    ) -> None:
        super().__init__()
        self.shape, self.drop_connect = shape, 0.0
        wide = shape.wide(max(expands))
        self.expand, self.expand_norm = ElasticConv2d(shape.source, wide, [1]), norm(wide)
        self.filter = ElasticConv2d(wide, wide, sorted(kernels), shape.stride, depthwise=True)
        self.filter_norm = norm(wide)
        self.squeeze = ElasticSqueeze(wide) if shape.squeeze else None
        self.activation = ACTIVATIONS[shape.activation]()
        self.project, self.project_norm = ElasticConv2d(wide, shape.target, [1]), norm(shape.target)

    def forward(self, x: Tensor, kernel: int, expand: int) -> Tensor:
        """Map (B, source, H, W) to (B, target, H / stride, W / stride)."""
        wide = self.shape.wide(expand)
        y = self.activation(self.expand_norm(self.expand(x, wide)))
        y = self.activation(self.filter_norm(self.filter(y, wide, kernel)))
        y = y if self.squeeze is None else self.squeeze(y)
        y = self.project_norm(self.project(y, self.shape.target))
        if not self.shape.residual:
            return y
        return x + (thinned(y, self.drop_connect) if self.training and self.drop_connect else y)

    def export(self, kernel: int, expand: int, norm: Norm) -> Block:
        """The block of some kernel and expansion, with copies of its weights."""
        wide, block = self.shape.wide(expand), Block(self.shape, kernel, expand, norm)
        like(block, self)
        parts = (
            (block.expand, self.expand, self.expand_norm, wide, self.shape.source, 1),
            (block.filter, self.filter, self.filter_norm, wide, wide, kernel),
            (block.project, self.project, self.project_norm, self.shape.target, wide, 1),
        )
        with torch.no_grad():
            for plain, conv, elastic, target, source, size in parts:
                assert isinstance(plain, nn.Sequential)
                plain[0].weight.copy_(conv.kernel_weight(size, target, source))  # type: ignore[operator]
                for name, value in elastic.state_dict().items():
                    plain[1].state_dict()[name].copy_(value[:target] if value.dim() else value)
            if self.squeeze is not None:
                assert block.squeeze is not None
                found = block.squeeze
                kept = (found.reduce.weight, found.reduce.bias, found.expand.weight, found.expand.bias)
                for to, value in zip(kept, self.squeeze.weights(wide), strict=True):
                    assert to is not None
                    to.copy_(value)
        return block

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Order the channels inside by how much the projection makes of them, the most first.

        The largest block computes the same as before; smaller ones keep the channels that count. Importance is the L1
        norm of the projection's weights of a channel; equal ones keep their order.
        """
        order = _falling(self.project.weight.abs().sum((0, 2, 3)))
        self.project.weight.copy_(self.project.weight[:, order])
        for conv, norm in ((self.expand, self.expand_norm), (self.filter, self.filter_norm)):
            conv.weight.copy_(conv.weight[order])
            for value in norm.state_dict().values():
                if value.dim():
                    value.copy_(value[order])
        if self.squeeze is not None:
            first, second = self.squeeze.reduce, self.squeeze.expand
            assert first.bias is not None
            assert second.bias is not None
            first.weight.copy_(first.weight[:, order])
            second.weight.copy_(second.weight[order])
            second.bias.copy_(second.bias[order])
            inner = _falling(second.weight.abs().sum((0, 2, 3)))
            first.weight.copy_(first.weight[inner])
            first.bias.copy_(first.bias[inner])
            second.weight.copy_(second.weight[:, inner])


def _falling(importance: Tensor) -> Tensor:
    return importance.argsort(descending=True, stable=True)
