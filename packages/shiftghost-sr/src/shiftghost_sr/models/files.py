"""Networks in files: ours, which say what they are, and those of others.

A file of ours carries its architecture twice: in the metadata, and as a tensor of bytes among the weights, because
loaders that guess a network from the names of its tensors see no metadata. With that tensor no guess fits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effkit.checkpoints import check_fit, read_checkpoint, write_safetensors, write_torch
from effkit.errors import UserError
from shiftghost_sr.models.foreign import Foreign, foreign_of, rebuild, spandrel_model
from shiftghost_sr.models.formats import recognise
from shiftghost_sr.models.zoo import create_model, identity_of

__all__ = ["MARK", "load_model", "model_from_state", "save_model", "state_with_mark"]

MARK = "shiftghost_sr.architecture"
"""Name of the metadata entry and of the tensor that hold the architecture."""


def _architecture(model: nn.Module) -> dict[str, Any]:
    identity, foreign = identity_of(model), foreign_of(model)
    if identity is not None:
        return identity.to_dict()
    if foreign is not None:
        return foreign.to_dict()
    raise UserError(
        f"{type(model).__name__} was made neither by create_model nor by ghostify from a file, so that a file could "
        "not say what it is; keep its state_dict with torch.save instead"
    )


def state_with_mark(model: nn.Module) -> dict[str, Tensor]:
    """All weights of a network, and its architecture as a tensor.

    Raises:
        UserError: If it is a network that could not be made again.
    """
    text = json.dumps(_architecture(model), sort_keys=True).encode()
    return {**model.state_dict(), MARK: torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def save_model(model: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a network, so that :func:`load_model` makes it again.

    Args:
        model: Dense or with ghosts, from :func:`~shiftghost_sr.models.zoo.create_model` or converted.
        path: ``.safetensors``, or anything else for a torch file.
        metadata: More strings to keep with it.

    Returns:
        The path.

    Raises:
        UserError: If it is a network that could not be made again; a deployed one is kept as the one it came from.
    """
    state = state_with_mark(model)
    text = bytes(state[MARK].tolist()).decode()
    if Path(path).suffix == ".safetensors":
        return write_safetensors(path, state, {**(metadata or {}), MARK: text})
    plain = {name: value.detach().cpu().clone() for name, value in state.items()}
    return write_torch(path, {"state_dict": plain, **dict(metadata or {})})


def model_from_state(state: Mapping[str, Tensor], path: str | os.PathLike[str], scale: int | None = None) -> nn.Module:
    """A network from its tensors.

    Args:
        state: Tensors by name.
        path: Where they come from, for messages.
        scale: For weights that are of several scales (CARN, VDSR).

    Raises:
        UserError: If it is not known what they are.
    """
    plain = dict(state)
    mark = plain.pop(MARK, None)
    if mark is not None:
        model = _of_mark(mark, plain, path, scale)
    else:
        found = recognise(plain)
        if found is None:
            return spandrel_model(plain, path)
        chosen = scale if found.scale is None else found.scale
        if chosen is None:
            raise UserError(f"weights {os.fspath(path)!r} are a {found.name} of several scales; give scale=")
        if scale is not None and scale != chosen:
            raise UserError(f"scale={scale}, but weights {os.fspath(path)!r} are of scale {chosen}")
        model, plain = create_model(found.name, chosen, **found.size), found.state
    check_fit(plain, model, path)
    model.load_state_dict(plain)
    return model.eval()


_SEVERAL = ("carn", "carn_m", "vdsr")  # whose weights are of all their scales


def _of_mark(mark: Tensor, state: dict[str, Tensor], path: str | os.PathLike[str], scale: int | None) -> nn.Module:
    try:
        said = json.loads(bytes(mark.tolist()).decode())
        own, several = said["scale"], said.get("name") in _SEVERAL
        if scale is not None and scale != own and not several:
            raise UserError(f"scale={scale}, but weights {os.fspath(path)!r} are of scale {own}")
        if "foreign" in said:
            return rebuild(Foreign.from_dict(said), state, path)
        return create_model(said["name"], own if scale is None else scale, said["ghost"], **said["size"])
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"weights {os.fspath(path)!r}: {MARK} is not readable ({error})") from error


def load_model(path: str | os.PathLike[str], *, scale: int | None = None) -> nn.Module:
    """Read a network from a file: one of ours, weights of the networks we know, or anything that spandrel reads.

    Args:
        path: The file.
        scale: For weights that are of several scales (CARN, VDSR).

    Returns:
        The network, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or is no network that is known.
    """
    found = read_checkpoint(path)
    return model_from_state(found.state, found.path, scale)
