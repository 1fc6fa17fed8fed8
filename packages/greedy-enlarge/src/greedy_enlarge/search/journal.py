"""The journal of a search: every finished evaluation, on disk before the next decision, and never lost.

``journal.jsonl`` is only ever appended to, one line and one fsync a record. A last line without its newline is not
read: it may be a process that still writes, or one that died while it did. It is not cut either; who goes on begins a
new line and notes where the void one starts, so that it is never read later.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.lock import locked
from greedy_enlarge.search.tasks import Result

__all__ = ["FILE", "Journal", "differences", "read_records"]

FILE = "journal.jsonl"


def read_records(path: Path) -> tuple[list[dict[str, Any]], int, int]:
    """Read a journal, which another process may be writing.

    Args:
        path: The file.

    Returns:
        The records; where the last complete line ends; and the size of the file, larger if a line is unfinished.

    Raises:
        UserError: If a complete line is damaged; names the file and the line.
    """
    content = path.read_bytes() if path.exists() else b""
    end = content.rfind(b"\n") + 1
    records: list[tuple[int, int, Any]] = []
    void: set[int] = set()
    at = 0
    for number, line in enumerate(content[:end].splitlines(keepends=True), 1):
        found: Any = None
        with contextlib.suppress(ValueError):
            found = json.loads(line)
        if isinstance(found, dict) and found.get("kind") == "void":
            void.add(found["at"])
        elif line.strip():
            records.append((at, number, found))
        at += len(line)
    good = [(number, found) for start, number, found in records if start not in void]
    for number, found in good:
        if not isinstance(found, dict):
            raise UserError(f"{path} is damaged in line {number}; restore it, or start the search in another folder")
    return [found for _, found in good], end, len(content)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys in which two nested mappings differ, with both values."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} ({json.dumps(a)} there, {json.dumps(b)} now)")
    return found


class Journal:
    """An open journal, held by this process alone.

    Use :meth:`open`. Results are filed under their tasks' keys.

    Attributes:
        folder: Its folder, which also holds the states that evaluators keep.
        results: Finished evaluations by key.
        failures: How often an evaluation failed, by key.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.results: dict[str, Result] = {}
        self.failures: dict[str, list[str]] = {}
        self._handle = -1

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, folder: str | os.PathLike[str], config: Mapping[str, Any], tell: Callable[[str], None] = lambda _: None
    ) -> Iterator[Journal]:
        """Open a journal inside the block, new or to go on with.

        Args:
            folder: Its folder; made if it is not there.
            config: All that shapes the search, as plain values.
            tell: Told in one line what is noteworthy: a lock taken over, a torn line.

        Raises:
            UserError: If another process holds it (names host and process), it was made by another config (names the
                keys that differ), or it is damaged.
        """
        found = Path(folder).expanduser()
        found.mkdir(parents=True, exist_ok=True)
        with locked(found, tell, key="journal"):
            journal = cls(found)
            journal._load(json.loads(json.dumps(dict(config))), tell)
            try:
                yield journal
            finally:
                os.close(journal._handle)

    def _load(self, config: dict[str, Any], tell: Callable[[str], None]) -> None:
        records, end, size = read_records(self.path)
        if records and records[0].get("kind") == "config":
            changed = differences(records[0]["config"], config)
            if changed:
                raise UserError(f"{self.path} was begun with another config: {', '.join(changed)}")
        elif records:
            raise UserError(f"{self.path} does not begin with a config: it is no journal of a search")
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if size > end:
            tell(f"{self.path}: the last line was not finished by the process that wrote it, and is left out")
            self._append(f"\n{json.dumps({'kind': 'void', 'at': end})}\n")
        for record in records[1:]:
            self._take(record)
        if not records:
            self._append(json.dumps({"kind": "config", "config": config}, sort_keys=True) + "\n")

    def _take(self, record: Mapping[str, Any]) -> None:
        if record.get("kind") != "result":
            return
        key, result = record["key"], Result(**record["result"])
        if result.status == "ok":
            self.results.setdefault(key, result)
        else:
            self.failures.setdefault(key, []).append(result.reason)

    def _append(self, text: str) -> None:
        data = text.encode("utf-8")
        written = os.write(self._handle, data)
        while written < len(data):  # a signal, or a disk that is nearly full: the next write says so
            written += os.write(self._handle, data[written:])
        os.fsync(self._handle)

    def add(self, key: str, result: Result, **about: Any) -> Result:
        """File a result, on disk when this returns.

        Args:
            key: Of its task.
            result: What was found.
            **about: Further plain values for readers: step, move, repeat.

        Returns:
            The result as it will be read back.
        """
        record = json.loads(json.dumps({"kind": "result", "key": key, **about, "result": result.to_dict()}))
        self._append(json.dumps(record, sort_keys=True) + "\n")
        self._take(record)
        return Result(**record["result"])
