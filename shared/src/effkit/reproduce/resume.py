"""What a result depends on, and whether an earlier one still stands.

A stamp is a dict of plain values: versions, a hash of the source files (a commit alone does not say what an edited tree
holds), the form of the claim, the libraries, the machine. An earlier result stands if its stamp is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkit.papers.claim_run import PART, read_part
from effkit.provenance import cpu_name, package_version

__all__ = ["CLAIM", "RESULT", "difference", "forget", "kept_result", "kept_where", "make_stamp"]

RESULT = "result.json"
CLAIM = "claim"  # folder of the claim, in that of the paper
UNKNOWN = ""


def make_stamp(distribution: str, module: str, full: bool) -> dict[str, Any]:
    """What the results of a paper depend on; nothing of it is imported.

    Args:
        distribution: The package's distribution.
        module: A module of the package; all files beside and below its top-level package count.
        full: The form of the claim.
    """
    return {
        "package": f"{distribution} {package_version(distribution)}" if distribution else UNKNOWN,
        "effkit": package_version("effkit"),
        "form": "full" if full else "short",
        "source files": source_hash(module.partition(".")[0]),
        "source files of effkit": source_hash("effkit"),
        "libraries": _libraries(distribution) | _libraries("effkit"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {cpu_name()}",
        "visible GPUs": os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
    }


def source_hash(package: str) -> str:
    """Hash of a top-level package's files, code and data, with their names; `UNKNOWN` if they cannot be found."""
    if package in sys.stdlib_module_names:  # of a builtin, a partial ...: not where the rows are written
        return UNKNOWN
    with contextlib.suppress(ImportError, ValueError, AttributeError, OSError):
        spec = importlib.util.find_spec(package)
        if spec is None:
            return UNKNOWN
        if spec.submodule_search_locations:
            roots = [Path(folder) for folder in spec.submodule_search_locations]
            files = [(f.relative_to(root).as_posix(), f) for root in roots for f in root.rglob("*") if f.is_file()]
        else:
            files = [(Path(spec.origin or "").name, Path(spec.origin or ""))]
        whole = hashlib.sha256()
        for name, file in sorted(files):
            if "__pycache__" not in name:
                content = file.read_bytes()
                whole.update(f"{name}\0{len(content)}\0".encode() + content)
        return whole.hexdigest()[:16]
    return UNKNOWN


def _libraries(distribution: str) -> dict[str, str]:
    """Versions of what a distribution requires, as far as it is installed."""
    found = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):  # not installed, or no name at all
        for requirement in importlib.metadata.requires(distribution) or []:
            name = re.match(r"[\w.-]+", requirement)
            if name is not None and (version := package_version(name[0])):
                found[name[0]] = version
    found.pop("effkit", None)  # named on its own
    return found


def difference(earlier: Any, wanted: Mapping[str, Any]) -> str:
    """Say in a few words why an earlier result does not stand any more; "" if it does."""
    if not isinstance(earlier, Mapping):
        return "its result has no stamp"
    for key, value in wanted.items():
        before = earlier.get(key)
        if key.startswith("source files"):
            if value == UNKNOWN:
                return f"its {key} cannot be read"
            if before != value:
                return f"{'the' if 'effkit' in key else 'its'} {key} changed"
        elif isinstance(value, Mapping):
            before = before if isinstance(before, Mapping) else {}
            for name in sorted({*before, *value}):
                if before.get(name) != value.get(name):
                    return f"{name} {before.get(name, 'absent')} -> {value.get(name, 'absent')}"
        elif before != value:
            return f"{key} {before} -> {value}"
    return ""


def kept_result(folder: Path, stamp: Mapping[str, Any], claims: bool) -> tuple[dict[str, Any] | None, str]:
    """The finished result of an earlier run of a paper, if it stands.

    Args:
        folder: The paper's.
        stamp: What it depends on now.
        claims: Whether its claim is asked for.

    Returns:
        The result and "", or `None` and a few words: why it is computed again, or that it goes on, or "" if there is
        nothing of an earlier run.
    """
    found = _read(folder / RESULT)
    if found is None:
        # Stopped while it ran again, or before its rows were done: only parts of its claim can be there.
        parts = [_read(file) or {} for file in sorted((folder / CLAIM).glob(f"*/{PART}"))]
        reasons = [difference(part.get("stamp"), stamp) for part in parts]
        if not parts:
            return None, ""
        return None, _goes_on(folder, stamp) or f"again: {reasons[0]}"
    if why := difference(found.get("stamp"), stamp):
        return None, f"again: {why}"
    status = found.get("claim_status")
    if status == "running":
        return None, _goes_on(folder, stamp) or "again: it was stopped"
    if found.get("status") != "ok":
        return None, _goes_on(folder, stamp) or "again: it crashed"
    if status != "none" and claims != (status != "not run"):
        return None, f"again: claims {str(not claims).lower()} -> {str(claims).lower()}"
    figures = (found.get("claim") or {}).get("figures", [])
    missing = [name for name in figures if not (folder.parent / name).is_file()]
    return (None, f"again: {missing[0]} is missing") if missing else (found, "")


def kept_where(folder: Path, stamp: Mapping[str, Any]) -> list[str]:
    """Names of the parts of a paper's claim that stand."""
    parts = {file.parent.name: read_part(file.parent) for file in sorted((folder / CLAIM).glob(f"*/{PART}"))}
    return [name for name, part in parts.items() if part is not None and not difference(part["stamp"], stamp)]


def _goes_on(folder: Path, stamp: Mapping[str, Any]) -> str:
    count = len(kept_where(folder, stamp))
    return f"goes on: {count} part{'s' * (count != 1)} of its claim kept" if count else ""


def forget(folder: Path) -> None:
    """Let nothing of an earlier run of a paper stand; its files stay until they are written anew."""
    for file in [folder / RESULT, *(folder / CLAIM).glob(f"*/{PART}")]:
        file.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None
