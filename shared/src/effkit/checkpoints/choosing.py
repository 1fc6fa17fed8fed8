"""Find the weights among what a checkpoint holds, and the network's names among theirs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from effkit.checkpoints.fitting import check_finite
from effkit.checkpoints.reading import read_content
from effkit.checkpoints.refusals import CheckpointError, listed
from effkit.errors import UserError, choose

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "Ema", "read_checkpoint"]

_log = logging.getLogger("effkit.checkpoints")

Ema = bool | Literal["auto"]

# Where weights stand, and whether they are averaged, in the order in which they are looked for. The first four are
# those of timm's loader, in its order.
_WRAPPERS = {
    "state_dict_ema": True,
    "model_ema": True,
    "state_dict": False,
    "model": False,
    "params_ema": True,
    "ema_state_dict": True,
    "ema_model": True,
    "ema": True,
    "model_state_dict": False,
    "params": False,
    "module": False,
    "network": False,
    "net": False,
    "weights": False,
}
_DEPTH = 3
_LIGHTNING = "pytorch-lightning_version"
_UNAVERAGED = "current_model_state"  # then the state_dict of Lightning is the average
_SHELLS = ("module.", "_orig_mod.")  # what DDP and torch.compile put before every name
_NETWORKS = {"ema_model.": True, "model_ema.": True, "model.": False, "student.": False}  # attributes of a trainer


@dataclass(frozen=True)
class Checkpoint:
    """Weights by the network's own names, and where in the file they stood.

    Attributes:
        state: The weights, on the CPU.
        path: The file.
        container: ``"safetensors"`` or ``"torch"``.
        wrapper: Key of the dictionary that held them, e.g. ``"state_dict"``; empty if they stood at the top.
        averaged: Whether they are known to be a moving average.
        others: The other sets of weights in the file, which were not taken.
        prefix: What was taken off the names of a training module, e.g. ``"model."``; names without it were left out.
        lightning: Whether Lightning wrote the file.
        stored: All names of tensors beside the taken ones, as they stand in the file.
        metadata: Strings of a safetensors file.
        content: The other entries of a torch file (``epoch``, ``config`` ...).
    """

    state: dict[str, Tensor]
    path: Path
    container: str
    wrapper: str = ""
    averaged: bool = False
    others: tuple[str, ...] = ()
    prefix: str = ""
    lightning: bool = False
    stored: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        where = f"{self.wrapper or 'its tensors'}{f', {self.prefix}*' if self.prefix else ''}"
        return f"{where} ({'averaged' if self.averaged else 'not averaged'} weights)"


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    ema: Ema = "auto",
    expect: Callable[[str], bool] | None = None,
    finite: bool = True,
) -> Checkpoint:
    """Read the weights of a network from any checkpoint file.

    What DDP and ``torch.compile`` put into names is taken off. Names of a Lightning module are those of its network,
    without ``model.``; what else it holds (metrics, a teacher) is left out.

    Args:
        path: A ``.safetensors`` or torch file with tensors by name, at the top or under ``state_dict``, ``model``,
            ``state_dict_ema``, ``model_ema`` and the like.
        ema: Averaged weights: ``"auto"`` takes them where there are some, as timm's loader does, and logs the choice;
            ``True`` insists on them, ``False`` on the others.
        expect: Whether a name looks like one of the network's. If none does, names are looked for behind ``model.``
            and the like in files that Lightning did not write too.
        finite: Refuse NaN and infinite values.

    Returns:
        The weights, and where they stood.

    Raises:
        MissingCheckpointError: If there is no such file.
        CheckpointError: If it cannot be read, or holds no tensors by name.
        UserError: If ``ema`` asks for what is not there, or values are not finite.
    """
    choose("ema", ema, ["auto", True, False])
    content = read_content(path)
    file, top = content.path, content.value
    if not isinstance(top, Mapping):
        raise _no_tensors(file, f"the file is a {type(top).__name__}")
    lightning = _LIGHTNING in top
    sets = dict(_sets(top))
    wrapper = _choose_set(file, list(sets.items()), ema)
    stored = {k: v for k, v in _at(top, wrapper).items() if isinstance(k, str) and _is_tensor(v)}
    if not stored:
        raise _no_tensors(file, f"there are {listed(top)}" if top else "it is an empty dictionary")
    state, prefix, both = _network(stored, lightning, expect, ema, bool(wrapper and sets[wrapper]))
    averaged = sets.get(wrapper, False) or _NETWORKS.get(prefix, False)
    if ema is True and not averaged:
        raise UserError(f"ema=true, but weights {str(file)!r} hold no averaged ones (there is {wrapper or 'one set'})")
    taken = {name.partition(".")[0] for name in sets}
    rest = {k: v for k, v in top.items() if isinstance(k, str) and k not in taken and not _is_tensor(v)}
    found = Checkpoint(
        state,
        file,
        content.container,
        wrapper,
        averaged,
        tuple(name for name in sets if name != wrapper) + both,
        prefix,
        lightning,
        tuple(stored),
        content.metadata,
        rest,
    )
    if found.others:
        _log.info(f"weights {str(file)!r}: took {found}; the file also has {listed(found.others)}, ema={ema}")
    if finite:
        check_finite(state, file)
    return found


def _is_tensor(value: object) -> bool:
    from torch import Tensor

    return isinstance(value, Tensor)


def _no_tensors(file: Path, why: str) -> CheckpointError:
    return CheckpointError(file, why, "hold no tensors by name: {}")


def _at(top: Mapping[str, Any], wrapper: str) -> Mapping[str, Any]:
    for key in wrapper.split(".") if wrapper else ():
        top = top[key]
    return top


def _sets(top: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Dotted keys of all sets of weights, and whether they are averaged, in the order of preference."""
    if _UNAVERAGED in top and isinstance(top.get("state_dict"), Mapping):
        yield "state_dict", True
        if isinstance(top[_UNAVERAGED], Mapping):
            yield _UNAVERAGED, False
        return
    for key, averaged in _WRAPPERS.items():
        if isinstance(top.get(key), Mapping):
            path = _innermost(top[key], key)
            if any(map(_is_tensor, _at(top, path).values())):  # "model" may as well be a configuration
                yield path, averaged


def _innermost(value: Mapping[str, Any], path: str) -> str:
    """A set may be wrapped once more: ``model_ema`` -> ``module`` -> tensors."""
    for _ in range(_DEPTH):
        inner = next((k for k in _WRAPPERS if isinstance(value.get(k), Mapping)), None)
        if inner is None or any(map(_is_tensor, value.values())):
            break
        value, path = value[inner], f"{path}.{inner}"
    return path


def _choose_set(file: Path, sets: list[tuple[str, bool]], ema: Ema) -> str:
    if not sets or ema == "auto":
        return sets[0][0] if sets else ""
    wanted = [key for key, averaged in sets if averaged is ema]
    if not wanted and ema is False:
        raise UserError(f"ema=false, but weights {str(file)!r} hold averaged ones only ({sets[0][0]})")
    return wanted[0] if wanted else sets[0][0]  # perhaps the names tell of an average


def _bare(name: str) -> str:
    while name.startswith(_SHELLS):
        for shell in _SHELLS:
            name = name.removeprefix(shell)
    return name.replace("._orig_mod.", ".")  # parts that were compiled by themselves


def _network(
    stored: Mapping[str, Tensor], lightning: bool, expect: Callable[[str], bool] | None, ema: Ema, averaged: bool
) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """The network's tensors by its own names, the prefix they had, and other prefixes that would have done."""
    names = {name: _bare(name) for name in stored}
    if len(set(names.values())) < len(names):  # then they are no shells but the network's own words
        names = {name: name for name in stored}
    fits = [p for p in _NETWORKS if any(n.startswith(p) and _fits(n[len(p) :], expect) for n in names.values())]
    if not (lightning or (expect is not None and not any(map(expect, names.values())))):
        fits = []
    if not fits:
        return {bare: stored[name] for name, bare in names.items()}, "", ()
    wanted = [p for p in fits if ema == "auto" or averaged or _NETWORKS[p] is ema]
    prefix = (wanted or fits)[0]
    state = {_bare(bare[len(prefix) :]): stored[name] for name, bare in names.items() if bare.startswith(prefix)}
    return state, prefix, tuple(f"{p}*" for p in fits if p != prefix)


def _fits(name: str, expect: Callable[[str], bool] | None) -> bool:
    return expect is None or expect(_bare(name))
