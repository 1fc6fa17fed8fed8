"""One run of a claim: where it writes, in which form, and which of its parts are already done."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effkit.progress import report_progress
from effkit.report import write_text

__all__ = ["PART", "ClaimRun", "Part", "read_part"]

PART = "part.json"  # inside the folder of a part, written last


@dataclass(frozen=True)
class Part:
    """A part of a claim that is done.

    Attributes:
        name: Its name.
        seconds: What it took when it was computed.
        kept: Whether that was in an earlier run.
    """

    name: str
    seconds: float
    kept: bool


@dataclass
class ClaimRun:
    """What a claim is given.

    Args:
        folder: All it writes goes here.
        full: The full form (minutes) instead of the short one (at most one minute on two cores).
        stamp: What the results depend on: code, form, libraries. A part is taken from an earlier run if its stamp is
            the same; with `None` nothing is kept.

    Attributes:
        parts: The parts done so far, by name.
    """

    folder: Path
    full: bool = False
    stamp: Mapping[str, Any] | None = None
    parts: dict[str, Part] = field(default_factory=dict)

    def subfolder(self, name: str) -> Path:
        """The folder of a part, where its files go; `part` makes it, empty, before it computes."""
        return self.folder / name

    def part(self, name: str, compute: Callable[..., Any], *args: Any) -> Any:
        """Compute a part of the claim, or take it from an earlier run that was stopped after it.

        The generators of Python, NumPy and torch are seeded by the part's name, so that it does not matter which of the
        parts before it were computed in this process.

        Args:
            name: Lower case letters, digits, `-`, `_` and `.`; the name of its folder too.
            compute: Computes it; may write into `subfolder(name)`, and nowhere else.
            *args: Arguments of `compute`.

        Returns:
            What `compute` returned, after a trip through JSON in any case: tuples are lists, keys are strings.

        Raises:
            TypeError: If that is nothing JSON can hold.
            ValueError: If the name is taken or cannot name a folder.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
            raise ValueError(f"part {name!r} cannot name a folder: lower case letters, digits, '-', '_' and '.' can")
        if name in self.parts:
            raise ValueError(f"there are two parts {name!r}")
        folder = self.subfolder(name)
        earlier = read_part(folder)
        if self.stamp is not None and earlier is not None and earlier["stamp"] == _through_json(self.stamp):
            report_progress(f"{name}: kept from an earlier run")
            self.parts[name] = Part(name, earlier["seconds"], kept=True)
            return earlier["value"]
        if folder.exists():
            (folder / PART).unlink(missing_ok=True)  # first: what is half removed must not look whole
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        _seed(zlib.crc32(name.encode()))
        start = time.perf_counter()
        computed = compute(*args)
        seconds = round(time.perf_counter() - start, 1)
        try:
            value = _through_json(computed)
        except (TypeError, ValueError) as error:
            raise TypeError(f"part {name!r} must return what JSON can hold: {error}") from error
        files = {f.relative_to(folder).as_posix(): f.stat().st_size for f in folder.rglob("*") if f.is_file()}
        document = {"stamp": self.stamp, "seconds": seconds, "files": files, "value": value}
        write_text(folder / PART, json.dumps(document, ensure_ascii=False) + "\n")
        self.parts[name] = Part(name, seconds, kept=False)
        return value


def read_part(folder: Path) -> dict[str, Any] | None:
    """What is kept of a part: `stamp`, `seconds`, `files`, `value`; `None` if it is not whole."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        found = json.loads((folder / PART).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in found["files"].items())
        if whole and {"stamp", "seconds", "value"} <= set(found):
            return found
    return None


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_number))


def _number(value: Any) -> Any:
    """Scalars and arrays of NumPy and torch, which JSON does not know."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _seed(seed: int) -> None:
    random.seed(seed)
    for library, function in (("numpy", "random.seed"), ("torch", "manual_seed")):
        module: Any = sys.modules.get(library)
        if module is not None:  # what is not loaded has not drawn anything, and is seeded by whoever draws
            for name in function.split("."):
                module = getattr(module, name)
            module(seed)
