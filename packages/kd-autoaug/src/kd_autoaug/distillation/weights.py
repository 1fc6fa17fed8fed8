"""Weights from files: safetensors, torch files, training checkpoints. Nothing but tensors is ever unpickled."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from effkit.report import write_bytes

__all__ = ["load_weights", "read_weights", "save_weights"]

_NESTS = ("state_dict_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read weights from a file.

    Args:
        path: ``.safetensors``, or a torch file holding a dictionary of tensors, plain or under ``state_dict_ema``,
            ``state_dict`` or ``model`` (the first there is). Prefixes of wrappers (``module.``, ``_orig_mod.``) are
            taken off, and ``model.`` of Lightning checkpoints.

    Raises:
        UserError: If there is no such file, it is damaged or holds more than tensors and plain values, or no weights,
            or values that are not finite.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"weights {str(file)!r} do not exist: give a .safetensors or torch file")
    content: Any
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(file)
        else:
            # timm's checkpoints carry their arguments along, a plain bag of values.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"weights {str(file)!r} cannot be read as tensors: {reason}") from error
    lightning = isinstance(content, Mapping) and "pytorch-lightning_version" in content
    nest = next((k for k in _NESTS if isinstance(content, Mapping) and isinstance(content.get(k), Mapping)), None)
    inner = content[nest] if nest is not None else content
    state = {}
    for key, value in inner.items() if isinstance(inner, Mapping) else ():
        if not isinstance(value, Tensor):
            continue
        if lightning and not key.startswith("model."):
            continue  # metrics of the training module
        state[_plain_name(key.removeprefix("model.") if lightning else key)] = value
    if not state:
        raise UserError(f"weights {str(file)!r} hold no tensors by name")
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"weights {str(file)!r}: {key} holds NaN or infinite values")
    return state


def _plain_name(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.removeprefix("module.").removeprefix("_orig_mod.")
    return key


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load weights into a network; every name and shape must fit.

    Args:
        model: Receives them, in its own dtype and on its device.
        path: See :func:`read_weights`.

    Raises:
        UserError: If the file cannot be read or does not fit; names the first tensors that are missing, unknown or of
            another shape.
    """
    state, own = read_weights(path), model.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    extra = [k for k in state if k not in own]
    if missing or extra:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])})"
            for what, names in (("missing", missing), ("unknown", extra))
            if names
        ]
        raise UserError(f"weights {str(path)!r} do not fit {type(model).__name__}: {'; '.join(parts)}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise UserError(
                f"weights {str(path)!r}: {key} is {tuple(value.shape)}, {type(model).__name__} needs "
                f"{tuple(own[key].shape)}"
            )
    model.load_state_dict({**own, **state})


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write a network's weights as safetensors, under a temporary name first.

    Args:
        model: The network.
        path: The file.

    Returns:
        The path.
    """
    from safetensors.torch import save

    # Clones: safetensors refuses tensors that share memory.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    return write_bytes(path, save(state, metadata={"format": "pt"}))
