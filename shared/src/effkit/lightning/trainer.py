"""Train from a configuration: the run folder, the loggers, resuming and the final figures.

A run folder holds ``metrics.csv`` (one row per epoch), ``preprocessing.json``, ``checkpoints/last.ckpt`` and
``best.ckpt``, after a signal ``step.ckpt`` (``effkit.lightning.stepping``), and at the end ``metrics.json``.
``resume=RUN`` goes on from the newer of ``last.ckpt`` and ``step.ckpt`` **in the folder RUN**; the configuration is
that of the current command. It must agree with that of the run in all that shapes the result
(``effkit.lightning.agreement``), unless ``resume_anyway`` says that the differences are meant. On the CPU, and with the
same configuration, an interrupted and resumed run ends with the very weights and rows of an uninterrupted one.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from effkit.data.base import DataModule, PreparedData
from effkit.errors import UserError
from effkit.lightning.agreement import Agreed, settle
from effkit.lightning.callbacks import EpochLog, EpochSeed, RunCheckpoint, whole_epoch
from effkit.lightning.classifier import Classifier
from effkit.lightning.logging import closed_loggers, create_loggers, quiet_lightning, read_rows
from effkit.lightning.optim import plain_options
from effkit.lightning.ranks import together
from effkit.lightning.resume import find_resume, how_to_go_on, load_checkpoint
from effkit.lightning.setup import build_trainer, count_epochs, device_name, own_settings, run_folder
from effkit.lightning.sharding import ShardedStrategy, whole_again
from effkit.lightning.stepping import StepCheckpoint
from effkit.lightning.trained import TrainedModule
from effkit.report import write_json
from effkit.stopping import current, name_of

__all__ = ["train"]


@rank_zero_only
def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _classifier(cfg: Mapping[str, Any], model: nn.Module, data: DataModule) -> Classifier:
    return Classifier(
        model,
        data.num_classes,
        optimizer=cfg.get("optimizer"),
        scheduler=cfg.get("scheduler"),
        mixup=cfg.get("mixup"),
        ema=cfg.get("ema"),
        label_smoothing=0.0 if cfg.get("label_smoothing") is None else cfg["label_smoothing"],
        preprocessing=data.preprocessing,
    )


def train(
    cfg: Mapping[str, Any],
    model: nn.Module,
    data: PreparedData,
    *,
    module: LightningModule | None = None,
    callbacks: Sequence[Callback] = (),
    folder: Path | None = None,
) -> dict[str, Any]:
    """Train a network; afterwards it holds the final weights (the averaged ones with ``ema``).

    Args:
        cfg: Composed configuration with ``trainer``, ``optimizer``, and optionally ``scheduler``, ``logger``,
            ``mixup``, ``ema``, ``label_smoothing``, ``seed``, ``resume``, ``resume_anyway``, ``device``, ``precision``.
        model: The network; ignored if ``module`` is given.
        data: What to train on; its ``preprocessing`` is kept in the run folder and in the checkpoints.
        module: A Lightning module of the package's own instead of :class:`Classifier`.
        callbacks: Further Lightning callbacks.
        folder: The run folder; the running command's if ``None``. ``resume`` names another one and wins.

    Returns:
        What ``metrics.json`` holds (``final`` and ``best`` metrics, ``epochs`` done, ``seconds``,
        ``images_per_second``, ``params``, ``device``, ``seed``) and ``folder``.

    Raises:
        UserError: If a value cannot be used; nothing has been trained then.
    """
    cfg = dict(plain_options(cfg))
    resume = find_resume(cfg.get("resume"))
    epochs = count_epochs(cfg["trainer"])
    if resume is not None and resume.epoch >= epochs:
        resume = resume.whole()
    folder = resume.folder if resume and resume.folder else run_folder(folder)
    first_epoch = resume.epoch if resume else 0
    seed = cfg.get("seed") or 0
    show = cfg["trainer"].get("enable_progress_bar") is None and not sys.stderr.isatty()
    if first_epoch > epochs:
        raise UserError(f"resume: {folder} has done {first_epoch} epochs, more than trainer.max_epochs={epochs}")
    module = _classifier(cfg, model, data) if module is None else module  # type: ignore[arg-type]
    if isinstance(module, TrainedModule):
        module.resume_anyway = bool(cfg.get("resume_anyway"))
    monitor = getattr(module, "monitor", TrainedModule.monitor)
    checkpoint = RunCheckpoint(folder / "checkpoints", monitor, config=cfg, data=data)
    loggers = create_loggers(cfg.get("logger"), folder, first_epoch)
    keeper = [StepCheckpoint(folder / "checkpoints", cfg.get("checkpoint_minutes"))] if _skips(data) else []
    with quiet_lightning(), _stopped(folder), own_settings(), closed_loggers(loggers):
        trainer = build_trainer(
            cfg["trainer"],
            folder,
            loggers=loggers,
            callbacks=[EpochSeed(seed), EpochLog(show), *callbacks, checkpoint, *keeper],
            device=cfg.get("device") or "auto",
            precision=cfg.get("precision") or "auto",
        )
        if cfg.get("ema") is not None and isinstance(trainer.strategy, ShardedStrategy):
            raise UserError(
                f"ema={cfg['ema']} keeps all weights once more and whole: trainer.strategy=fsdp needs ema=null"
            )
        if resume is not None:
            changed = settle(resume, cfg, folder, trainer, data)
            resume = resume.whole() if changed else resume  # a part of an epoch fits nothing but the rest of it
            if _skips(data):
                data.begin_at(resume.epoch, resume.batches)
            trainer.callbacks.append(Agreed(resume, cfg, folder, changed))  # type: ignore[attr-defined]
            _say(f"resuming {folder} {resume.place}")
        if first_epoch < epochs:
            with together(trainer, folder):
                trainer.fit(module, datamodule=data, ckpt_path=str(resume.checkpoint) if resume else None)
                whole_again(trainer, module)
        elif resume is not None:  # killed between its last checkpoint and metrics.json: only the figures are missing
            stored = load_checkpoint(resume.checkpoint)
            module.load_state_dict(stored["state_dict"])
            checkpoint.load_state_dict(stored["callbacks"][checkpoint.state_key])
        if first_epoch < epochs and not whole_epoch(trainer):
            _forget_part(folder, module)
    figures = _figures(folder, checkpoint)
    if figures["epochs"] < epochs:
        _say(f"stopped after {figures['epochs']} of {epochs} epochs")
    metrics = {
        **figures,
        "params": sum(p.numel() for p in module.parameters()),
        "device": device_name(trainer),
        "seed": seed,
        **left_out(data),
    }
    if trainer.is_global_zero:
        write_json(folder / "metrics.json", metrics)
    return {**metrics, "folder": str(folder)}


def _skips(data: Any) -> bool:
    """Whether the data can go on in the middle of an epoch."""
    return isinstance(data, PreparedData)


@contextmanager
def _stopped(folder: Path) -> Iterator[None]:
    """Say how the run goes on where a signal stops it."""
    try:
        yield
    except KeyboardInterrupt:
        stop = current()
        by = "" if stop is None or stop.received is None else f" by {name_of(stop.received)}"
        _say(f"stopped{by}{how_to_go_on(folder)}")
        raise


def _forget_part(folder: Path, module: LightningModule) -> None:
    """Go back to the weights that the figures are of, where the training was stopped in the middle of an epoch."""
    last = folder / "checkpoints" / "last.ckpt"
    if not read_rows(folder / "metrics.csv") or not last.is_file():
        raise UserError("the training was stopped before its first epoch had ended: there is nothing to keep")
    module.load_state_dict(load_checkpoint(last)["state_dict"])


def left_out(data: Any) -> dict[str, Any]:
    """Pictures that ``data.skip_unreadable`` left out, as an entry of the metrics; nothing where there are none."""
    unreadable = getattr(data, "unreadable", None)
    return {"unreadable": dict(unreadable)} if unreadable else {}


def _figures(folder: Path, checkpoint: RunCheckpoint) -> dict[str, Any]:
    """Gather the run's figures from its metrics file, which also has the epochs done before an interruption."""
    rows = [{k: float(v) for k, v in row.items() if v != ""} for row in read_rows(folder / "metrics.csv")]
    speeds = [row["images_per_second"] for row in rows]
    timing = {"epoch", "step", "seconds", "images_per_second"}
    return {
        "final": {k: v for k, v in rows[-1].items() if k not in timing},
        "best": checkpoint.best,
        "epochs": int(rows[-1]["epoch"]) + 1,
        "seconds": checkpoint.seconds,
        "images_per_second": statistics.median(speeds),
    }
