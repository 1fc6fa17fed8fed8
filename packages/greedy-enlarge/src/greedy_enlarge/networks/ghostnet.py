"""GhostNet in the released large form, and in the published 1.0x form, with timm's interface.

The large form differs from timm's GhostNet: hard-swish in stem and head, squeeze-and-excitation in every block (a tenth
of the hidden channels, in multiples of 8), a head of ``max(1280, 5 w)`` channels, stochastic depth, six stages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.layers import DropPath, Linear, SelectAdaptivePool2d
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint_seq
from torch import Tensor, nn

from effkit.errors import UserError
from greedy_enlarge.families.ghost import STRIDES, GhostBlock, blocks, head_width

__all__ = ["GhostBottleneck", "GhostModule", "GhostNet"]


class GhostModule(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half by a 3x3 depthwise one on those.

    Args:
        in_chs: Channels in.
        out_chs: Channels out: the two halves, one after the other, cut to this.
        act: Whether a ReLU follows each norm.
        device: As in torch.
        dtype: As in torch.
    """

    def __init__(self, in_chs: int, out_chs: int, act: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        half = math.ceil(out_chs / 2)
        self.out_chs = out_chs
        self.primary_conv = nn.Sequential(
            nn.Conv2d(in_chs, half, 1, bias=False, **dd),
            nn.BatchNorm2d(half, **dd),
            nn.ReLU(inplace=True) if act else nn.Identity(),
        )
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False, **dd),
            nn.BatchNorm2d(half, **dd),
            nn.ReLU(inplace=True) if act else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_chs, H, W)`` to ``(B, out_chs, H, W)``."""
        primary = self.primary_conv(x)
        return torch.cat([primary, self.cheap_operation(primary)], dim=1)[:, : self.out_chs]


class GhostBottleneck(nn.Module):
    """Two ghost modules with a residual connection.

    Args:
        block: Its numbers.
        drop_path_rate: Of stochastic depth.
        device: As in torch.
        dtype: As in torch.
    """

    def __init__(self, block: GhostBlock, drop_path_rate: float = 0.0, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.block = block
        c, m, o, k, stride = block.inputs, block.hidden, block.outputs, block.kernel, block.stride
        self.ghost1 = GhostModule(c, m, **dd)
        self.conv_dw = self.bn_dw = None
        if stride > 1:
            self.conv_dw = nn.Conv2d(m, m, k, stride, k // 2, groups=m, bias=False, **dd)
            self.bn_dw = nn.BatchNorm2d(m, **dd)
        self.se = (
            SqueezeExcite(m, rd_channels=block.squeeze, gate_layer="hard_sigmoid", **dd) if block.squeeze else None
        )  # type: ignore[arg-type]
        self.ghost2 = GhostModule(m, o, act=False, **dd)
        self.shortcut = nn.Sequential()
        if c != o or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c, c, k, stride, k // 2, groups=c, bias=False, **dd),
                nn.BatchNorm2d(c, **dd),
                nn.Conv2d(c, o, 1, bias=False, **dd),
                nn.BatchNorm2d(o, **dd),
            )
        self.drop_path: nn.Module = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, ceil(H / stride), ceil(W / stride))``."""
        shortcut = x
        x = self.ghost1(x)
        if self.conv_dw is not None and self.bn_dw is not None:
            x = self.bn_dw(self.conv_dw(x))
        if self.se is not None:
            x = self.se(x)
        return self.drop_path(self.ghost2(x)) + self.shortcut(shortcut)


class GhostNet(nn.Module):
    """GhostNet of any depths and widths.

    Args:
        depths: Blocks per stage, six of them.
        widths: Channels per stage.
        form: ``large`` scales; ``published`` is the 1.0x network, with its depths and widths only.
        num_classes: Outputs; 0 leaves the classifier out.
        in_chans: Channels of the picture.
        global_pool: timm's name of a pooling, or empty for none.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of a last block; the rate grows linearly with the block's index.
        output_stride: 32; there is no dilated form.
        device: As in torch.
        dtype: As in torch.

    Raises:
        UserError: If ``output_stride`` is another.
    """

    def __init__(
        self,
        depths: Sequence[int] = (1, 2, 2, 4, 2, 5),
        widths: Sequence[int] = (16, 24, 40, 80, 112, 160),
        form: Literal["large", "published"] = "large",
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if output_stride != 32:
            raise UserError(f"output_stride={output_stride} must be 32: there is no dilated GhostNet")
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        large = form == "large"
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        stages = blocks(tuple(depths), tuple(widths), large=large)
        stem = stages[0][0].inputs
        self.conv_stem = nn.Conv2d(in_chans, stem, 3, 2, 1, bias=False, **dd)
        self.bn1 = nn.BatchNorm2d(stem, **dd)
        self.act1 = nn.Hardswish(inplace=True) if large else nn.ReLU(inplace=True)
        count, index, built = sum(map(len, stages)), 0, []
        for row in stages:
            layers = []
            for block in row:
                layers.append(GhostBottleneck(block, drop_path_rate * index / count, **dd))
                index += 1
            built.append(nn.Sequential(*layers))
        self.blocks = nn.Sequential(*built)
        tail = stages[-1][-1].hidden
        self.conv_tail = nn.Sequential(
            nn.Conv2d(stages[-1][-1].outputs, tail, 1, bias=False, **dd),
            nn.BatchNorm2d(tail, **dd),
            nn.ReLU(inplace=True),
        )
        self.num_features = tail
        self.head_hidden_size = head_width(tuple(widths)) if large else 1280
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        self.conv_head = nn.Conv2d(tail, self.head_hidden_size, 1, bias=True, **dd)
        self.act2 = nn.Hardswish(inplace=True) if large else nn.ReLU(inplace=True)
        self.flatten: nn.Module = nn.Flatten(1) if global_pool else nn.Identity()
        self.classifier: nn.Module = (
            Linear(self.head_hidden_size, num_classes, **dd) if num_classes > 0 else nn.Identity()
        )
        self.feature_info = [{"num_chs": stem, "reduction": 2, "module": "act1"}]
        reduction = 2
        self.stage_ends = [0]
        for number, row in enumerate(stages):
            reduction *= STRIDES[number]
            ends = number + 1 == len(stages) or STRIDES[number + 1] > 1
            if ends and reduction > 2:  # the first stage has the stem's size
                info = {"num_chs": row[-1].outputs, "reduction": reduction, "module": f"blocks.{number}"}
                self.feature_info.append(info)
                self.stage_ends.append(number + 1)
        self._init_weights()

    def _init_weights(self) -> None:
        """He-uniform convolutions, zero biases, norms of gain 1, He-normal classifier: as released."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are not decayed: none beside what every optimizer leaves out."""
        return set()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layer groups as timm's layer-wise decay wants them."""
        blocks = [(r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)", None), (r"conv_tail|conv_head", (99999,))]
        return {"stem": r"^conv_stem|bn1", "blocks": blocks}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of the stages in the backward pass."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier.

        Args:
            num_classes: Outputs; 0 leaves it out.
            global_pool: Another pooling; the present one if not given.

        Raises:
            UserError: If ``num_classes`` is negative.
        """
        if num_classes < 0:
            raise UserError(f"num_classes={num_classes} must be 0 or more")
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool).train(self.training)
            self.flatten = nn.Flatten(1) if global_pool else nn.Identity()
        like = next(self.parameters())  # of what is left of it: timm's pruning may have taken the head's conv away
        dd: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        new = Linear(self.head_hidden_size, num_classes, **dd) if num_classes > 0 else nn.Identity()
        self.classifier = new.train(self.training)

    def _stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting() and torch.is_grad_enabled():
            return checkpoint_seq(stage, x)
        return stage(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps of the sizes in ``feature_info``.

        Args:
            x: Pictures ``(B, C, H, W)``.
            indices: Which of them: the last so many, or a list; all if not given.
            norm: There is no final norm; ignored.
            stop_early: Leave out what comes after the last map asked for.
            output_fmt: ``NCHW``.
            intermediates_only: Return the maps alone.

        Raises:
            UserError: If the format is another.
        """
        if output_fmt != "NCHW":
            raise UserError(f"output_fmt={output_fmt!r} must be NCHW")
        take, last = feature_take_indices(len(self.stage_ends), indices)
        wanted, last = [self.stage_ends[i] for i in take], self.stage_ends[last]
        found = []
        x = self.act1(self.bn1(self.conv_stem(x)))
        if 0 in wanted:
            found.append(x)
        for number, stage in enumerate(self.blocks, 1):
            if stop_early and number > last:
                break
            x = self._stage(stage, x)
            if number in wanted:
                found.append(x)
        if intermediates_only:
            return found
        return (x if stop_early and last < len(self.blocks) else self.conv_tail(x)), found

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the maps asked for do not need.

        Args:
            indices: As for :meth:`forward_intermediates`.
            prune_norm: There is none.
            prune_head: Drop the classifier and what comes before it.
        """
        take, last = feature_take_indices(len(self.stage_ends), indices)
        self.blocks = self.blocks[: self.stage_ends[last]]
        if prune_head:
            self.conv_tail = nn.Sequential()
            self.conv_head, self.act2 = nn.Identity(), nn.Identity()  # type: ignore[assignment]
            self.reset_classifier(0, "")
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        """Map pictures to the last feature map ``(B, num_features, H / 32, W / 32)``."""
        x = self.act1(self.bn1(self.conv_stem(x)))
        for stage in self.blocks:
            x = self._stage(stage, x)
        return self.conv_tail(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last feature map to logits ``(B, num_classes)``, or to what the classifier sees."""
        x = self.flatten(self.act2(self.conv_head(self.global_pool(x))))
        x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        return self.forward_head(self.forward_features(x))
