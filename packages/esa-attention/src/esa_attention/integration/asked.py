"""What one call of a decoder asks for, looked at before anything is changed.

ESA works out positions and causality itself, from the order of the tokens in the cache and the padding on their left.
A call that means the same is computed; one that means something else (packed sequences, shifted positions, masks of
other shapes) is refused here, in one line, while the cache is still as it was.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from esa_attention.attention.cache.padding import padding_starts

__all__ = ["Asked", "asked", "by_name"]

# Keyword arguments that describe sequences packed into one, which some attention implementations understand.
_PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")


@dataclass(frozen=True)
class Asked:
    """What a call appends.

    Attributes:
        batch: Sequences.
        tokens: New tokens of each.
        starts: First real token of every row; ``None`` where nothing is padded.
    """

    batch: int
    tokens: int
    starts: list[int] | None


def by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a module's forward, all by name."""
    if not args:
        return kwargs
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def asked(kwargs: dict[str, Any], past: int, held: int | None) -> Asked | None:
    """Look at the keyword arguments of a decoder's forward.

    Args:
        kwargs: The arguments.
        past: Tokens in the cache.
        held: Sequences in the cache; ``None`` if it is empty.

    Returns:
        What it appends; ``None`` if there is no input, which the model itself complains of.

    Raises:
        UserError: If ESA would compute something else than what is asked for.
    """
    inputs = [kwargs[name] for name in ("input_ids", "inputs_embeds") if kwargs.get(name) is not None]
    if len(inputs) != 1:
        return None
    batch, tokens = inputs[0].shape[:2]
    for name in _PACKED:
        if kwargs.get(name) is not None:
            raise UserError(f"{name} describes sequences packed into one, which ESA does not read; pad them instead")
    if held is not None and held != batch:
        hint = f"; cache.batch_repeat_interleave({batch // held}) first" if batch % held == 0 else ""
        raise UserError(f"the cache holds {held} sequence{'s' * (held > 1)}, the call has {batch}{hint}")
    mask = kwargs.get("attention_mask")
    if mask is not None and not isinstance(mask, Tensor):
        raise UserError(
            f"attention_mask must be a tensor of shape {(batch, past + tokens)} with zeros for padding, got "
            f"{type(mask).__name__}"
        )
    starts = None if mask is None else padding_starts(mask, batch, past + tokens)
    if kwargs.get("position_ids") is not None:
        _check_positions(kwargs["position_ids"], batch, tokens, past, starts)
    return Asked(batch, tokens, starts if starts is not None and any(starts) else None)


def _check_positions(positions: Tensor, batch: int, tokens: int, past: int, starts: list[int] | None) -> None:
    """Positions must count tokens, with or without the padding before them; at padding they may be anything.

    Raises:
        UserError: If they do not.
    """
    if positions.ndim <= 2 and positions.shape[-1] == tokens and positions.numel() in (tokens, batch * tokens):
        given = positions.reshape(-1, tokens).cpu()
        index = torch.arange(past, past + tokens)
        first = torch.tensor(starts or [0] * batch)[:, None]
        padding = index < first
        counted = ((given == index) | padding).all(dim=1) | ((given == index - first) | padding).all(dim=1)
        if bool(counted.all()):
            return
    raise UserError(
        f"position_ids must count the tokens from the first real one ({past}, {past + 1}, ... in this call): ESA reads "
        "no shifted positions, several sequences packed into one, or positions in three axes; leave position_ids out"
    )
