"""Loggers of a run, and silence from Lightning's own.

``metrics.csv`` is always written: one row per epoch, on disk before the epoch's checkpoint. TensorBoard and Weights &
Biases come on top of it when asked for and installed.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import logging
import os
import sys
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from effkit.errors import UserError, choose

__all__ = ["LOGGERS", "CsvLogger", "closed_loggers", "create_loggers", "quiet_lightning", "read_rows"]

_WANDB_FOLDERS = ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR")
LOGGERS = ("csv", "tensorboard", "wandb")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of a metrics file; a line that a killed process left unfinished is not one."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(complete))
    return [row for row in reader if None not in row and None not in row.values()]


class CsvLogger(Logger):
    """One row per epoch in ``metrics.csv``, appended and forced to disk.

    Floats are written so that they read back equal. Metrics that arrive later for the same epoch join its row; new
    columns rewrite the file (atomically).

    Args:
        path: The file.
        first_epoch: Rows of this and later epochs are dropped when the logger starts: 0 begins anew, a resumed run
            gives the epoch it goes on with.
    """

    def __init__(self, path: Path, first_epoch: int = 0) -> None:
        super().__init__()
        self.path, self.first_epoch = path, first_epoch
        self.rows: dict[int, dict[str, str]] = {}
        self.columns: list[str] = []
        self._opened = False

    @property
    def name(self) -> str:
        """What Lightning calls this logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one file per run folder."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds the whole configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the metrics of one epoch, given as ``epoch`` (or else ``step``)."""
        self._open()
        epoch = int(metrics.get("epoch", step or 0))
        row = {"epoch": str(epoch)} | {k: _text(v) for k, v in metrics.items() if k != "epoch"}
        known = set(row) <= set(self.columns)
        appendable = known and all(done < epoch for done in self.rows)
        self.rows.setdefault(epoch, {}).update(row)
        if appendable:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow([row.get(c, "") for c in self.columns])
                file.flush()
                os.fsync(file.fileno())
            return
        self.columns += [c for c in row if c not in self.columns]
        self._rewrite()

    def _open(self) -> None:
        if self._opened:
            return
        self._opened = True
        kept = [row for row in read_rows(self.path) if int(row["epoch"]) < self.first_epoch]
        self.columns = list(kept[0]) if kept else []
        self.rows = {int(row["epoch"]): row for row in kept}
        if self.path.exists():
            self._rewrite()

    def _rewrite(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            if self.columns:
                writer.writeheader()
            writer.writerows(self.rows[epoch] for epoch in sorted(self.rows))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)


def _text(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) or hasattr(value, "item") else str(value)


def _need(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise UserError(f"logger={name} needs the package {name}: install it with pip install 'effkit[loggers]'")


def create_loggers(options: Mapping[str, Any] | None, folder: Path, first_epoch: int = 0) -> list[Logger]:
    """Build the loggers of a run; the first one writes ``metrics.csv``.

    Args:
        options: ``name`` (one of ``LOGGERS``); for ``wandb`` also ``project``, ``entity``, ``group``
            (by default the sweep that the run belongs to), ``tags`` and ``mode`` (``offline`` by default, ``online``).
        folder: The run folder, where all of them write.
        first_epoch: First epoch of this process, above 0 in a resumed run.

    Raises:
        UserError: If a name is not known or its package is not installed.
    """
    options = dict(options or {"name": "csv"})
    name = choose("logger.name", options.pop("name", "csv"), LOGGERS)
    allowed = {"csv": [], "tensorboard": [], "wandb": ["project", "entity", "group", "tags", "mode"]}[name]
    for key in options:
        choose(f"logger={name} argument", key, allowed)
    loggers: list[Logger] = [CsvLogger(folder / "metrics.csv", first_epoch)]
    if name == "tensorboard":
        _need(name)
        from lightning.pytorch.loggers import TensorBoardLogger

        # purge_step hides what an interrupted run logged after its last checkpoint.
        purge = first_epoch or None
        loggers.append(
            TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False, purge_step=purge)
        )
    elif name == "wandb":
        _need(name)
        loggers.append(_wandb(options, folder))
    return loggers


def _wandb(options: dict[str, Any], folder: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    mode = choose("logger.mode", options.get("mode", "offline"), ["offline", "online"])
    home = folder / "wandb"
    home.mkdir(parents=True, exist_ok=True)
    marker = home / "run_id"  # so that a resumed run goes on under the same name
    if not marker.exists():
        marker.write_text(uuid.uuid4().hex[:8] + "\n", encoding="utf-8")
    for variable in _WANDB_FOLDERS:
        os.environ.setdefault(variable, str(home))  # otherwise it writes into the home folder
    sweep = folder.parent.name if (folder.parent / "multirun.yaml").is_file() else None
    return WandbLogger(
        name=f"{sweep}/{folder.name}" if sweep else folder.name,  # jobs of a sweep are called 0, 1, ...
        group=options.get("group") or sweep,
        save_dir=folder,
        id=marker.read_text(encoding="utf-8").strip(),
        resume="allow",
        offline=mode == "offline",
        project=options.get("project") or "effkit",
        entity=options.get("entity"),
        tags=options.get("tags"),
    )


@contextmanager
def closed_loggers(loggers: list[Logger]) -> Iterator[list[Logger]]:
    """Close loggers at the end of a job: what it leaves open, the next job of the same process would write into.

    Args:
        loggers: From :func:`create_loggers`; Lightning itself closes TensorBoard's.
    """
    failed = 1
    try:
        yield loggers
        failed = 0
    finally:
        wandb = sys.modules.get("wandb")
        for logger in loggers:
            if wandb is None or type(logger).__name__ != "WandbLogger":
                continue
            if wandb.run is not None and wandb.run.id == logger.version:  # else it is the notebook's own
                wandb.finish(exit_code=failed)
            for variable in _WANDB_FOLDERS:
                if os.environ.get(variable) == str(Path(str(logger.save_dir)) / "wandb"):
                    del os.environ[variable]


_NO_WARNING = (
    # data.num_workers is the user's choice; 0 is right for small sets and for repeatable debugging.
    r"The '\w+' does not have many workers",
    # Nothing is logged per step: EpochLog writes one row per epoch.
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # Asked again whenever a Trainer fits or tests: see effkit.lightning.environment.
    r"The `srun` command is available on your system but is not used",
    # Lightning 2.6's own use of a name that torch 2.15 deprecates (lightning/pytorch/utilities/_pytree.py).
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # It cannot know that the samplers of effkit.data begin where the run was stopped.
    r"You're resuming from a checkpoint that ended before the epoch ended",
)
_TALKATIVE = ("lightning.pytorch", "lightning.fabric", "lightning_utilities")
_ASKED_FOR = "lightning.pytorch.profilers"  # its table is what `trainer.profiler` was given for


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's advertisements, device tables and the warnings above; real warnings and profiles stay."""
    levels = {name: logging.getLogger(name).level for name in (*_TALKATIVE, _ASKED_FOR)}
    for name in levels:
        logging.getLogger(name).setLevel(logging.INFO if name == _ASKED_FOR else logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NO_WARNING:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
