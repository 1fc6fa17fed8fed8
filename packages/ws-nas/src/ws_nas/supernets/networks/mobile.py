"""Networks of the once-for-all space: MobileNetV3 with kernel, expansion and depth to choose (Cai et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from ws_nas.supernets.networks.parts import ACTIVATIONS, Norm, conv_norm, plain_norm

__all__ = ["Block", "BlockShape", "MobileNetwork", "MobileSizes", "Squeeze", "Stage", "blocks_of", "divisible"]


class Stage(NamedTuple):
    """A stage of blocks: channels, stride of the first block, activation, and whether blocks squeeze and excite."""

    width: int
    stride: int
    activation: str
    squeeze: bool


@dataclass(frozen=True)
class MobileSizes:
    """All sizes, and what may be chosen.

    Attributes:
        in_channels: Of the picture.
        classes: Of the answer.
        stem: Channels of the stem and of the fixed first block.
        stem_stride: Of the stem.
        stages: The elastic stages.
        depths: Blocks a stage may have.
        kernels: Kernels a block may have.
        expands: Expansions a block may have.
        final: Channels before the average.
        features: Channels after it.
        dropout: Before the classifier.
    """

    in_channels: int
    classes: int
    stem: int
    stem_stride: int
    stages: tuple[Stage, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expands: tuple[int, ...]
    final: int
    features: int
    dropout: float = 0.0


class BlockShape(NamedTuple):
    """Shapes at one place."""

    source: int
    target: int
    stride: int
    activation: str
    squeeze: bool

    @property
    def residual(self) -> bool:
        """Whether the input is added."""
        return self.stride == 1 and self.source == self.target

    def wide(self, expand: int) -> int:
        """Channels inside."""
        return divisible(self.source * expand)


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple, and not less than 90 % of the value: the rounding of MobileNets."""
    found = max(by, int(channels + by / 2) // by * by)
    return found + by if found < 0.9 * channels else found


def first_shape(sizes: MobileSizes) -> BlockShape:
    """The fixed block after the stem: expansion 1, kernel 3."""
    return BlockShape(sizes.stem, sizes.stem, 1, "relu", False)


def blocks_of(sizes: MobileSizes) -> list[list[BlockShape]]:
    """The places of each stage, as many as it may have blocks."""
    source, found = sizes.stem, []
    for stage in sizes.stages:
        places = []
        for i in range(max(sizes.depths)):
            stride = stage.stride if i == 0 else 1
            places.append(BlockShape(source, stage.width, stride, stage.activation, stage.squeeze))
            source = stage.width
        found.append(places)
    return found


class Squeeze(nn.Module):
    """Squeeze and excite: channels are weighted by what all of them show on average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = divisible(channels // 4)
        self.reduce, self.expand = nn.Conv2d(channels, middle, 1), nn.Conv2d(middle, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        weights = self.expand(nn.functional.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * nn.functional.hardsigmoid(weights)


class Block(nn.Module):
    """Expand (unless there is nothing to expand), filter each channel, squeeze and excite, project."""

    def __init__(self, shape: BlockShape, kernel: int, expand: int, norm: Norm) -> None:
        super().__init__()
        wide = shape.source if expand == 1 else shape.wide(expand)
        act = shape.activation
        self.expand = nn.Identity() if expand == 1 else conv_norm(shape.source, wide, 1, 1, norm, activation=act)
        self.filter = conv_norm(wide, wide, kernel, shape.stride, norm, groups=wide)
        self.squeeze = Squeeze(wide) if shape.squeeze else None
        self.activation = ACTIVATIONS[act]()
        self.project = conv_norm(wide, shape.target, 1, 1, norm)
        self.residual = shape.residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, source, H, W) to (B, target, H / stride, W / stride)."""
        y = self.activation(self.filter(self.expand(x)))
        y = self.project(y if self.squeeze is None else self.squeeze(y))
        return x + y if self.residual else y


class Head(nn.Module):
    """1 x 1 convolution, global average, another 1 x 1 convolution, dropout, classifier."""

    def __init__(self, sizes: MobileSizes, norm: Norm) -> None:
        super().__init__()
        self.final = conv_norm(sizes.stages[-1].width, sizes.final, 1, 1, norm, activation="hswish")
        self.features = nn.Conv2d(sizes.final, sizes.features, 1, bias=False)
        self.dropout = nn.Dropout(sizes.dropout)
        self.classifier = nn.Linear(sizes.features, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, classes)."""
        x = self.features(self.final(x).mean((2, 3), keepdim=True))
        return self.classifier(self.dropout(nn.functional.hardswish(x).flatten(1)))


def make_stem(sizes: MobileSizes, norm: Norm) -> nn.Sequential:
    """Stem and fixed first block."""
    return nn.Sequential(
        conv_norm(sizes.in_channels, sizes.stem, 3, sizes.stem_stride, norm, activation="hswish"),
        Block(first_shape(sizes), 3, 1, norm),
    )


class MobileNetwork(nn.Module):
    """A stand-alone network.

    Args:
        sizes: All sizes.
        blocks: Of each stage, the (kernel, expansion) of its blocks.
        norm: Makes the norms.
    """

    def __init__(
        self, sizes: MobileSizes, blocks: Sequence[Sequence[tuple[int, int]]], norm: Norm | None = None
    ) -> None:
        super().__init__()
        norm = norm or plain_norm()
        self.stem = make_stem(sizes, norm)
        self.blocks = nn.Sequential(
            *(
                Block(shape, kernel, expand, norm)
                for places, chosen in zip(blocks_of(sizes), blocks, strict=True)
                for shape, (kernel, expand) in zip(places, chosen, strict=False)  # places beyond the depth stay empty
            )
        )
        self.head = Head(sizes, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, classes)."""
        return self.head(self.blocks(self.stem(x)))
