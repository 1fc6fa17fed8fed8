"""What is known of the papers of a run while it runs: their parts as they come in, and how far the others are."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import IO, Any

from effkit.executors import TaskError
from effkit.progress import Display
from effkit.provenance import now
from effkit.report import write_json
from effkit.reproduce.one import PARTS, Wanted
from effkit.reproduce.resume import RESULT
from effkit.reproduce.summary import in_a_word
from effkit.reproduce.worker import log_of, progress_of

__all__ = ["Board"]

_TAIL_LINES = 60  # a segmentation fault tells the stack of every thread
_ROWS_SHARE = 0.2  # of the progress bar, where there is a claim


class Board:
    """Collects what the parts of papers give.

    A paper's `result.json` is written when its rows are done, and again when its claim is; a claim that takes its
    process down leaves the rows.

    Args:
        names: The papers that run.
        wanted: What is asked of them.
        notes: What to say of each as it begins.
        shown: Told the progress.
    """

    def __init__(self, names: list[str], wanted: Wanted, notes: dict[str, str], shown: Display) -> None:
        self._wanted, self._notes, self._shown = wanted, notes, shown
        self._parts: dict[str, dict[str, Any]] = {name: {} for name in names}
        self._of = PARTS if wanted.claims else PARTS[:1]
        self._fraction: dict[tuple[str, str], float] = {}
        self._files: dict[tuple[str, str], IO[str]] = {}
        self._begun: dict[str, float] = {}
        self.results: dict[str, dict[str, Any]] = {}
        for name in names:
            for part in PARTS:
                for file in (log_of(self._folder(name), part), progress_of(self._folder(name), part)):
                    file.unlink(missing_ok=True)
            (self._folder(name) / RESULT).unlink(missing_ok=True)

    def _folder(self, name: str) -> Path:
        return self._wanted.output / name

    def tell(self, name: str, part: str, text: str, fraction: float | None) -> None:
        """A part got so far."""
        self._begin(name)
        if fraction is not None:
            self._fraction[name, part] = fraction
            rows, claim = (self._fraction.get((name, p), 0.0) for p in PARTS)
            share = _ROWS_SHARE if len(self._of) > 1 else 1.0
            fraction = share * rows + (1 - share) * claim
        self._shown.update(name, text, fraction)

    def look(self) -> None:
        """Pass on what running parts have written about themselves."""
        for name, parts in self._parts.items():
            for part in self._of:
                if part not in parts:
                    self._read(name, part)

    def _read(self, name: str, part: str) -> None:
        with contextlib.suppress(OSError):
            if (name, part) not in self._files:
                self._files[name, part] = open(progress_of(self._folder(name), part), encoding="utf-8")  # noqa: SIM115
            for line in self._files[name, part]:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    event = json.loads(line)
                    self.tell(name, part, event["text"], event["fraction"])

    def _begin(self, name: str) -> None:
        if name not in self._begun:
            self._begun[name] = time.perf_counter()
            self._shown.start(name)
            if self._notes[name]:
                self._shown.note(f"{name}: {self._notes[name]}")

    def receive(self, name: str, part: str, found: dict[str, Any] | TaskError | None) -> None:
        """A part is done."""
        self._begin(name)
        self._parts[name][part] = found
        self.forget(name, part)
        whole = len(self._parts[name]) == len(self._of)
        if not whole:
            self.tell(name, part, f"{part} {'crashed' if isinstance(found, TaskError) else 'done'}", 1.0)
        if whole or part == "rows":
            result = self._merged(name, running=not whole)
            if result["stamp"] is not None:
                write_json(self._folder(name) / RESULT, result)
            if whole:
                self.results[name] = result
                self._shown.finish(name, in_a_word(result))

    def forget(self, name: str, part: str) -> None:
        """Close and remove the file in which a part said how far it is."""
        if (name, part) in self._files:
            self._files.pop((name, part)).close()
        progress_of(self._folder(name), part).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave no file open or behind, however the run ended."""
        for name in self._parts:
            for part in self._of:
                self.forget(name, part)

    def _merged(self, name: str, running: bool) -> dict[str, Any]:
        rows, claim = (self._parts[name].get(part) for part in PARTS)
        words = ("title", "reference", "distribution", "version", "command", "reason", "log")
        result: dict[str, Any] = {"name": name, **dict.fromkeys(words, "")}
        result |= {"status": "ok", "outcomes": [], "claim": None, "seconds": 0.0, "date": now(), "kept": False}
        result |= {"note": self._notes[name], "stamp": None}
        has_claim = True
        if isinstance(rows, dict):
            result |= rows
            has_claim = result.pop("has_claim")
        status = "not run" if "claim" not in self._of else "running" if running else "none"
        result["claim_status"] = status if has_claim else "none"
        if isinstance(claim, dict):
            seconds = result["seconds"] + claim["seconds"]
            result |= claim | {"seconds": round(seconds, 1)}
        for part, found in (("claim", claim), ("rows", rows)):  # what happened to the rows is what is told
            if isinstance(found, TaskError):
                result |= {"status": "crashed", "reason": found.reason, "log": self._log(name, part, found)}
                if part == "claim":
                    result["claim_status"] = "crashed"
                result["seconds"] = round(time.perf_counter() - self._begun[name], 1)
        return result

    def _log(self, name: str, part: str, found: TaskError) -> str:
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = log_of(self._folder(name), part).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([*lines, *found.trace.rstrip().splitlines()][-_TAIL_LINES:])
