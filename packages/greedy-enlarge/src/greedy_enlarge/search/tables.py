"""Recorded scores: one line of JSON a network, with its metrics repeat by repeat."""

from __future__ import annotations

import json
import os
from pathlib import Path

from effkit.errors import UserError
from greedy_enlarge.spec import ArchSpec

__all__ = ["read_table"]


def read_table(path: str | os.PathLike[str] | None) -> dict[str, list[dict[str, float]]]:
    """Read a recorded table.

    Args:
        path: Lines such as ``{"spec": {...}, "repeats": [{"accuracy": 0.5, "loss": 1.2}]}``.

    Returns:
        Canonical JSON of each network to its metrics.

    Raises:
        UserError: If there is no such file, or a line is none of these; names the line.
    """
    if not path:
        raise UserError("evaluator.path is not set: give a recorded table, evaluator.path=FILE")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"evaluator.path={str(path)!r} is not a file")
    rows: dict[str, list[dict[str, float]]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            key = ArchSpec.from_dict(value["spec"]).to_json()
            rows[key] = [{str(k): float(v) for k, v in repeat.items()} for repeat in value["repeats"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"evaluator.path={str(path)!r}, line {number}: {' '.join(str(error).split())}") from error
    return rows
