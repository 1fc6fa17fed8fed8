"""A convolution that computes a part of its channels and moves the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from shiftghost_sr.layers.config import GhostConfig, intrinsic_count
from shiftghost_sr.layers.shift import LearnableShift2d, home
from shiftghost_sr.ops.ghost import Placing, ghost_maps
from shiftghost_sr.ops.shift import Direction

__all__ = ["GhostConv2d"]


class GhostConv2d(nn.Conv2d):
    """A convolution whose first ``n_I`` maps are computed (`weight`, `bias`); the others are these, moved.

    With ``ghost_ratio=0`` it is `nn.Conv2d` bit for bit. Otherwise ghost ``j`` is intrinsic map ``source[j]``, bias
    included, read at the layer's direction.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, ghosts included.
        kernel_size: Odd.
        stride: As of `nn.Conv2d`.
        padding: Half of the kernel if not given.
        groups: As of `nn.Conv2d`; intrinsic maps and ghosts must be divisible by it, and ghosts stay inside theirs.
        bias: As of `nn.Conv2d`.
        ghost_ratio: See :class:`~shiftghost_sr.layers.config.GhostConfig`, for this and all that follow.
        config: All of them at once; keyword arguments change it.
        **ghost: Fields of the config.

    Raises:
        UserError: If a value is not allowed.
    """

    intrinsic: Tensor
    ghosts: Tensor
    source: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = True,
        ghost_ratio: float | None = None,
        config: GhostConfig | None = None,
        **ghost: Any,
    ) -> None:
        if isinstance(kernel_size, bool) or not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise UserError(f"kernel_size={kernel_size!r} must be an odd whole number")
        if ghost_ratio is not None:
            ghost["ghost_ratio"] = ghost_ratio
        config = dataclasses.replace(config or GhostConfig(), **ghost)
        n = intrinsic_count(out_channels, config.ghost_ratio)
        if n < 1:
            raise UserError(f"ghost_ratio={config.ghost_ratio} leaves none of {out_channels} channels")
        if groups < 1 or n % groups or out_channels % groups or in_channels % groups:
            raise UserError(
                f"groups={groups} must divide {in_channels} channels of the input, {out_channels} of the output "
                f"and the {n} that are computed"
            )
        super().__init__(in_channels, n, kernel_size, stride, kernel_size // 2 if padding is None else padding,
                         groups=groups, bias=bias)  # fmt: skip
        self.total_channels, self.config = out_channels, config
        number = out_channels - n
        self.register_buffer("intrinsic", torch.arange(n, device=home()))
        self.register_buffer("ghosts", torch.arange(n, out_channels, device=home()))
        self.register_buffer("source", self._slots(n, number, groups))
        self.shift: LearnableShift2d | None = None
        self.depthwise: nn.Conv2d | None = None
        if number and config.shift == "depthwise":
            self.depthwise = nn.Conv2d(number, number, 3, padding=1, groups=number, bias=False)
        elif number:
            self.shift = _make_shift(config, number)
        self._placed: tuple[Tensor, Tensor | None, Tensor | None] | None = None
        if config.order == "index" and groups > 1:
            # Channels of a group stay together: its computed ones first.
            size, kept = out_channels // groups, n // groups
            places = [list(range(g * size, (g + 1) * size)) for g in range(groups)]
            self.set_indices([c for p in places for c in p[:kept]], [c for p in places for c in p[kept:]])

    @staticmethod
    def _slots(n: int, number: int, groups: int) -> Tensor:
        """Ghost k from intrinsic map k, round and round; inside each group where there are groups."""
        if groups == 1 or number % groups:
            return torch.arange(number, device=home()) % max(n, 1)
        size = number // groups
        return torch.tensor(
            [g * (n // groups) + k % (n // groups) for g in range(groups) for k in range(size)], device=home()
        )

    def set_indices(self, intrinsic: Sequence[int], ghosts: Sequence[int], source: Sequence[int] | None = None) -> None:
        """Say which channels of a dense layer are computed, and what the others come from.

        Args:
            intrinsic: Channel of each computed map.
            ghosts: Channel of each ghost.
            source: Computed map (0 to n_I - 1) of each ghost; as it is if not given.

        Raises:
            UserError: If they are not all channels, each once, or a source does not exist.
        """
        n, number = len(self.intrinsic), len(self.ghosts)
        if len(intrinsic) != n or len(ghosts) != number:
            raise UserError(f"indices: {len(intrinsic)} + {len(ghosts)} channels were given for {n} + {number}")
        if sorted([*intrinsic, *ghosts]) != list(range(self.total_channels)):
            raise UserError("indices: intrinsic maps and ghosts must be all channels, each once")
        wanted = self.source.tolist() if source is None else list(source)
        if len(wanted) != number or any(not 0 <= s < n for s in wanted):
            raise UserError(f"source={wanted} must be {number} numbers from 0 to {n - 1}")
        for buffer, values in ((self.intrinsic, intrinsic), (self.ghosts, ghosts), (self.source, wanted)):
            buffer.copy_(torch.tensor(list(values), dtype=torch.int64, device="cpu"))
        self._placed = None

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self._placed = None
        indices = [state_dict.get(prefix + name) for name in ("intrinsic", "ghosts", "source")]
        if all(i is not None for i in indices):
            got = [i.tolist() for i in indices]
            if [len(i) for i in got] == [len(self.intrinsic), len(self.ghosts), len(self.source)]:
                self.set_indices(*got)  # refuses what cannot be
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Any, recurse: bool = True) -> GhostConv2d:
        self._placed = None
        return super()._apply(fn, recurse)

    def placing(self, chosen: tuple[int, ...]) -> Placing:
        """Where maps go for given directions."""
        if self._placed is None:
            source, kept, ghosts = self.source.cpu(), self.intrinsic.cpu(), self.ghosts.cpu()
            plain = kept.tolist() == list(range(len(kept)))  # then ghosts are the rest
            plain = plain and ghosts.tolist() == list(range(len(kept), self.total_channels))
            self._placed = (source, None, None) if plain else (source, kept, ghosts)
        assert self.shift is not None
        return Placing(self.shift.directions, chosen, *self._placed)

    def channel_map(self) -> tuple[list[int], list[Direction]]:
        """For every channel of the output: the computed map it is, and where that is read, in evaluation.

        Raises:
            UserError: If ghosts are not moved maps.
        """
        if self.depthwise is not None:
            raise UserError("ghosts of a depthwise convolution are not moved maps")
        source, moves = [0] * self.total_channels, [(0, 0)] * self.total_channels
        for place, channel in enumerate(self.intrinsic.tolist()):
            source[channel] = place
        if self.shift is not None:
            found = self.shift.chosen_directions()
            placing = self.placing(self.shift.chosen())
            ghosts, sources = self.ghosts.tolist(), self.source.tolist()
            for (first, last), v in zip(placing.group_bounds(), found, strict=True):
                for j in range(first, last):
                    source[ghosts[j]], moves[ghosts[j]] = sources[j], v
        return source, moves

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, in_channels, H, W)`` to ``(N, out_channels, H', W')``."""
        f = super().forward(x)
        if self.shift is not None:
            kernel, chosen = self.shift.draw()
            return ghost_maps(f, kernel, self.placing(chosen))
        if self.depthwise is not None:
            ghosts = self.depthwise(f.index_select(1, self.source))
            both = torch.cat([f, ghosts], dim=1)
            return both.index_select(1, torch.argsort(torch.cat([self.intrinsic, self.ghosts])))
        return f

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, total_channels={self.total_channels}, ghost_ratio={self.config.ghost_ratio}"


def _make_shift(config: GhostConfig, number: int) -> LearnableShift2d:
    shift = LearnableShift2d(
        config.max_shift, channels=number, granularity=config.granularity, groups=config.shift_groups,
        estimator=config.estimator, directions=config.directions, tau=config.tau, noise_decay=config.noise_decay,
        learned=config.shift == "learned",
    )  # fmt: skip
    if config.shift == "learned":
        return shift
    count = len(shift.logits)
    if config.shift == "random":
        shift.set_directions(
            [shift.directions[int(k)] for k in torch.randint(len(shift.directions), (count,), device="cpu")]
        )
    else:
        shift.set_directions([config.direction if config.shift == "fixed" else (0, 0)] * count)
    return shift
