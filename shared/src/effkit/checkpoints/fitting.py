"""Whether weights fit a network, said in one line."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effkit.checkpoints.refusals import shown
from effkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Misfit", "check_finite", "check_fit", "compare"]

_FIRST = 3


@dataclass(frozen=True)
class Misfit:
    """How weights differ from a network's; false if they fit.

    Attributes:
        missing: Names that only the network has.
        unknown: Names that only the weights have.
        shapes: Name -> shape of the weights, shape of the network.
        network: Name of the network in messages.
    """

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    network: str = "the model"

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.shapes)

    def __str__(self) -> str:
        parts = [
            f"{len(names)} {what} ({', '.join(shown(name, 80) for name in names[:_FIRST])})"
            for what, names in (("missing", self.missing), ("unknown", self.unknown))
            if names
        ]
        for number, (name, (theirs, ours)) in enumerate(self.shapes.items()):
            if number < _FIRST:
                needs = f"{self.network} needs {ours}" if number == 0 else f"not {ours}"
                parts.append(f"{shown(name, 80)} is {theirs}, {needs}")
        if len(self.shapes) > _FIRST:
            parts.append(f"{len(self.shapes) - _FIRST} more of other shapes")
        return "; ".join(parts)


def compare(
    state: Mapping[str, Tensor],
    model: nn.Module | Mapping[str, Tensor],
    *,
    optional: Collection[str] = (),
    network: str | None = None,
) -> Misfit:
    """Compare weights with a network by names and shapes.

    Args:
        state: The weights.
        model: The network, or what its ``state_dict()`` gives.
        optional: Ends of names that may be missing, e.g. ``num_batches_tracked``, which old files do not have.
        network: Its name in messages; by default that of its class, or "the model".
    """
    own: Mapping[str, Tensor] = model if isinstance(model, Mapping) else model.state_dict()
    ends = tuple(optional)
    missing = tuple(k for k in own if k not in state and not (ends and k.endswith(ends)))
    unknown = tuple(k for k in state if k not in own)
    shapes = {
        k: (tuple(v.shape), tuple(own[k].shape)) for k, v in state.items() if k in own and v.shape != own[k].shape
    }
    name = network or ("the model" if isinstance(model, Mapping) else type(model).__name__)
    return Misfit(missing, unknown, shapes, name)


def check_fit(
    state: Mapping[str, Tensor],
    model: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    optional: Collection[str] = (),
    network: str | None = None,
    hints: Mapping[str, str] | None = None,
) -> None:
    """Refuse weights that do not fit a network.

    Args:
        state: See :func:`compare`.
        model: Likewise.
        path: Where the weights come from, for the message.
        optional: Likewise.
        network: Likewise.
        hints: Beginning of names -> what to do if one of them has another shape, said at the end of the line.

    Raises:
        UserError: Naming the first tensors that are missing, unknown or of another shape.
    """
    misfit = compare(state, model, optional=optional, network=network)
    if misfit:
        found = [hint for start, hint in (hints or {}).items() if any(k.startswith(start) for k in misfit.shapes)]
        line = f"weights {os.fspath(path)!r} do not fit {misfit.network}: {misfit}"
        raise UserError("; ".join([line, *found]))


def check_finite(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Refuse weights that hold NaN or infinite values.

    Args:
        state: The weights.
        path: Where they come from, for the message.

    Raises:
        UserError: Naming the first such tensor.
    """
    import torch

    for name, value in state.items():
        if not (value.is_floating_point() or value.is_complex()):
            continue
        wide = value.float() if value.element_size() == 1 else value  # torch asks no 8-bit number
        if not bool(torch.isfinite(wide).all()):
            raise UserError(f"weights {os.fspath(path)!r}: {shown(name, 80)} holds NaN or infinite values")
