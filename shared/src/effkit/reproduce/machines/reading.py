"""One side of a comparison: the reports of `effkit reproduce` that were written on one machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.rows import Outcome

__all__ = ["Side", "read_side"]

_FILE = "results.json"
_KEYS = ("title", "date", "environment", "papers", "claims", "full")
_OF_PAPER = ("name", "status", "outcomes", "claim", "claim_status", "seconds")
_SAME = ("cpu", "gpu", "threads")  # of repeats of one side


@dataclass(frozen=True)
class Side:
    """Reports of one machine.

    Attributes:
        name: ``A`` or ``B``.
        documents: What their `results.json` hold, the oldest first; more than one are repeats.
    """

    name: str
    documents: Sequence[Mapping[str, Any]]

    @property
    def environment(self) -> dict[str, Any]:
        """Of the newest report."""
        return dict(self.documents[-1]["environment"])

    @property
    def machine(self) -> str:
        """The GPU, or else the CPU."""
        return str(self.environment.get("gpu") or self.environment.get("cpu") or "an unknown machine")

    def papers(self, name: str) -> list[Mapping[str, Any]]:
        """A paper's results, one a report that has it."""
        return [paper for document in self.documents for paper in document["papers"] if paper["name"] == name]


def _refused(side: str, path: Path, why: str) -> UserError:
    return UserError(f"{side}={str(path)!r} {why}")


def _read(side: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refused(side, path, f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise _refused(side, path, f"is no JSON: give a {_FILE} of effkit reproduce") from None
    if not isinstance(found, dict) or found.get("title") != "effkit reproduce":
        raise _refused(side, path, f"is no report of effkit reproduce: give its {_FILE}")
    missing = [key for key in _KEYS if key not in found]
    if missing:
        raise _refused(side, path, f"has no {', '.join(missing)}: it is no whole report of effkit reproduce")
    for paper in found["papers"] if isinstance(found["papers"], list) else [None]:
        if not isinstance(paper, dict) or any(key not in paper for key in _OF_PAPER):
            raise _refused(side, path, "holds a paper that is none of effkit reproduce's")
        try:
            claim = paper["claim"] or {"outcomes": [], "tables": []}
            for outcome in [*paper["outcomes"], *claim["outcomes"]]:
                Outcome.from_dict(outcome)
            for table in claim["tables"]:
                _ = table["title"], table["columns"], table["rows"]
        except (TypeError, KeyError):
            raise _refused(side, path, f"holds figures of {paper['name']} in another form than this effkit's") from None
    return found


def read_side(name: str, given: str) -> Side:
    """Read a report, or all in a folder and the folders in it.

    Args:
        name: ``A`` or ``B``.
        given: A `results.json`, or a folder.

    Raises:
        UserError: If there is none, one is no report of `effkit reproduce`, or those of a folder are of different
            machines, which are no repeats.
    """
    path = Path(given).expanduser()
    files = [path]
    if path.is_dir():
        files = [path / _FILE] if (path / _FILE).is_file() else sorted(path.glob(f"*/{_FILE}"))
        if not files:
            raise _refused(name, path, f"is a folder without a {_FILE} of effkit reproduce")
    documents = sorted((_read(name, file) for file in files), key=lambda document: str(document["date"]))
    for key in _SAME:
        seen = list(dict.fromkeys(str(document["environment"].get(key)) for document in documents))
        if len(seen) > 1:
            raise _refused(name, path, f"holds reports of different machines, {key} {' and '.join(seen)}: no repeats")
    return Side(name, documents)
