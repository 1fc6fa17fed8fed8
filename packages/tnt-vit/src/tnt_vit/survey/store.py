"""The file of a survey: one JSON line a network, appended when it is measured; a second run keeps what still stands."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.report import plain, write_json, write_text

__all__ = ["FILE", "Store", "read_rows", "settings_id"]

FILE = "survey.jsonl"
_BEGUN = "begun.json"
_KEPT = ("measured", "counted", "out of memory")


def settings_id(settings: Mapping[str, Any]) -> str:
    """A short name of everything that a row depends on."""
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()[:12]


def read_rows(path: str | Path, field: str = "file") -> list[dict[str, Any]]:
    """The newest row of each network in a survey's file, in the order of the file; measured ones before counted ones.

    Args:
        path: A ``survey.jsonl``, or the folder that holds one.
        field: What names it, for messages.

    Raises:
        UserError: If there is no such file, or a line is none of a survey's.
    """
    given = path
    path = Path(path).expanduser()
    path = path / FILE if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{field}={str(given)!r} cannot be read: {why}") from None
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            name, _ = row["name"], (row["status"], row["settings"], row["settings_id"], row["backbone"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):  # a run was killed while it wrote
                break
            raise UserError(f"{field}={str(given)!r}: line {number} is no row of tnt-vit survey") from None
        if row["status"] == "counted" and rows.get(name, row)["status"] != "counted":
            continue  # a later look at the structure alone replaces no measurement
        rows.pop(name, None)
        rows[name] = row
    if not rows:
        raise UserError(f"{field}={str(given)!r} holds no row of tnt-vit survey")
    return list(rows.values())


class Store:
    """Rows of one folder.

    Args:
        folder: Holds ``survey.jsonl``.
        fresh: Keep nothing of earlier runs.
    """

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self.folder, self.file = folder, folder / FILE
        if fresh:
            self.file.unlink(missing_ok=True)
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        if self.file.exists() and self.file.read_text(encoding="utf-8").strip():
            whole = []
            for line in self.file.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # of a run that was killed while it wrote
                    row = json.loads(line)
                    self._rows[row["name"], row["settings_id"]] = row
                    whole.append(line)
            write_text(self.file, "".join(f"{line}\n" for line in whole))
        self.killed = self._killed(fresh)

    def _killed(self, fresh: bool) -> list[str]:
        """What was being measured when an earlier run was killed."""
        marker = self.folder / _BEGUN
        with contextlib.suppress(OSError, ValueError, TypeError):
            names = [str(name) for name in json.loads(marker.read_text(encoding="utf-8"))]
            marker.unlink()
            return [] if fresh else names
        return []

    def kept(self, name: str, identity: str) -> dict[str, Any] | None:
        """The row of an earlier run that still stands; what failed is tried again, unless it killed its process."""
        row = self._rows.get((name, identity))
        return row if row is not None and (row["status"] in _KEPT or row.get("killed")) else None

    def add(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Append a row; it is on disk when this returns."""
        found = plain(dict(row))
        self._rows[found["name"], found["settings_id"]] = found
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(found, allow_nan=False) + "\n")
        return found

    @contextlib.contextmanager
    def measuring(self, names: Sequence[str]) -> Iterator[None]:
        """Say on disk what is being measured: if the process is killed (for memory), the next run knows by what."""
        marker = write_json(self.folder / _BEGUN, list(names))
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)
