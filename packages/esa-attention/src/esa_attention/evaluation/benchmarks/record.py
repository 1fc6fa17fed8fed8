"""One question of a benchmark, and how files of questions are read: what is wrong is named by file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effkit.errors import UserError

__all__ = ["Line", "Question", "Record", "read_json_lines"]


@dataclass(frozen=True)
class Question:
    """What a model reads, and how long its answer may be.

    Args:
        prompt: All that the model reads.
        tail: The end of the prompt, behind its long context: what is asked.
        max_new_tokens: Longest answer, as published.
        min_new_tokens: So many tokens at least, before the model may stop.
        stop_at_line_end: The answer ends with its line.
        chat: Whether the prompt may be put into a chat model's template.
    """

    prompt: str
    tail: str
    max_new_tokens: int
    min_new_tokens: int = 0
    stop_at_line_end: bool = False
    chat: bool = True


@dataclass(frozen=True, eq=False)
class Record:
    """One question of a data set, and how answers to it are scored.

    Args:
        dataset: Name of the data set.
        number: Place in it, from 0.
        question: What is asked.
        score: The published metric: an answer's score, 0 to 1.
        group: What figures are shown by, beside the data set; empty for nothing.
        details: What the benchmark's own scorer wants to find beside the answer.
    """

    dataset: str
    number: int
    question: Question
    score: Callable[[str], float]
    group: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A record as it stands in a file.

    Args:
        where: File and line, for messages.
        values: What stands there.
    """

    where: str
    values: Mapping[str, Any]

    def text(self, name: str, default: str | None = None) -> str:
        """A field that holds text.

        Raises:
            UserError: If it is missing (and there is no default) or holds something else.
        """
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "text", value)
        return value

    def texts(self, name: str, least: int = 1) -> list[str]:
        """A field that holds a list of texts; a text alone is a list of one.

        Raises:
            UserError: If it is missing, holds something else, or fewer than ``least``.
        """
        value = self.values.get(name)
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or len(found) < least or not all(isinstance(text, str) for text in found):
            raise self.wrong(name, f"a list of at least {least} texts", value)
        return found

    def wrong(self, name: str, kind: str, value: Any) -> UserError:
        """The error about a field that does not hold what it must."""
        shown = "nothing" if value is None else f"{str(value)[:40]!r} ({type(value).__name__})"
        return UserError(f"{self.where}: field {name!r} must hold {kind}, got {shown}")


def read_json_lines(path: Path) -> Iterator[Line]:
    """Records of a file with one JSON object a line; empty lines are passed over.

    Args:
        path: The file, UTF-8.

    Raises:
        UserError: If it cannot be read, or a line is no JSON object; names file and line.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield Line(f"{path}, line {number}", _object(raw, f"{path}, line {number}"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _object(raw: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(raw)
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no UTF-8: {error.reason} at byte {error.start}") from error
    except ValueError as error:
        raise UserError(f"{where} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a JSON object, got {type(value).__name__}")
    return value
