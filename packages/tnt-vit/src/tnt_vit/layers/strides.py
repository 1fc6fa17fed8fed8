"""Feature maps at a coarser stride than the network's, as detectors ask for them by ``output_stride``."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError

__all__ = ["StridedFeatures", "pad_to_multiple", "with_stride"]


def pad_to_multiple(x: Tensor, step: int) -> Tensor:
    """Pictures with zeros below and to the right, so that both sides are multiples of ``step``."""
    height, width = x.shape[-2:]
    down, right = -height % step, -width % step
    return F.pad(x, (0, right, 0, down)) if down or right else x


class StridedFeatures(nn.Module):
    """A features-only network of timm whose maps are average-pooled, for pictures of any size.

    The paper's detector (Table 10) pools 2x2 after TNT, so that its stride is 32. Pictures are padded with zeros, below
    and to the right, to multiples of that stride, so the pooling comes out even.

    Args:
        features: What ``timm.create_model(..., features_only=True)`` gives, of a model with ``dynamic_img_size=True``.
        pool: Side of the cells.
        step: What the sides of a picture are padded to multiples of.
    """

    def __init__(self, features: Any, pool: int, step: int) -> None:
        super().__init__()
        self.features, self.pool, self.step = features, pool, step
        self.feature_info = copy.deepcopy(features.feature_info)
        for info in self.feature_info.info:
            info["reduction"] *= pool

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps ``(B, d, H / stride, W / stride)`` of pictures ``(B, in_chans, H, W)``."""
        maps = self.features(pad_to_multiple(x, self.step))
        return [F.avg_pool2d(m, self.pool) for m in maps] if self.pool > 1 else list(maps)


def with_stride(features: Any, output_stride: int, step: int) -> StridedFeatures:
    """Wrap a features-only network so that its coarsest map has a stride.

    Args:
        features: See :class:`StridedFeatures`.
        output_stride: Pixels between the cells of the coarsest map.
        step: What the network itself asks the sides of a picture to be multiples of.

    Raises:
        ValueError: If the network's own stride does not divide it, or maps of several strides would need pooling.
    """
    own = features.feature_info.reduction()
    coarsest = max(own)
    if isinstance(output_stride, bool) or not isinstance(output_stride, int) or output_stride % coarsest:
        raise UserError(
            f"output_stride={output_stride!r} must be a multiple of {coarsest}, the coarsest of the strides {own}; "
            "leave maps out with out_indices, or give one that is"
        )
    if output_stride != coarsest and len(set(own)) > 1:
        raise UserError(f"output_stride={output_stride!r} would pool maps of strides {own}; leave output_stride out")
    return StridedFeatures(features, output_stride // coarsest, math.lcm(step, output_stride))
