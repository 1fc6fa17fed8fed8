"""Chains of layers with a choice each: what NAS-Bench-Macro, the FairNAS space and the digits chain are made of.

A choice is an inverted residual of some expansion and kernel (Sandler et al., CVPR 2018), or nothing; where nothing has
to change the shape, it is a 1 x 1 convolution with its norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ws_nas.supernets.networks.parts import Norm, conv_norm, plain_norm, pooled

__all__ = ["ChainNetwork", "ChainSizes", "InvertedResidual", "Layer", "Option", "make_layer"]


@dataclass(frozen=True)
class Option:
    """An inverted residual; expansion 0 is the identity."""

    expand: int
    kernel: int


@dataclass(frozen=True)
class Layer:
    """Shapes at one layer."""

    source: int
    target: int
    stride: int

    @property
    def changes(self) -> bool:
        """Whether the output has another shape than the input."""
        return self.stride != 1 or self.source != self.target


@dataclass(frozen=True)
class ChainSizes:
    """All sizes of a chain.

    Attributes:
        in_channels: Of the picture.
        classes: Of the answer.
        stem: Channels of the 3 x 3 stem.
        stem_stride: Its stride.
        separable: Channels of a separable convolution after the stem; 0 for none.
        layers: The layers with a choice.
        options: What each may be.
        head: Channels of the last 1 x 1 convolution.
        activation: ``relu`` or ``relu6``.
        dropout: Before the classifier.
    """

    in_channels: int
    classes: int
    stem: int
    stem_stride: int
    separable: int
    layers: tuple[Layer, ...]
    options: tuple[Option, ...]
    head: int
    activation: str
    dropout: float = 0.0


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; plus the input where the shape stays.

    Args:
        layer: Shapes.
        option: Expansion and kernel.
        activation: After the first two convolutions.
        norm: Makes the norms.
    """

    def __init__(self, layer: Layer, option: Option, activation: str, norm: Norm) -> None:
        super().__init__()
        wide = layer.source * option.expand
        self.expand = conv_norm(layer.source, wide, 1, 1, norm, activation=activation)
        self.filter = conv_norm(wide, wide, option.kernel, layer.stride, norm, groups=wide, activation=activation)
        self.project = conv_norm(wide, layer.target, 1, 1, norm)
        self.residual = not layer.changes

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, source, H, W) to (B, target, H / stride, W / stride)."""
        y = self.project(self.filter(self.expand(x)))
        return x + y if self.residual else y


def make_layer(layer: Layer, option: Option, activation: str, norm: Norm) -> nn.Module:
    """One choice of one layer."""
    if option.expand:
        return InvertedResidual(layer, option, activation, norm)
    return conv_norm(layer.source, layer.target, 1, layer.stride, norm) if layer.changes else nn.Identity()


def make_stem(sizes: ChainSizes, norm: Norm) -> nn.Sequential:
    """From the picture to the first layer with a choice."""
    stem = nn.Sequential(
        conv_norm(sizes.in_channels, sizes.stem, 3, sizes.stem_stride, norm, activation=sizes.activation)
    )
    if sizes.separable:
        act = sizes.activation
        stem.append(conv_norm(sizes.stem, sizes.stem, 3, 1, norm, groups=sizes.stem, activation=act))
        stem.append(conv_norm(sizes.stem, sizes.separable, 1, 1, norm))
    return stem


class Head(nn.Module):
    """1 x 1 convolution, global average, dropout, classifier."""

    def __init__(self, sizes: ChainSizes, norm: Norm) -> None:
        super().__init__()
        self.conv = conv_norm(sizes.layers[-1].target, sizes.head, 1, 1, norm, activation=sizes.activation)
        self.dropout = nn.Dropout(sizes.dropout)
        self.classifier = nn.Linear(sizes.head, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, classes)."""
        return self.classifier(self.dropout(pooled(self.conv(x))))


class ChainNetwork(nn.Module):
    """A stand-alone chain.

    Args:
        sizes: All sizes.
        genotype: The index of each layer's option.
        norm: Makes the norms.
    """

    def __init__(self, sizes: ChainSizes, genotype: Sequence[int], norm: Norm | None = None) -> None:
        super().__init__()
        norm = norm or plain_norm()
        self.stem = make_stem(sizes, norm)
        self.layers = nn.ModuleList(
            make_layer(layer, sizes.options[gene], sizes.activation, norm)
            for layer, gene in zip(sizes.layers, genotype, strict=True)
        )
        self.head = Head(sizes, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, classes)."""
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)
