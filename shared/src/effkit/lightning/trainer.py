"""Train and evaluate from a configuration: the run folder, the Trainer, the loggers, resuming and the final figures.

A run folder holds ``metrics.csv`` (one row per epoch), ``checkpoints/last.ckpt`` and ``best.ckpt``, and at the end
``metrics.json``. ``resume=RUN`` goes on from ``RUN/checkpoints/last.ckpt`` **in the folder RUN**; the configuration is
that of the current command. On the CPU, and with the same configuration, an interrupted and resumed run ends with the
very weights and rows of an uninterrupted one.
"""

from __future__ import annotations

import inspect
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from effkit.data.base import DataModule
from effkit.device import resolve_device, resolve_precision
from effkit.errors import UserError, choose
from effkit.lightning.callbacks import EpochLog, EpochSeed, RunCheckpoint
from effkit.lightning.classifier import Classifier
from effkit.lightning.logging import create_loggers, quiet_lightning, read_rows
from effkit.lightning.optim import plain_options
from effkit.lightning.resume import AtomicCheckpointIO, find_resume, load_checkpoint
from effkit.report import write_json

__all__ = ["build_trainer", "evaluate", "train"]

_OWN_KEYS = {"self", "logger", "callbacks", "plugins", "default_root_dir", "use_distributed_sampler", "overfit_batches"}
_OWN_KEYS |= {"max_steps", "min_steps", "num_sanity_val_steps", "log_every_n_steps", "barebones", "fast_dev_run"}
_PRECISIONS = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}


def _resolve_hardware(options: dict[str, Any], device: str, precision: str) -> dict[str, Any]:
    """Fill in what ``auto`` means: the command's ``device`` and ``precision``, by default what the machine has."""
    if options.setdefault("accelerator", "auto") == "auto":
        chosen = resolve_device(device)
        options["accelerator"] = "gpu" if chosen.type == "cuda" else chosen.type
        if ":" in device:  # one GPU by number; `cuda` alone leaves their number to trainer.devices
            options["devices"] = [chosen.index]
    if options.setdefault("precision", "auto") == "auto":
        used = resolve_device("cpu" if options["accelerator"] == "cpu" else "auto")
        options["precision"] = _PRECISIONS[resolve_precision(precision, used)]
    return options


def build_trainer(
    options: Mapping[str, Any],
    folder: Path,
    *,
    loggers: Sequence[Any] = (),
    callbacks: Sequence[Callback] = (),
    device: str = "auto",
    precision: str = "auto",
) -> Trainer:
    """Build a Lightning ``Trainer`` that writes nowhere but into ``folder``.

    Args:
        options: Lightning's own argument names (``max_epochs``, ``accelerator``, ``devices``, ``strategy``, ...);
            ``accelerator`` and ``precision`` may be ``auto``; ``enable_progress_bar`` may be ``null``: a bar on a
            terminal, else one line per epoch.
        folder: The run folder.
        loggers: Receive one row per epoch.
        callbacks: Besides the progress bar.
        device: What ``accelerator=auto`` means, see ``effkit.device.resolve_device``.
        precision: What ``precision=auto`` means, see ``effkit.device.resolve_precision``.

    Raises:
        UserError: If an argument is not known or the machine cannot do what is asked for.
    """
    options = dict(options)
    allowed = sorted(set(inspect.signature(Trainer.__init__).parameters) - _OWN_KEYS)
    for key in options:
        choose("trainer argument", key, allowed)
    _epochs(options)
    options = _resolve_hardware(options, device, precision)
    bar = options.pop("enable_progress_bar", None)
    bar = sys.stderr.isatty() if bar is None else bar
    callbacks = [*callbacks, *([RichProgressBar(console_kwargs={"stderr": True})] if bar else [])]
    sharded = str(options.get("strategy", "")).startswith(("fsdp", "deepspeed", "model"))
    try:
        return Trainer(
            **{
                "enable_model_summary": False,
                "enable_checkpointing": any(isinstance(c, RunCheckpoint) for c in callbacks),
            }
            | options,
            logger=list(loggers) or False,
            callbacks=callbacks,
            enable_progress_bar=bar,
            default_root_dir=str(folder),
            use_distributed_sampler=False,  # ours splits among the processes and counts no picture twice
            num_sanity_val_steps=0,
            plugins=None if sharded else [AtomicCheckpointIO()],  # sharded strategies write folders of their own
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def _epochs(options: Mapping[str, Any]) -> int:
    epochs = options.get("max_epochs")
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise UserError(f"trainer.max_epochs={epochs!r} must be a whole number of at least 1")
    return epochs


@contextmanager
def _own_settings() -> Iterator[None]:
    """Put back what Lightning changes for the whole process: determinism of torch, the handler of Ctrl-C."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        handler = signal.getsignal(signal.SIGINT)
        yield
    except SystemExit as stop:
        # Lightning shuts down cleanly on Ctrl-C, but then leaves as if by sys.exit(1) and deaf to further signals.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise stop.__context__ from None
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


@rank_zero_only
def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run_folder(folder: Path | None) -> Path:
    if folder is not None:
        return Path(folder)
    from effkit.cli import run_dir

    return run_dir()


def _classifier(cfg: Mapping[str, Any], model: nn.Module, data: DataModule) -> Classifier:
    return Classifier(
        model,
        data.num_classes,
        optimizer=cfg.get("optimizer"),
        scheduler=cfg.get("scheduler"),
        mixup=cfg.get("mixup"),
        ema=cfg.get("ema"),
        label_smoothing=cfg.get("label_smoothing") or 0.0,
    )


def train(
    cfg: Mapping[str, Any],
    model: nn.Module,
    data: DataModule,
    *,
    module: LightningModule | None = None,
    callbacks: Sequence[Callback] = (),
    folder: Path | None = None,
) -> dict[str, Any]:
    """Train a network; afterwards it holds the final weights (the averaged ones with ``ema``).

    Args:
        cfg: Composed configuration with ``trainer``, ``optimizer``, and optionally ``scheduler``, ``logger``,
            ``mixup``, ``ema``, ``label_smoothing``, ``seed``, ``resume``, ``device``, ``precision``.
        model: The network; ignored if ``module`` is given.
        data: What to train on.
        module: A Lightning module of the package's own instead of :class:`Classifier`.
        callbacks: Further Lightning callbacks.
        folder: The run folder; the running command's if ``None``. ``resume`` names another one and wins.

    Returns:
        What ``metrics.json`` holds (``final`` and ``best`` metrics, ``epochs``, ``seconds``, ``images_per_second``,
        ``params``, ``device``, ``seed``) and ``folder``.

    Raises:
        UserError: If a value cannot be used; nothing has been trained then.
    """
    cfg = dict(plain_options(cfg))
    resume = find_resume(cfg.get("resume"))
    folder = resume.folder if resume and resume.folder else _run_folder(folder)
    first_epoch = resume.epoch if resume else 0
    seed = cfg.get("seed") or 0
    epochs = _epochs(cfg["trainer"])
    show = cfg["trainer"].get("enable_progress_bar") is None and not sys.stderr.isatty()
    if resume is not None:
        _say(f"resuming {folder} after epoch {first_epoch}")
    if first_epoch > epochs:
        raise UserError(f"resume: {folder} has done {first_epoch} epochs, more than trainer.max_epochs={epochs}")
    module = _classifier(cfg, model, data) if module is None else module
    checkpoint = RunCheckpoint(folder / "checkpoints", config=cfg)
    with quiet_lightning(), _own_settings():
        trainer = build_trainer(
            cfg["trainer"],
            folder,
            loggers=create_loggers(cfg.get("logger"), folder, first_epoch),
            callbacks=[EpochSeed(seed), EpochLog(show), *callbacks, checkpoint],
            device=cfg.get("device") or "auto",
            precision=cfg.get("precision") or "auto",
        )
        if first_epoch < epochs:
            trainer.fit(module, datamodule=data, ckpt_path=str(resume.checkpoint) if resume else None)
        elif resume is not None:  # killed between its last checkpoint and metrics.json: only the figures are missing
            stored = load_checkpoint(resume.checkpoint)
            module.load_state_dict(stored["state_dict"])
            checkpoint.load_state_dict(stored["callbacks"][checkpoint.state_key])
    metrics = {
        **_figures(folder, checkpoint),
        "epochs": epochs,
        "params": sum(p.numel() for p in module.parameters()),
        "device": _device_name(trainer),
        "seed": seed,
    }
    if trainer.is_global_zero:
        write_json(folder / "metrics.json", metrics)
    return {**metrics, "folder": str(folder)}


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _figures(folder: Path, checkpoint: RunCheckpoint) -> dict[str, Any]:
    """Gather the run's figures from its metrics file, which also has the epochs done before an interruption."""
    rows = [{k: float(v) for k, v in row.items() if v != ""} for row in read_rows(folder / "metrics.csv")]
    speeds = [row["images_per_second"] for row in rows]
    timing = {"epoch", "step", "seconds", "images_per_second"}
    return {
        "final": {k: v for k, v in rows[-1].items() if k not in timing},
        "best": checkpoint.best,
        "seconds": checkpoint.seconds,
        "images_per_second": statistics.median(speeds),
    }


def evaluate(
    cfg: Mapping[str, Any], model: nn.Module, data: DataModule, *, folder: Path | None = None
) -> dict[str, Any]:
    """Measure a network on the test split.

    Args:
        cfg: Composed configuration; ``trainer``, ``device`` and ``precision`` are read, each may be missing.
        model: The network, with its weights.
        data: What to measure on.
        folder: The run folder; the running command's if ``None``.

    Returns:
        ``test_loss``, ``test_top1`` and ``test_top5`` (percent), ``images``, ``seconds``, ``images_per_second``,
        ``params``, ``device``: also written to ``metrics.json``.
    """
    cfg = plain_options(cfg)
    folder = _run_folder(folder)
    with quiet_lightning(), _own_settings():
        trainer = build_trainer(
            {**(cfg.get("trainer") or {}), "max_epochs": 1},
            folder,
            device=cfg.get("device") or "auto",
            precision=cfg.get("precision") or "auto",
        )
        started = time.perf_counter()
        trainer.test(Classifier(model, data.num_classes), datamodule=data, verbose=False)
        seconds = time.perf_counter() - started
    images = min(len(data.split("test")), _batches(trainer) * data.batch_size * trainer.world_size)
    metrics = {
        **{k: float(v) for k, v in trainer.callback_metrics.items()},
        "images": images,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "params": sum(p.numel() for p in model.parameters()),
        "device": _device_name(trainer),
    }
    if trainer.is_global_zero:
        write_json(folder / "metrics.json", metrics)
    return metrics


def _batches(trainer: Trainer) -> int:
    return int(sum(trainer.num_test_batches))
