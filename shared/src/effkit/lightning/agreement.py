"""What a resumed run must have in common with the interrupted one, and the record of what it has not.

Everything in a configuration shapes the result unless it is listed here; a key that nobody has thought of is compared.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from effkit.atomic import atomic
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError
from effkit.lightning.resume import Resume
from effkit.lightning.sharding import ShardedStrategy
from effkit.report import write_json
from effkit.runs import PREPROCESSING_FILE, load_preprocessing

__all__ = ["RECORD", "Agreed", "differences", "hardware", "settle"]

RECORD = "resumed.json"
"""The file of a run folder that lists how often the run was resumed, and with which differences."""

# How long a run is, what it says and where, and how fast it is: none of it changes what an epoch does.
_FREE = {
    *("resume", "resume_anyway", "logger", "format", "threads", "expected", "overwrite"),
    "checkpoint_minutes",
    *("data.num_workers", "trainer.max_epochs", "trainer.max_time", "trainer.limit_test_batches"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.profiler", "trainer.detect_anomaly"),
}
# Words for the machine: `auto` means one thing here and another there, so what they came to is compared (`hardware`).
_MACHINE = {
    *("device", "precision", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.precision"),
    *("trainer.strategy", "trainer.plugins"),
}
Changes = dict[str, tuple[Any, Any]]


def hardware(trainer: Trainer) -> dict[str, Any]:
    """What a run computes on, kept in its checkpoints: kind of device, processes of the whole job, precision."""
    sharded = {"trainer.strategy": "fsdp"} if isinstance(trainer.strategy, ShardedStrategy) else {}
    return {
        "trainer.accelerator": trainer.strategy.root_device.type,
        "trainer.devices": trainer.world_size,
        "trainer.precision": str(trainer.precision),
        **sharded,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any], but: Iterable[str] = ()) -> Changes:
    """Values by dotted key, before and now, where two configurations differ in what shapes the result.

    Args:
        before: Of the interrupted run.
        now: Of this command. A key that one of them lacks counts as ``None``.
        but: Further keys to leave out, with all below them.
    """
    old, new = _flat(before), _flat(now)
    free = {*_FREE, *but}
    keys = [k for k in dict.fromkeys([*old, *new]) if not any(k == f or k.startswith(f"{f}.") for f in free)]
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


def settle(resume: Resume, cfg: Mapping[str, Any], folder: Path, trainer: Trainer, data: Any) -> Changes:
    """Compare a resumed run with the interrupted one.

    Args:
        resume: Where the run goes on.
        cfg: The configuration of this command; ``resume_anyway`` says that all differences are meant.
        folder: The run folder.
        trainer: On its hardware.
        data: The data module.

    Returns:
        The differences.

    Raises:
        UserError: If they differ and ``resume_anyway`` is not set; names all differences.
    """
    changed: Changes = {}
    if resume.config:
        changed |= differences(resume.config, cfg, _MACHINE if resume.hardware else ())
    if resume.hardware:
        changed |= differences(resume.hardware, hardware(trainer))
    changed |= _prepared_otherwise(folder, getattr(data, "preprocessing", None))
    if changed and not cfg.get("resume_anyway"):
        if trainer.is_global_zero and resume.folder is not None:
            _describe(folder, resume.config)
        raise UserError(
            f"resume: {_listed(changed)}; give the same, start a new run, or add resume_anyway=true if this is meant"
        )
    return changed


class Agreed(Callback):
    """Notes that a run goes on, once its state has been restored: in ``resumed.json`` and ``.hydra/config.yaml``.

    Args:
        resume: Where it goes on.
        cfg: The configuration of this command.
        folder: The run folder.
        changed: From :func:`settle`.
    """

    def __init__(self, resume: Resume, cfg: Mapping[str, Any], folder: Path, changed: Changes) -> None:
        self.resume, self.cfg, self.folder, self.changed = resume, cfg, folder, changed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write both."""
        if trainer.is_global_zero:
            _record(self.folder, self.resume, {**self.changed, **getattr(pl_module, "recipe_changes", {})})
            if self.resume.folder is not None:
                _describe(self.folder, self.cfg)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def _prepared_otherwise(folder: Path, now: Preprocessing | None) -> Changes:
    """Pictures prepared in another way; a configuration may hold ``null`` for what the data set decides."""
    file = folder / PREPROCESSING_FILE
    if now is None or not file.is_file():
        return {}
    before = load_preprocessing(file)
    pairs = {f.name: (getattr(before, f.name), getattr(now, f.name)) for f in dataclasses.fields(before)}
    return {f"the preprocessing's {k}": v for k, v in pairs.items() if k != "class_names" and v[0] != v[1]}


def _listed(changed: Changes) -> str:
    """The differences, those of one group together: ``optimizer was {'lr': 0.1} ... and is {'lr': 0.2} now``."""
    groups: dict[str, tuple[Any, Any]] = {}
    for key, (old, new) in changed.items():
        group, _, rest = key.partition(".")
        if not rest or " " in group:
            groups[key] = (old, new)
            continue
        before, now = groups.setdefault(group, ({}, {}))
        before[rest], now[rest] = old, new
    return ", ".join(f"{k} was {old} in the interrupted run and is {new} now" for k, (old, new) in groups.items())


def _record(folder: Path, resume: Resume, changed: Changes) -> None:
    file = folder / RECORD
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entries = []
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "from": str(resume.checkpoint),
        "after_epoch": resume.epoch,
        "changed": {key: {"before": old, "now": new} for key, (old, new) in changed.items()},
    }
    write_json(file, [*(entries if isinstance(entries, list) else []), entry])


def _describe(folder: Path, config: Mapping[str, Any]) -> None:
    """Make ``.hydra/config.yaml`` of a command's run say what the run is: the last configuration it was trained by."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    file = folder / ".hydra" / "config.yaml"
    if not config or not file.is_file():
        return
    try:
        stored: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError):
        stored = None
    wanted = dict(config)
    for key, off in (("resume", None), ("resume_anyway", False)):  # running the config again starts anew
        if key in wanted:
            wanted[key] = off
    if stored == wanted or (isinstance(stored, dict) and not set(stored) <= set(wanted)):
        return
    with atomic(file) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(wanted)), encoding="utf-8")
