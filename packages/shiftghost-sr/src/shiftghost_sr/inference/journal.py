"""What a folder run has finished: a line a picture in a hidden file of the output folder.

A picture is finished if its target is there as it was written, and was made from the same source with the same model
and options. A target that no run has claimed is somebody's file, and is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effkit.data.pictures import BUNDLED

__all__ = ["FILE", "Journal", "state_of"]

FILE = ".shiftghost-sr.jsonl"


def state_of(source: str) -> list[Any]:
    """What a source is now: its size and when it was changed."""
    if source in BUNDLED:
        return [source]
    found = Path(source).stat()
    return [found.st_size, found.st_mtime_ns]


@dataclass
class Journal:
    """The journal of one output folder.

    Args:
        folder: The folder; made when the first line is written.
        recipe: What results depend on besides the source: model and options, as text.

    Attributes:
        entries: The last line about each target, by its name.
    """

    folder: Path
    recipe: str
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            lines = (self.folder / FILE).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        for line in lines:
            try:
                entry = json.loads(line)
                self.entries[entry["target"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut off when its process was killed

    def claimed(self, target: Path) -> bool:
        """Whether a run has said that it will write a target."""
        return target.name in self.entries

    def finished(self, source: str, target: Path) -> bool:
        """Whether a target is what this run would write."""
        entry = self.entries.get(target.name, {})
        try:
            size = target.stat().st_size
        except OSError:
            return False
        wanted = {"bytes": size, "recipe": self.recipe, "source": source, "state": state_of(source)}
        return all(entry.get(key) == value for key, value in wanted.items())

    def claim(self, targets: Iterable[Path]) -> None:
        """Say which targets are going to be written."""
        self._append([{"target": target.name} for target in targets if not self.claimed(target)])

    def add(self, source: str, state: list[Any], target: Path) -> None:
        """Say that a target has been written.

        Args:
            source: What from.
            state: Of the source, from before it was read.
            target: The file.
        """
        size = target.stat().st_size
        self._append([{"target": target.name, "source": source, "state": state, "bytes": size, "recipe": self.recipe}])

    def _append(self, entries: list[dict[str, Any]]) -> None:
        if not entries:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / FILE, "a", encoding="utf-8") as file:
            file.write("\n" if file.tell() else "")  # what a killed process left may end anywhere
            file.write("\n".join(json.dumps(entry) for entry in entries))
        self.entries.update({entry["target"]: entry for entry in entries})
