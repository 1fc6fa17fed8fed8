"""Write tensors to safetensors and torch files, whole or not at all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.atomic import atomic
from effkit.checkpoints.refusals import shown
from effkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SUFFIXES", "plain_state", "write_safetensors", "write_state", "write_torch"]

SUFFIXES = (".safetensors", ".pth", ".pt")
"""What files of weights may be called: the first is a safetensors file, the others are torch's."""


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write tensors by name to a safetensors file.

    Tensors go to the file directly and are copied only where they must be: from another device, or where they share
    memory, which safetensors refuses.

    Args:
        path: Where to; missing folders are made, an existing file is replaced in one step.
        tensors: On any device.
        metadata: Strings by name; ``format`` is ``"pt"`` unless given, as other libraries expect.

    Returns:
        The path.

    Raises:
        UserError: If a value is no dense tensor, a shard of one, or has no values (device "meta").
        OSError: If it cannot be written, e.g. "No space left on device"; nothing is left under that name then.
    """
    from safetensors.torch import save_file

    plain = plain_state(tensors)
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata={"format": "pt", **(metadata or {})})
    return Path(path)


def write_torch(path: str | os.PathLike[str], content: Any) -> Path:
    """Write anything to a torch file, as :func:`write_safetensors` writes.

    Equal contents give equal bytes, whatever the name.

    Args:
        path: Where to.
        content: Tensors and plain containers, if it shall be read back with ``weights_only=True``.

    Returns:
        The path.
    """
    import torch

    with atomic(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
    return Path(path)


def write_state(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a ``state_dict``, as the file's name asks.

    Args:
        path: ``.safetensors``, or anything else for a torch file.
        state: Tensors by name.
        metadata: For safetensors only.

    Returns:
        The path.
    """
    if Path(path).suffix == ".safetensors":
        return write_safetensors(path, state, metadata)
    return write_torch(path, plain_state(state))


def plain_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, each alone in its memory: what can be written.

    Raises:
        UserError: See :func:`write_safetensors`.
    """
    import torch

    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{shown(name, 80)} is a {type(value).__name__}; only tensors can be written")
        if value.layout != torch.strided:
            raise UserError(f"{shown(name, 80)} is {value.layout}; only dense tensors can be written")
        if hasattr(value, "full_tensor"):
            raise UserError(
                f"{shown(name, 80)} is a shard ({type(value).__name__}); gather the state first, on every process, "
                "with torch.distributed.checkpoint.state_dict.get_model_state_dict and full_state_dict=True"
            )
        if value.is_meta:
            raise UserError(f"{shown(name, 80)} is on device 'meta' and has no values to write")
    plain = {name: value.detach().cpu() for name, value in tensors.items()}
    users = Counter(value.untyped_storage().data_ptr() for value in plain.values())
    for name, value in plain.items():
        storage = value.untyped_storage()
        alone = users[storage.data_ptr()] == 1 and storage.nbytes() == value.nbytes and value.is_contiguous()
        plain[name] = value if alone else value.contiguous().clone()
    return plain
