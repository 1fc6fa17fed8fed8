"""Recorded scores by name or from a file: the CSV of ``greedy-enlarge table``, or one line of JSON a network."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

from effkit.arguments import named_path
from effkit.errors import UserError
from greedy_enlarge.search.recording import Recorded, Repeats, parse
from greedy_enlarge.spec import ArchSpec

__all__ = ["PACKAGED", "read_recorded", "read_table"]

PACKAGED = ("textures",)
"""Tables that ship with this package, by name."""


def read_recorded(path: str | os.PathLike[str] | None) -> Recorded:
    """Read a table of ``greedy-enlarge table``.

    Args:
        path: One of :data:`PACKAGED`, or a file.

    Raises:
        UserError: If there is no such file, it is none of these, or it was changed since it was written.
    """
    name = f"evaluator.path={str(path)!r}"
    if path in PACKAGED:
        return parse(files("greedy_enlarge.search").joinpath(f"recorded/{path}.csv").read_text(encoding="utf-8"), name)
    return parse(_text(path), name)


def read_table(path: str | os.PathLike[str] | None) -> Recorded | dict[str, Repeats]:
    """Read recorded scores of either kind.

    Args:
        path: As for :func:`read_recorded`; or a file of lines such as
            ``{"spec": {...}, "repeats": [{"accuracy": 0.5, "loss": 1.2}]}``.

    Returns:
        The table; for a file of lines, canonical JSON of each network to its metrics.

    Raises:
        UserError: If there is no such file, or a line is none of these; names the line.
    """
    if path in PACKAGED:
        return read_recorded(path)
    text = _text(path)
    if not text.lstrip().startswith("{"):
        return parse(text, f"evaluator.path={str(path)!r}")
    rows: dict[str, Repeats] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            key = ArchSpec.from_dict(value["spec"]).to_json()
            rows[key] = [{str(k): float(v) for k, v in repeat.items()} for repeat in value["repeats"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"evaluator.path={str(path)!r}, line {number}: {' '.join(str(error).split())}") from error
    return rows


def _text(path: str | os.PathLike[str] | None) -> str:
    if not path:
        names = " or ".join(PACKAGED)
        raise UserError(f"evaluator.path is not set: give {names}, or a recorded table, evaluator.path=FILE")
    file = Path(named_path("evaluator.path", path)).expanduser()
    if not file.is_file():
        raise UserError(f"evaluator.path={str(path)!r} is not a file, and no table of this package: {PACKAGED[0]} is")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"evaluator.path={str(path)!r} cannot be read: {' '.join(str(error).split())}") from error
