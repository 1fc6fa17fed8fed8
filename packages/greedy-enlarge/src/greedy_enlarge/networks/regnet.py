"""timm's RegNet with widths and depths as they are given, instead of from a slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from timm.models.regnet import RegNet, RegNetCfg

__all__ = ["StagedRegNet"]


class StagedRegNet(RegNet):
    """RegNet X or Y.

    Args:
        depths: Blocks per stage.
        widths: Channels per stage, multiples of ``group``.
        group: Channels a group of the 3x3 convolutions.
        squeeze: Squeeze channels over input channels; 0 for X.
        stem: Channels of the stem.
        **options: Those of timm's RegNet.
    """

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], group: int, squeeze: float, stem: int, **options: Any
    ) -> None:
        self.__dict__["stages"] = tuple(depths), tuple(widths), group, squeeze  # before torch's own set-up
        super().__init__(RegNetCfg(stem_width=stem), **options)

    def _get_stage_args(
        self, cfg: RegNetCfg, default_stride: int = 2, output_stride: int = 32, drop_path_rate: float = 0.0
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        depths, widths, group, squeeze = self.__dict__["stages"]
        rates = np.split(np.linspace(0, drop_path_rate, sum(depths)), np.cumsum(depths[:-1]))
        stages = [
            {"out_chs": width, "stride": 2, "dilation": 1, "depth": depth, "bottle_ratio": 1.0, "group_size": group,
             "drop_path_rates": rate.tolist()}
            for width, depth, rate in zip(widths, depths, rates, strict=True)
        ]  # fmt: skip
        common = {"downsample": "conv1x1", "se_ratio": squeeze, "linear_out": False}
        return stages, {**common, "act_layer": cfg.act_layer, "norm_layer": cfg.norm_layer}
