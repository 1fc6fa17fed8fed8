"""timm's ``ghostnet_100`` weights in our form: the same network, whose blocks are grouped by six stages."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from effkit.errors import UserError
from greedy_enlarge.families.ghost import PUBLISHED

__all__ = ["from_timm_ghostnet"]

# timm's stages hold these numbers of blocks, one after the other; the last one is the tail.
_TIMM = (1, 1, 1, 1, 1, 1, 5, 1, 4)


def from_timm_ghostnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of timm's ``ghostnet_100``.

    Args:
        state: Its state dictionary.

    Returns:
        That of ``build(base("ghostnet_100"))``.

    Raises:
        UserError: If it is of another network.
    """
    theirs = [f"blocks.{s}.{b}" for s, count in enumerate(_TIMM) for b in range(count)]
    ours = [f"blocks.{s}.{b}" for s, row in enumerate(PUBLISHED) for b in range(len(row))]
    renamed = dict(zip(theirs, ours, strict=True))
    tail = f"blocks.{len(_TIMM)}.0"
    renamed |= {f"{tail}.conv": "conv_tail.0", f"{tail}.bn1": "conv_tail.1"}
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        parts = name.split(".")
        key = ".".join(parts[:4]) if name.startswith(tail) else ".".join(parts[:3])
        if name.startswith("blocks.") and key not in renamed:
            raise UserError(f"state has {name}, which timm's ghostnet_100 has not")
        found[renamed[key] + name[len(key) :] if key in renamed else name] = tensor
    return found
