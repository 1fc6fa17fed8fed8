"""A TNT or PyramidTNT with a feature pyramid, in the form that torchvision's detectors take."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence

from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn

from effkit.errors import UserError
from tnt_vit.inference.dense.neck import FeaturePyramid
from tnt_vit.layers.strides import pad_to_multiple
from tnt_vit.model import TNT
from tnt_vit.pyramid import PyramidTNT

__all__ = ["DenseBackbone"]


class DenseBackbone(nn.Module):
    """Pictures of any size to maps at several strides, named ``"0"``, ``"1"``... as in torchvision's backbones.

    Sides are padded with zeros, below and to the right, to multiples of what the network and the coarsest stride need;
    torchvision's own batches, multiples of 32, pass as they are.

    Args:
        model: The network; it is copied, without its classifier. Weights stay.
        indices: 0-based numbers of the blocks (of a TNT) or stages (of a PyramidTNT) to look at. If not given, the last
            ones of the four quarters of a TNT (3, 6, 9 and 12 of twelve, as in the paper), and the stages at strides 8,
            16 and 32.
        strides: Of the maps that go out, finest first.
        out_channels: Of the maps that go out.
        freeze_batch_norm: Keep the statistics of a PyramidTNT's stem, which small batches would spoil.

    Attributes:
        out_channels: As given; torchvision asks for it.

    Raises:
        ValueError: If the network is none of ours, or it has no such block or stage.
    """

    def __init__(
        self,
        model: TNT | PyramidTNT,
        *,
        indices: Sequence[int] | None = None,
        strides: Sequence[int] = (4, 8, 16, 32),
        out_channels: int = 256,
        freeze_batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(model, TNT | PyramidTNT):
            raise UserError(f"DenseBackbone takes a tnt_vit.TNT or PyramidTNT, got {type(model).__name__}")
        body = copy.deepcopy(model)
        count = len(body.feature_info)
        if indices is None:
            pyramid = isinstance(body, PyramidTNT)
            quarters = sorted({-(-count * q // 4) - 1 for q in range(1, 5)})
            indices = [i for i, f in enumerate(body.feature_info) if f["reduction"] <= 32] if pyramid else quarters
        what = "stages" if isinstance(body, PyramidTNT) else "blocks"
        for index in indices:
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
                raise UserError(f"indices={list(indices)} must be numbers of {what} in 0..{count - 1}, got {index!r}")
        if list(indices) != sorted(set(indices)) or not indices:
            raise UserError(f"indices={list(indices)} must rise and name at least one of the {what}")
        body.prune_intermediate_layers(list(indices), prune_norm=True)
        body.dynamic_img_size = True
        if freeze_batch_norm:
            body = freeze_batch_norm_2d(body)
        self.body, self.indices, self.out_channels = body, list(indices), out_channels
        self.neck = FeaturePyramid(
            [model.feature_info[i]["num_chs"] for i in indices],
            [model.feature_info[i]["reduction"] for i in indices],
            strides,
            out_channels,
        )
        own = model.size_step if isinstance(model, PyramidTNT) else math.lcm(*model.patch_size)
        self.step = math.lcm(own, strides[-1])

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """Maps ``(B, out_channels, H / stride, W / stride)`` of pictures ``(B, in_chans, H, W)``, finest first."""
        maps = self.body.forward_intermediates(
            pad_to_multiple(x, self.step), indices=self.indices, intermediates_only=True
        )
        return OrderedDict((str(i), found) for i, found in enumerate(self.neck(maps)))
