"""Rotary position embedding at positions of our own choice, computed by the model's own module.

Keys are cached unrotated. The few local ones are rotated to positions that only need to have the right differences; the
far part puts every key at position 0 and every query at position w (appendix G of the paper). Whatever scaling a model
uses (linear, llama3, YaRN, dynamic, longrope) is in the tables, because the model's module makes them.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["RopeTables", "rotate_half"]

# Tables that depend on the length asked for: ours are made for no more than what is attended to at once.
LENGTH_DEPENDENT = ("dynamic", "longrope")


# Some rotary modules remember the longest position, so that two threads cannot ask one at once.
_MAKING = threading.Lock()


def rotate_half(x: Tensor) -> Tensor:
    """``(x1, x2) -> (-x2, x1)`` with the halves of the last dimension."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class RopeTables:
    """Cosines and sines of a model's rotary embedding, made once and longer when needed.

    Args:
        rotary: The model's rotary module, ``rotary(x, position_ids) -> (cos, sin)``; it is copied, so that modules
            which remember the longest position are not disturbed.
        device: Where the first tables are made.

    Attributes:
        rotary_dim: Dimensions of a head that are rotated; the rest pass.
        attention_scaling: Factor in cosines and sines (YaRN, longrope), 1 otherwise.
        length_dependent: Whether the tables change with the longest position.
    """

    def __init__(self, rotary: nn.Module, device: torch.device | str = "cpu") -> None:
        self._rotary = copy.deepcopy(rotary).to(device)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.rope_type = str(getattr(rotary, "rope_type", "default"))
        self.length_dependent = self.rope_type in LENGTH_DEPENDENT
        cos, _ = self._make(1, torch.device(device))
        self.rotary_dim = cos.shape[-1]
        self.attention_scaling = float(cos[0, 0])

    @classmethod
    def standard(cls, head_dim: int, theta: float = 1e4, rotary_dim: int | None = None) -> RopeTables:
        """Plain RoPE without a model, for tests and notebooks.

        Args:
            head_dim: Dimension of a head.
            theta: Base of the frequencies.
            rotary_dim: Rotated dimensions; all if not given.
        """
        return cls(_Plain(rotary_dim or head_dim, theta))

    def __getstate__(self) -> dict[str, Any]:
        """The rotary module; tables are made again."""
        return {**self.__dict__, "_tables": {}}

    def _make(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        positions = torch.arange(length, device=device)[None]
        with torch.no_grad():
            cos, sin = self._rotary.to(device)(torch.zeros(1, 1, dtype=torch.float32, device=device), positions)
        return cos[0].float(), sin[0].float()

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``(at least length, rotary_dim)`` in float32."""
        held = self._tables.get(device)
        if held is None or held[0].shape[0] < length:
            # Exactly what is asked for where the length matters, else with room to grow.
            room = length if self.length_dependent else max(1024, 1 << (length - 1).bit_length())
            with _MAKING:
                held = self._make(room, device)
            self._tables[device] = held  # a shorter one of another thread may replace it: this call has its own
        return held

    def rotate(self, x: Tensor, first: int, *, fixed: bool = False) -> Tensor:
        """Rotate tokens to consecutive positions, or all to one.

        Args:
            x: ``(..., T, D)``.
            first: Position of the first token.
            fixed: Put every token at ``first``.

        Returns:
            The same shape and type; half precision is rotated in float32.
        """
        length = 1 if fixed else x.shape[-2]
        cos, sin = (t[first : first + length] for t in self.tables(first + length, x.device))
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        cos, sin = cos.to(wide.dtype), sin.to(wide.dtype)
        dim = self.rotary_dim
        turned = wide if dim == x.shape[-1] else wide[..., :dim]
        turned = torch.addcmul(turned * cos, rotate_half(turned), sin)
        if dim < x.shape[-1]:
            turned = torch.cat((turned, wide[..., dim:]), dim=-1)
        return turned.to(x.dtype)

    def rotate_as_the_model(self, x: Tensor, first: int, starts: Sequence[int] | None = None) -> Tensor:
        """Rotate tokens to their true positions, operation for operation as models of transformers do.

        Args:
            x: ``(B, H, T, D)``.
            first: Place of the first of them in the sequence.
            starts: Place of the first real token of every row, which stands at position 0; 0 if not given.

        Returns:
            The same shape and type, rounded as the model's own.
        """
        count = x.shape[-2]
        tables = self.tables(first + count, x.device)
        if starts is None:
            cos, sin = (t[first : first + count].to(x.dtype) for t in tables)
        else:
            where = torch.arange(first, first + count, device=x.device) - torch.tensor(starts, device=x.device)[:, None]
            cos, sin = (t[where.clamp(min=0)].to(x.dtype)[:, None] for t in tables)
        dim = self.rotary_dim
        part = x if dim == x.shape[-1] else x[..., :dim]
        turned = (part * cos) + (rotate_half(part) * sin)
        return turned if dim == x.shape[-1] else torch.cat((turned, x[..., dim:]), dim=-1)

    def rotate_far(self, query: Tensor, position: int) -> Tensor:
        """Rotate queries for keys that stay unrotated at position 0.

        A key at position 0 is not left alone where the model scales its tables: its rotated dimensions are multiplied
        by ``attention_scaling``. That factor is put on the query instead, so that cached keys need no work.

        Args:
            query: ``(..., T, D)``.
            position: The far position w.
        """
        turned = self.rotate(query, position, fixed=True)
        if self.attention_scaling != 1.0:
            turned = torch.cat(
                (turned[..., : self.rotary_dim] * self.attention_scaling, turned[..., self.rotary_dim :]), dim=-1
            )
        return turned


class _Plain(nn.Module):
    """The rotary module of a model without one."""

    rope_type = "default"

    def __init__(self, dim: int, theta: float) -> None:
        super().__init__()
        inv_freq = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float) / dim))
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Any, Any]:
        """Cosines and sines of the angles, both halves alike."""
        angles = position_ids[..., None].float() * self.inv_freq.float()  # type: ignore[operator]
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()
