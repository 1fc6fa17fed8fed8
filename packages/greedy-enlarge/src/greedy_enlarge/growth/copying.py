"""Copies of tensors into larger ones, channel by channel, and where each entry went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["Copier", "ghost_map", "lead"]

Map = Tensor
"""Old channel -> new channel, int64."""


def lead(old: int, new: int) -> Map:
    """Old channels keep their slots."""
    return torch.arange(min(old, new))


def ghost_map(old: int, new: int) -> Map:
    """Slots in a ghost module's output, which is its primary half, then its cheap half.

    Args:
        old: Channels of the smaller module.
        new: Of the larger one.
    """
    half, larger = (old + 1) // 2, (new + 1) // 2
    slots = torch.arange(old)
    return torch.where(slots < half, slots, slots - half + larger)


@dataclass
class Copier:
    """Copies a network's tensors into a larger network of the same kind.

    Attributes:
        old: Parameters and buffers of the smaller network, by name.
        new: Those of the larger one; written to.
        plan: New name -> old name and, per dimension, where old indices went (``None``: unchanged).
    """

    old: dict[str, Tensor]
    new: dict[str, Tensor]
    plan: dict[str, tuple[str, tuple[Map | None, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, old: nn.Module, new: nn.Module) -> Copier:
        """Copy between two networks."""
        return cls(*({n: t.detach() for n, t in m.state_dict().items()} for m in (old, new)))

    def tensor(self, source: str, target: str, maps: Sequence[Map | None]) -> None:
        """Copy a whole tensor to the mapped places."""
        old, new = self.old[source], self.new[target]
        index = [
            (torch.arange(size) if m is None else m).to(new.device) for m, size in zip(maps, old.shape, strict=True)
        ]
        cut = [slice(0, len(i)) for i in index]
        if not index:
            new.copy_(old)
        else:
            new[torch.meshgrid(*index, indexing="ij")] = old[tuple(cut)].to(new)
        self.plan[target] = (source, tuple(maps))

    def conv(self, source: str, target: str, outputs: Map, inputs: Map | None, *, zero: bool = False) -> None:
        """Copy a convolution or linear map.

        Args:
            source: Name of the old module.
            target: Name of the new one.
            outputs: Where old outputs go.
            inputs: Where old inputs go; ``None`` for depthwise and grouped convolutions, whose groups stay.
            zero: Whether old outputs shall not see new inputs; otherwise those columns stay random.
        """
        weight = self.new[f"{target}.weight"]
        if zero and inputs is not None:
            added = torch.ones(weight.shape[1], dtype=torch.bool)
            added[inputs] = False
            rows = outputs.to(weight.device)
            weight[rows[:, None], added.nonzero()[:, 0].to(weight.device)[None]] = 0.0
        rest: list[Map | None] = [None] * (weight.ndim - 2)
        self.tensor(f"{source}.weight", f"{target}.weight", [outputs, inputs, *rest])
        if f"{source}.bias" in self.old:
            self.tensor(f"{source}.bias", f"{target}.bias", [outputs])

    def norm(self, source: str, target: str, channels: Map, *, zero: bool) -> None:
        """Copy a batch norm.

        Args:
            source: Name of the old module.
            target: Name of the new one.
            channels: Where old channels go.
            zero: Whether new channels shall be exactly 0: gain and offset 0.
        """
        if zero:
            self.silence(target)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.tensor(f"{source}.{name}", f"{target}.{name}", [channels])
        self.tensor(f"{source}.num_batches_tracked", f"{target}.num_batches_tracked", [])

    def stem(self, channels: Map) -> None:
        """Copy the stem of networks that call it as timm's EfficientNet does; new channels are exactly 0.

        Args:
            channels: Where old channels go.
        """
        self.conv("conv_stem", "conv_stem", channels, lead(*self.width("conv_stem", 1)))
        self.norm("bn1", "bn1", channels, zero=True)

    def silence(self, target: str) -> None:
        """Make a norm's output exactly 0."""
        self.new[f"{target}.weight"].zero_()
        self.new[f"{target}.bias"].zero_()

    def squeeze(self, source: str, target: str, reduce: str, expand: str, channels: Map) -> None:
        """Copy a squeeze-and-excitation: old channels are gated as before, whatever new ones there are.

        Args:
            source: Name of the old module.
            target: Name of the new one.
            reduce: Name of its first convolution.
            expand: Of its second.
            channels: Where old channels go.
        """
        units = lead(len(self.old[f"{source}.{reduce}.weight"]), len(self.new[f"{target}.{reduce}.weight"]))
        self.conv(f"{source}.{reduce}", f"{target}.{reduce}", units, channels, zero=True)
        self.conv(f"{source}.{expand}", f"{target}.{expand}", channels, units, zero=True)

    def width(self, name: str, dim: int = 0) -> tuple[int, int]:
        """Sizes of a weight in both networks."""
        return self.old[f"{name}.weight"].shape[dim], self.new[f"{name}.weight"].shape[dim]
