"""Answers to a benchmark's records in files, one line a record, so that a run that was killed goes on.

A folder holds ``METHOD/settings.json`` (what the answers were given with) and ``METHOD/DATASET.jsonl``. A line holds
what LongBench's and InfiniteBench's own scorers look for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.report import plain as jsonable
from effkit.report import write_json
from esa_attention.evaluation.benchmarks.record import Record, read_json_lines

__all__ = ["AnswerFile", "check_settings"]


def check_settings(folder: Path, settings: Mapping[str, Any], key: str = "out") -> None:
    """Note what answers in a folder are given with; refuse a folder of answers that were given otherwise.

    Args:
        folder: Of one method.
        settings: Values by name.
        key: What names the folder on the command line.

    Raises:
        UserError: For the first setting that differs.
    """
    path, now = folder / "settings.json", json.loads(json.dumps(jsonable(settings)))
    if not path.exists():
        write_json(path, now)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        names = sorted({*before, *now})
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}; give another {key}=") from error
    for name in names:
        if before.get(name) != now.get(name):
            raise UserError(
                f"{key}: the answers in {str(folder)!r} were given with {name}={before.get(name)!r}, this run has "
                f"{now.get(name)!r}; give another {key}="
            )


class AnswerFile:
    """The answers of one method to one data set.

    Args:
        path: The file; it need not exist.
        records: The data set, as far as it is asked.
        tell: Told in one line if a line that was cut short is dropped.

    Raises:
        UserError: If a line is damaged, or answers another record than the data set has.
    """

    def __init__(self, path: Path, records: Sequence[Record], tell: Callable[[str], None]) -> None:
        self.path = path
        self._keys = [_key(record) for record in records]
        self.answers: dict[int, dict[str, Any]] = {}
        if path.exists():
            self._drop_torn(tell)
            for line in read_json_lines(path):
                number, said = line.values.get("number"), line.text("pred")
                if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                    raise line.wrong("number", "a whole number", number)
                if number >= len(records):
                    continue  # of a run that was asked for more
                if line.values.get("key") != self._keys[number]:
                    raise UserError(f"{line.where} answers another record than {records[number].dataset} has there now")
                self.answers[number] = {**line.values, "pred": said}

    def pending(self) -> list[int]:
        """Numbers of records without an answer."""
        return [number for number in range(len(self._keys)) if number not in self.answers]

    def add(self, record: Record, said: str, **more: Any) -> None:
        """Keep an answer, on the disk before this returns."""
        line = {"number": record.number, "key": self._keys[record.number], "pred": said, "prediction": said}
        line |= {**record.details, **more}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(json.dumps(jsonable(line), ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.answers[record.number] = line

    def _drop_torn(self, tell: Callable[[str], None]) -> None:
        """What a killed run left of a line goes: its record is asked again."""
        with self.path.open("rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                tell(f"{self.path}: the last line was cut short, its record is asked again")
                file.truncate(whole)


def _key(record: Record) -> str:
    """A short name of what is asked."""
    asked = [record.dataset, *dataclasses.astuple(record.question)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
