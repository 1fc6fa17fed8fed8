"""A feature pyramid from maps of one or several strides (paper, Table 13).

The paper takes the outputs of blocks 3, 6, 9 and 12, all at stride 16, and resamples them by convolutions and
deconvolutions to the strides 4, 8, 16 and 32 of an FPN. Kernel sizes are not stated: ours are 2x2 deconvolutions of
stride 2, with a norm and a GELU between two of them, and 3x3 convolutions of stride 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from effkit.errors import UserError

__all__ = ["FeaturePyramid"]


def _resample(chans: int, ratio: float) -> nn.Module:
    """From one stride to another: ``ratio`` is how many times finer the map becomes, a power of two."""
    layers: list[nn.Module] = []
    for step in range(abs(round(math.log2(ratio)))):
        if step:
            layers += [LayerNorm2d(chans), nn.GELU()]
        finer = nn.ConvTranspose2d(chans, chans, 2, stride=2)
        layers.append(finer if ratio > 1 else nn.Conv2d(chans, chans, 3, stride=2, padding=1))
    return nn.Sequential(*layers)


def _nearest(reductions: Sequence[int], stride: int) -> int:
    """Number of the map whose stride is nearest, in powers of two; of two that are, the finer one."""
    far = [abs(math.log2(reduction / stride)) for reduction in reductions]
    return far.index(min(far))


class FeaturePyramid(nn.Module):
    """Maps at several strides, each with the coarser ones added to it (FPN).

    Args:
        in_chans: Channels of the maps that come in; one map, or several.
        reductions: Their strides in pixels.
        strides: Strides of the maps that go out, finest first. With as many maps coming in, each feeds its own;
            otherwise the one of the nearest stride does.
        out_chans: Channels of the maps that go out.

    Raises:
        ValueError: If lengths differ, or a stride is no power of two away.

    Example:
        >>> import torch
        >>> neck = FeaturePyramid([48], [16], out_chans=32)
        >>> [tuple(m.shape[2:]) for m in neck([torch.zeros(1, 48, 4, 6)])]
        [(16, 24), (8, 12), (4, 6), (2, 3)]
    """

    def __init__(
        self,
        in_chans: Sequence[int],
        reductions: Sequence[int],
        strides: Sequence[int] = (4, 8, 16, 32),
        out_chans: int = 256,
    ) -> None:
        super().__init__()
        for name, values in (("in_chans", in_chans), ("reductions", reductions), ("strides", strides)):
            if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
                raise UserError(f"{name}={list(values)} must hold whole numbers of at least 1")
        if len(in_chans) != len(reductions):
            raise UserError(f"in_chans={list(in_chans)} and reductions={list(reductions)} must be of the same maps")
        if sorted(set(strides)) != list(strides) or any(b != 2 * a for a, b in itertools.pairwise(strides)):
            raise UserError(f"strides={list(strides)} must double from one to the next")
        if isinstance(out_chans, bool) or not isinstance(out_chans, int) or out_chans < 1:
            raise UserError(f"out_chans={out_chans!r} must be a whole number of at least 1")
        self.reductions, self.strides, self.out_chans = tuple(reductions), tuple(strides), out_chans
        paired = len(in_chans) == len(strides)
        self.sources = [i if paired else _nearest(reductions, stride) for i, stride in enumerate(strides)]
        for source, stride in zip(self.sources, strides, strict=True):
            if not math.log2(reductions[source] / stride).is_integer():
                raise UserError(f"reductions={list(reductions)}: {reductions[source]} is no power of two from {stride}")
        self.resample = nn.ModuleList(
            _resample(in_chans[i], reductions[i] / stride) for i, stride in zip(self.sources, strides, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(in_chans[i], out_chans, 1) for i in self.sources)
        self.smooth = nn.ModuleList(nn.Conv2d(out_chans, out_chans, 3, padding=1) for _ in strides)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Resample, add from coarse to fine, smooth.

        Args:
            maps: ``(B, in_chans[i], H / reductions[i], W / reductions[i])``.

        Returns:
            ``(B, out_chans, H / stride, W / stride)`` for every stride, finest first.

        Raises:
            ValueError: If there are more or fewer maps than the pyramid was made for.
        """
        if len(maps) != len(self.reductions):
            raise UserError(f"the pyramid was made for {len(self.reductions)} maps, got {len(maps)}")
        layers = zip(self.sources, self.resample, self.lateral, strict=True)
        found = [lateral(resample(maps[i])) for i, resample, lateral in layers]
        for i in range(len(found) - 2, -1, -1):
            found[i] = found[i] + F.interpolate(found[i + 1], size=found[i].shape[2:], mode="nearest")
        return [smooth(m) for smooth, m in zip(self.smooth, found, strict=True)]
