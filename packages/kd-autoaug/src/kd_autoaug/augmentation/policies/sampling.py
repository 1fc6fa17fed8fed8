"""Drawing what a policy does to each picture of a batch: a few tensor operations, no loop over pictures, no wait.

On a GPU one kernel does the same in one launch (:mod:`kd_autoaug.ops.draw_kernel`), with the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kd_autoaug.augmentation import rng
from kd_autoaug.augmentation.policies.boxes import boxes
from kd_autoaug.augmentation.policies.entries import Entry
from kd_autoaug.augmentation.policies.law import evaluate, stack
from kd_autoaug.augmentation.policies.mixture import STREAM
from kd_autoaug.augmentation.policies.space import LawSpace
from kd_autoaug.augmentation.policies.table import PolicyTable
from kd_autoaug.ops.dispatch import resolve_backend
from kd_autoaug.ops.draw_triton import Draw, draw_layers
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import Op

__all__ = ["Sampler"]

# Words of a layer's stream; a policy that needs none of the last four does not draw them.
_CHOICE, _APPLY, _SIGN, _INTERPOLATION, _LEVEL, _ACROSS, _DOWN, _WIDTH = range(8)
_WEIGHT_TOTAL = 1 << 30  # weights as integers: their cumulative sums are exact on every device
_SIZES_KEPT = 64


class Sampler:
    """A policy's table as tensors.

    The flat table has E = rows x slots entries; an entry's argument is looked up by (entry, level, sign), or computed
    by its law where levels have noise.
    """

    def __init__(self, policy: PolicyTable) -> None:
        """Compile a table."""
        self.policy = policy
        self.slots = 1 if policy.draws else policy.num_layers
        blank = Entry(Op.IDENTITY, 0.0)
        flat = [e for row in policy.rows for e in (*row, *[blank] * (self.slots - len(row)))]
        self.ops = [e.op for e in flat]
        bins = getattr(policy.space, "bins", 1) if policy.random_bin else 1
        levels = torch.tensor([e.level for e in flat], dtype=torch.float64).view(-1, 1)
        if policy.random_bin:
            levels = torch.arange(bins, dtype=torch.float64).expand(len(flat), bins)
        self.bins = bins
        self.base = policy.space.base(self.ops, levels) if flat else torch.zeros(0, 1, 2, dtype=torch.float64)
        self.has_cutout, self.has_blur = Op.CUTOUT in self.ops, Op.GAUSSIAN_BLUR in self.ops
        self.words = 8 if self.has_cutout or self.has_blur or policy.noise is not None or policy.random_bin else 4
        self.constant = {
            "op": torch.tensor([int(op) for op in self.ops]),
            # A word is below its probability x 2^32 with exactly that probability.
            "threshold": torch.tensor([e.prob for e in flat], dtype=torch.float64) * 2.0**32,
            "level": levels[:, 0].contiguous(),
            "interpolation": torch.tensor(policy.interpolation),
        }
        if policy.weights is not None:
            scale = _WEIGHT_TOTAL / sum(policy.weights)
            self.constant["weight"] = torch.tensor([round(w * scale) or int(w > 0) for w in policy.weights])
        if policy.noise is not None:
            assert isinstance(policy.space, LawSpace)
            self.constant["law"] = stack([policy.space.laws[op] for op in self.ops])
        # As tensors: dividing by a number, torch multiplies by its inverse on a GPU, and a last bit differs.
        noise, denominator = policy.noise, getattr(policy.space, "denominator", 1.0)
        bounds = (0.0, 0.0) if noise is None else (noise.std, noise.upper)
        self.constant["numbers"] = torch.tensor([*bounds, denominator, policy.space.blur_from], dtype=torch.float64)
        self._on: dict[torch.device, dict[str, Tensor]] = {}
        self._sized: dict[tuple[torch.device, tuple[int, int]], Tensor] = {}

    def arguments(self, size: tuple[int, int]) -> Tensor:
        """Arguments of all entries at a size, float64 ``(E, bins, 2)``."""
        return self.policy.space.at_size(self.ops, self.base, size)

    def sample(
        self, seed: int, index: Tensor, view: Tensor | int, size: tuple[int, int], backend: str = "auto"
    ) -> list[Layer]:
        """See :meth:`~kd_autoaug.augmentation.policies.policy.Policy.sample`."""
        if self.policy.num_layers == 0:
            return []
        size = int(size[0]), int(size[1])
        if resolve_backend(backend, index.device) == "triton":
            return draw_layers(self._draw(index.device, size), rng.check_seed(seed), index, view, size)
        layers = self._sample(seed, index, view, size)
        mixture = self.policy.mixture
        return layers if mixture is None else mixture.shortened(layers, mixture.words(seed, index, view))

    def _draw(self, device: torch.device, size: tuple[int, int]) -> Draw:
        """The policy as the kernel reads it."""
        policy, table = self.policy, self._constants(device)
        noise, mixture = policy.noise, policy.mixture
        kind = "none" if noise is None else "uniform" if noise.std == float("inf") else "normal"
        lengths = mixture is not None and not mixture.depth
        return Draw(
            layers=policy.num_layers,
            op=table["op"],
            threshold=table["threshold"],
            level=table["level"],
            argument=self.at(size, device),
            interpolation=table["interpolation"],
            numbers=table["numbers"],
            weight=table.get("weight"),
            law=table.get("law"),
            quantiles=rng.quantiles(device) if kind == "normal" else None,
            stream=rng.LAYERS,
            rows=len(policy.rows),
            slots=self.slots,
            bins=self.bins,
            draws=bool(policy.draws),
            long=self.words > 4,
            noise=kind,
            cutout=self.has_cutout,
            boxes=policy.space.cutout,
            blur=self.has_blur,
            chains=mixture.width if mixture is not None and lengths else 0,
            longest=mixture.longest if mixture is not None else 1,
            mixture_stream=STREAM,
        )

    def _sample(self, seed: int, index: Tensor, view: Tensor | int, size: tuple[int, int]) -> list[Layer]:
        """The same by tensor operations: the specification."""
        layers, batch, device = self.policy.num_layers, len(index), index.device
        table = self._constants(device)
        streams = [rng.LAYERS + layer for layer in range(layers)]
        words = rng.words_of(seed, index, view, streams, self.words).transpose(0, 1)  # (words, L, B)
        entry = self._entries(words[_CHOICE], table)  # (L, B)
        applied = words[_APPLY] < table["threshold"][entry]
        argument = self._arguments(entry, words, size, table)
        op = table["op"][entry] * applied
        box = torch.zeros(layers, batch, 4, dtype=torch.int64, device=device)
        if self.has_cutout:
            style = self.policy.space.cutout
            drawn = boxes(style, argument.flatten(), words[_ACROSS].flatten(), words[_DOWN].flatten(), size)
            box = drawn.view(layers, batch, 4) * (op == Op.CUTOUT).unsqueeze(-1)
            argument = argument * (op != Op.CUTOUT)  # the extent is in the box
        if self.has_blur:  # the argument is the widest
            low = self.policy.space.blur_from
            drawn = low + (argument - low) * rng.uniform(words[_WIDTH])
            argument = torch.where(op == Op.GAUSSIAN_BLUR, drawn, argument)
        argument = argument * applied
        kinds = table["interpolation"]
        if len(kinds) == 1:
            interpolation = kinds.expand(layers, batch).contiguous()
        else:
            interpolation = kinds[rng.integers(words[_INTERPOLATION], len(kinds))]
        return [Layer(op[k], argument[k], interpolation[k], box[k], self.has_blur) for k in range(layers)]

    def _entries(self, words: Tensor, table: dict[str, Tensor]) -> Tensor:
        """Numbers of the entries drawn, ``(L, B)``, by the choice words ``(L, B)``."""
        rows = len(self.policy.rows)
        if not self.policy.draws:  # one word picks the row, whose slots follow each other
            first = rng.integers(words[0], rows) * self.slots
            return first + torch.arange(self.slots, device=words.device).unsqueeze(-1)
        if "weight" not in table:
            return rng.integers(words, rows)
        left = table["weight"].expand(words.shape[1], rows).clone()  # (B, rows); what was drawn loses its weight
        drawn = []
        for layer in words:
            until = left.cumsum(-1)
            found = (until <= rng.integers(layer, until[:, -1]).unsqueeze(-1)).sum(-1)
            left.scatter_(1, found.unsqueeze(-1), 0)
            drawn.append(found)
        return torch.stack(drawn)

    def _arguments(self, entry: Tensor, words: Tensor, size: tuple[int, int], table: dict[str, Tensor]) -> Tensor:
        negative = words[_SIGN] >> 31
        noise = self.policy.noise
        if noise is None:
            level = rng.integers(words[_LEVEL], self.bins) if self.policy.random_bin else 0
            return self.at(size, entry.device).flatten()[(entry * self.bins + level) * 2 + negative]
        level = table["level"][entry]
        if noise.std == float("inf"):
            level = level * rng.uniform(words[_LEVEL])
        else:
            level = level + noise.std * rng.normal(words[_LEVEL])
        fraction = level.clamp(0.0, noise.upper) / table["numbers"][2]
        return evaluate(table["law"][:, entry], fraction, negative > 0) * self.at(size, entry.device)[entry]

    def _constants(self, device: torch.device) -> dict[str, Tensor]:
        if device not in self._on:
            self._on[device] = {k: v.to(device) for k, v in self.constant.items()}
        return self._on[device]

    def at(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """What depends on the size: arguments ``(E, bins, 2)``, with noise the factors of the sides ``(E,)``."""
        key = device, size
        if key not in self._sized:
            if len(self._sized) >= _SIZES_KEPT:
                del self._sized[next(iter(self._sized))]
            space = self.policy.space
            sided = isinstance(space, LawSpace) and self.policy.noise is not None
            found = space.sides(self.ops, size) if sided else self.arguments(size)  # type: ignore[attr-defined]
            self._sized[key] = found.to(device)
        return self._sized[key]
