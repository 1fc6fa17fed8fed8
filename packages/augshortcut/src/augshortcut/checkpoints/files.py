"""Augmented models in files, which say what was added; and files that hold the added parameters alone.

Both keep the :class:`~augshortcut.config.AugmentConfig`, so that a plain model can be augmented as the file needs it,
and loading is strict. A file of paths (a few hundred kilobytes) goes onto the pretrained model it was trained beside:
it knows that model's architecture, and a checksum of its weights.
"""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from augshortcut.config import AugmentConfig
from augshortcut.injection.augment import augment, config_of, remove_paths
from augshortcut.injection.rules import is_path
from effkit.checkpoints import Checkpoint, check_fit, plain_state, read_checkpoint, write_safetensors, write_torch
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError

__all__ = ["holds_paths", "load_checkpoint", "load_paths", "save_checkpoint", "save_paths", "saved_config"]

_log = logging.getLogger(__name__)

CONFIG, ARCHITECTURE, BASE = "augshortcut.config", "augshortcut.architecture", "augshortcut.base"
# How a path is computed and trained, not what it is: may differ between a file and a model.
_FREE = ("backend", "crt_level", "weight_decay", "gate_init", "init")


def _network(model: nn.Module) -> nn.Module:
    """The network inside DDP and ``torch.compile``."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) or hasattr(model, "_orig_mod"):
        model = getattr(model, "_orig_mod", None) or model.module  # type: ignore[assignment]
    return model


def _names(model: nn.Module) -> dict[str, str]:
    """Names in files -> names in the model, which differ where a part was compiled by itself."""
    return {name.replace("_orig_mod.", ""): name for name in model.state_dict()}


def _state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state by names in files."""
    state = model.state_dict()
    return {name: state[own] for name, own in _names(model).items()}


def _architecture(model: nn.Module) -> str:
    cfg = getattr(model, "pretrained_cfg", None)
    return str((cfg.get("architecture") if isinstance(cfg, Mapping) else None) or type(model).__name__)


def _checksum(model: nn.Module, beside: Sequence[str]) -> str:
    """Of all weights that are no path's and are not in the file, in float32."""
    total = 0
    for name, value in sorted(_state(model).items()):
        if not is_path(name) and not name.startswith(tuple(beside)) and value.is_floating_point():
            (numbers,) = plain_state({name: value.detach().float()}).values()
            total = zlib.crc32(numbers.view(torch.uint8).numpy().tobytes() if numbers.numel() else b"", total)
    return f"{total:08x}"


def _write(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: dict[str, str]) -> Path:
    if Path(path).suffix == ".safetensors":
        return write_safetensors(path, state, metadata)
    return write_torch(path, {"state_dict": plain_state(state), "augshortcut": metadata})


def _metadata(found: Checkpoint) -> dict[str, str]:
    inside = found.content.get("augshortcut")
    return {**found.metadata, **(inside if isinstance(inside, Mapping) else {})}


def _config(metadata: Mapping[str, str], path: Path) -> AugmentConfig | None:
    text = metadata.get(CONFIG)
    return None if text is None else AugmentConfig.from_json(text, f"{str(path)!r}, {CONFIG},")


def saved_config(path: str | os.PathLike[str]) -> AugmentConfig | None:
    """What the model in a file was augmented with; ``None`` if the file does not say.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    found = read_checkpoint(path, finite=False)
    return _config(_metadata(found), found.path)


def holds_paths(path: str | os.PathLike[str]) -> bool:
    """Whether a file of weights holds paths, and not only a base's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    return any(is_path(name) for name in read_checkpoint(path, finite=False).state)


def save_checkpoint(
    model: nn.Module, path: str | os.PathLike[str], *, preprocessing: Preprocessing | None = None
) -> Path:
    """Write all weights of a model, and what was added to it.

    Args:
        model: The model.
        path: ``.safetensors``, or anything else for a torch file.
        preprocessing: What it expects of pictures, kept in the metadata.

    Returns:
        The path.
    """
    model = _network(model)
    config = config_of(model)
    metadata = {ARCHITECTURE: _architecture(model), **(preprocessing.to_metadata() if preprocessing else {})}
    if config is not None:
        metadata[CONFIG] = config.to_json()
    return _write(path, _state(model), metadata)


def _prepare(model: nn.Module, config: AugmentConfig | None, names: Sequence[str], path: Path) -> bool:
    """Augment a plain model as a file needs it, or check that it was augmented alike; says whether it was changed."""
    own = config_of(model)
    if config is None:
        if own is None and any(is_path(name) for name in names):
            raise UserError(f"weights {str(path)!r} hold paths and do not say of what kind; augment the model first")
        return False
    if own is None:
        augment(model, config)
        return True
    ours, theirs = own.to_dict(), config.to_dict()
    differ = [f"{key}={theirs[key]!r} (model: {ours[key]!r})" for key in ours if ours[key] != theirs[key]]
    differ = [text for text in differ if not text.startswith(_FREE)]
    if differ:
        raise UserError(f"weights {str(path)!r} were augmented otherwise: {', '.join(differ)}")
    return False


@contextlib.contextmanager
def _augmented_for(model: nn.Module, config: AugmentConfig | None, names: Sequence[str], path: Path) -> Iterator[None]:
    """A model that can take a file's weights; as it was before if they turn out not to fit."""
    changed = _prepare(model, config, names, path)
    try:
        yield
    except BaseException:
        if changed:
            remove_paths(model)
        raise


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, strict_head: bool = True) -> list[str]:
    """Load all weights of a model; a plain one is augmented first, as the file says.

    Args:
        model: Receives the weights.
        path: A file of :func:`save_checkpoint`, of timm's layout, or of a training run.
        strict_head: If false, a classifier of another number of classes is left as it is (fine-tuning).

    Returns:
        Names that were left untouched (only ever the classifier's).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If names, shapes or the kind of paths do not fit; the first ones are named.
    """
    model = _network(model)
    known = set(_names(model))
    found = read_checkpoint(path, expect=lambda name: name in known or is_path(name))
    state = dict(found.state)
    with _augmented_for(model, _config(_metadata(found), found.path), list(state), found.path):
        return _load(model, state, path, strict_head)


def _load(model: nn.Module, state: dict[str, Tensor], path: str | os.PathLike[str], strict_head: bool) -> list[str]:
    own = _state(model)
    left: list[str] = []
    if not strict_head:
        head = str((getattr(model, "pretrained_cfg", None) or {}).get("classifier") or "head")
        left = [k for k in own if k.startswith(f"{head}.") and (k not in state or state[k].shape != own[k].shape)]
        state = {k: v for k, v in state.items() if k in own or not k.startswith(f"{head}.")}
        state.update({k: own[k] for k in left})
    if any(is_path(name) for name in own) and not any(is_path(name) for name in state):
        raise UserError(f"weights {os.fspath(path)!r} hold no paths: load them first, then augment the model")
    hints = {"head.": "give num_classes, or strict_head=False to fine-tune"}
    check_fit(state, own, path, hints=hints)
    names, empty = _names(model), any(value.is_meta for value in own.values())
    model.load_state_dict({names[name]: value for name, value in state.items()}, assign=empty)
    return left


def save_paths(model: nn.Module, path: str | os.PathLike[str], *, beside: Sequence[str] = ()) -> Path:
    """Write the added parameters alone.

    Args:
        model: An augmented model.
        path: ``.safetensors``, or anything else for a torch file.
        beside: Beginnings of further names to keep, e.g. ``["head."]`` for a classifier that was trained too.

    Returns:
        The path.

    Raises:
        UserError: If the model has no paths.
    """
    model = _network(model)
    config = config_of(model)
    if config is None:
        raise UserError(f"{type(model).__name__} has no paths to save; augment it first")
    full = _state(model)
    wrapped = next((name for name in full if "modules_to_save." in name and is_path(name)), None)
    if wrapped is not None:
        raise UserError(f"{wrapped} is kept twice by peft: save with its save_pretrained, or merge_and_unload first")
    state = {k: v for k, v in full.items() if is_path(k) or k.startswith(tuple(beside))}
    for start in beside:
        if not any(name.startswith(start) for name in full):
            raise UserError(f"beside={list(beside)}: no name begins with {start!r}")
    metadata = {CONFIG: config.to_json(), ARCHITECTURE: _architecture(model), BASE: _checksum(model, beside)}
    return _write(path, state, metadata)


def load_paths(model: nn.Module, path: str | os.PathLike[str]) -> list[str]:
    """Load a file of paths onto the model they were trained beside; a plain one is augmented first.

    All paths of the model must be in the file. A base with other weights is told by its checksum and said.

    Args:
        model: Receives them; its other parameters stay.
        path: A file of :func:`save_paths`.

    Returns:
        Names that were loaded.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no paths, or those of another model.
    """
    model = _network(model)
    if any(value.is_meta for name, value in model.state_dict().items() if not is_path(name)):
        raise UserError("the model is on the meta device: load its own weights first, with assign=True")
    found = read_checkpoint(path, expect=is_path)
    metadata, state = _metadata(found), found.state
    config = _config(metadata, found.path)
    if config is None or not any(is_path(name) for name in state):
        raise UserError(f"weights {str(found.path)!r} are no file of paths")
    theirs, ours = metadata.get(ARCHITECTURE, ""), _architecture(model)
    if theirs and theirs != ours:
        raise UserError(f"the paths in {str(found.path)!r} belong to {theirs}, the model is {ours}")
    beside = sorted({name.split(".")[0] + "." for name in state if not is_path(name)})
    with _augmented_for(model, config, list(state), found.path):
        expected = {name: value for name, value in _state(model).items() if is_path(name) or name in state}
        check_fit(state, expected, path)
    if metadata.get(BASE) not in (None, _checksum(model, beside)):
        _log.warning(f"the paths in {found.path.name} were trained beside other weights than the model has")
    with torch.no_grad():
        own = _state(model)
        for name, value in state.items():
            own[name].copy_(value)
    return list(state)
