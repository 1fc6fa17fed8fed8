"""What a pickle would import, found without unpickling it."""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO

from effkit.checkpoints.looking import Kind

__all__ = ["foreign_names"]

_PICKLES = 5  # a file of torch's older format begins with as many
_LARGEST = 64 << 20
# What tensors and plain containers are made of.
_HARMLESS = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+|torch\.(storage\.)?\w*Storage|torch\.Size|torch\.device"
    r"|torch\.(u?int\d+|b?float\d\w*|complex\d+|bool)|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
    r"|torch\.torch_version\.TorchVersion|torch\.Tensor|collections\.(OrderedDict|Counter|defaultdict)"
    r"|_codecs\.encode|argparse\.Namespace|builtins\.(set|frozenset|bytearray|complex|dict|list|int|long)"
)


def foreign_names(file: Path, kind: Kind) -> list[str]:
    """Names of classes and functions, other than those of plain tensors, that unpickling a file would import.

    Args:
        file: The file.
        kind: ``"zip"`` or ``"legacy"``.

    Returns:
        Dotted names in the order of the file; empty too if the pickle is too damaged to tell.
    """
    found: dict[str, None] = {}
    try:
        if kind == "zip":
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.rpartition("/")[2] == "data.pkl":
                        with archive.open(name) as opened:
                            found |= dict.fromkeys(_imports(opened))
        else:
            with open(file, "rb") as plain:
                for _ in range(_PICKLES):
                    found |= dict.fromkeys(_imports(plain))
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        pass  # cut short, or what follows the pickles of the older format: what was found until here counts
    return [name for name in found if not _HARMLESS.fullmatch(name)]


def _imports(opened: IO[bytes]) -> list[str]:
    """Names that one pickle imports. Strings are followed through the memo, as the protocols from 4 on name by them."""
    found: list[str] = []
    strings: list[str] = []
    memo: dict[int, str] = {}
    last = ""
    try:
        for opcode, argument, place in pickletools.genops(opened):
            name = opcode.name
            if name in ("GLOBAL", "INST"):
                found.append(str(argument).replace(" ", ".", 1).replace("__builtin__.", "builtins.", 1))
            elif name == "STACK_GLOBAL" and len(strings) >= 2:
                found.append(".".join(strings[-2:]))
            elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if argument is None else argument] = last
                continue
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                argument = memo.get(int(argument or 0), "")
            last = argument if isinstance(argument, str) else ""
            if last:
                strings = [*strings[-1:], last]
            if place is not None and place > _LARGEST:
                break
    except (ValueError, EOFError):
        if not found:
            raise
    return found
