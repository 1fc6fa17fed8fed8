"""Many pictures, on one process or many: what is finished is left alone, and one broken file stops no other."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.executors import Choice, Task, run
from effkit.executors.errors import TaskError
from effkit.progress import report_progress
from shiftghost_sr.images.reading import read_picture
from shiftghost_sr.images.writing import check_fits, write_picture
from shiftghost_sr.inference.journal import Journal, state_of
from shiftghost_sr.inference.opening import open_network
from shiftghost_sr.inference.plan import Errand
from shiftghost_sr.inference.upscale import Upscaler

__all__ = ["Options", "Outcome", "upscale_files"]


@dataclass(frozen=True)
class Options:
    """How files are enlarged; plain values, so that a worker elsewhere can be told.

    Attributes:
        model: A file of weights.
        device: Where to compute.
        precision: As for ``Upscaler``.
        scale: For weights that are of several scales.
        tile: Likewise.
        overlap: Likewise.
        ensemble: Likewise.
        quality: Of JPEG.
    """

    model: str
    device: str = "cpu"
    precision: str = "fp32"
    scale: int | None = None
    tile: int | None = None
    overlap: int | None = None
    ensemble: bool = False
    quality: int = 95

    @functools.cached_property
    def recipe(self) -> str:
        """What the pixels depend on, as a hash: the weights' bytes, the options; tiles without seams not."""
        with open(self.model, "rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        options = {k: v for k, v in asdict(self).items() if k not in ("model", "device", "tile")}
        if self.overlap is not None:
            options["tile"] = self.tile
        return hashlib.sha256(json.dumps([weights, options], sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Attributes:
        source: The picture.
        target: The file.
        state: ``written``, ``finished before`` or ``failed``.
        why: The error, in one line; empty if there was none.
        seconds: What it took.
        size: Width and height written; zeros if none.
        tile: Side of the tiles, ``None`` for one piece.
        precision: The dtype it was computed in.
        notes: What was done otherwise than asked.
    """

    source: str
    target: Path
    state: str
    why: str = ""
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    tile: int | None = None
    precision: str = ""
    notes: tuple[str, ...] = ()


def upscale_files(
    errands: Sequence[Errand],
    folder: Path,
    options: Options,
    choice: Choice | None = None,
    *,
    replace_files: bool = False,
) -> list[Outcome]:
    """Enlarge files.

    Args:
        errands: From :func:`shiftghost_sr.inference.plan.plan_errands`.
        folder: Where they go, and the journal with them.
        options: How.
        choice: Where the work is done; this process if not given.
        replace_files: Write over files that no run of ours has made.

    Returns:
        What became of each, in order.

    Raises:
        UserError: If a file is in the way, or the model cannot be used.
    """
    journal = Journal(folder, options.recipe)
    done = {e for e in errands if journal.finished(e.source, e.target)}
    todo = [e for e in errands if e not in done]
    foreign = [e.target for e in todo if not replace_files and e.target.exists() and not journal.claimed(e.target)]
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise UserError(
            f"out: {str(foreign[0])!r}{more} is there and no earlier run wrote it: replace=true writes over it"
        )
    journal.claim(e.target for e in todo)
    outcomes: dict[Errand, Outcome] = {e: Outcome(e.source, e.target, "finished before") for e in done}
    states = {}
    for errand in todo:
        try:
            states[errand] = state_of(errand.source)
        except OSError as error:
            outcomes[errand] = Outcome(errand.source, errand.target, "failed", f"{error.strerror or error}")
    todo = [e for e in todo if e not in outcomes]

    def finished(number: int, result: Any) -> None:
        errand = todo[number]
        if isinstance(result, TaskError):
            outcomes[errand] = Outcome(errand.source, errand.target, "failed", result.reason)
            return
        journal.add(errand.source, states[errand], errand.target)
        outcomes[errand] = Outcome(errand.source, errand.target, "written", **result)

    if todo:
        _upscaler(options)  # a model that cannot be used is one error, not one a picture
        tasks = [Task(e.source, options, e.source, str(e.target)) for e in todo]
        choice = choice or Choice()
        with replace(choice, folder=choice.folder or folder / ".submitit").open(tasks=len(tasks)) as pool:
            for _ in run(pool, _one, tasks, keep_going=True, finished=finished):
                pass
        _upscaler.cache_clear()
        report_progress(f"{len(todo)} of {len(todo)} done", 1.0)
    return [outcomes[errand] for errand in errands]


@functools.lru_cache(maxsize=1)
def _upscaler(options: Options) -> Upscaler:
    return Upscaler(
        open_network(options.model, options.device, scale=options.scale),
        tile=options.tile,
        overlap=options.overlap,
        ensemble=options.ensemble,
        precision=options.precision,
    )


def _one(options: Options, source: str, target: str) -> dict[str, Any]:
    started = time.perf_counter()
    upscaler = _upscaler(options)
    picture = read_picture(source)
    check_fits(picture, Path(target), factor=upscaler.scale)
    found = upscaler(picture)
    write_picture(found.picture, target, quality=options.quality)
    height, width = found.picture.size
    return {
        "seconds": time.perf_counter() - started, "size": (width, height), "tile": found.tile,
        "precision": found.precision, "notes": found.notes,
    }  # fmt: skip
