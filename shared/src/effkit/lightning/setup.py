"""What training and evaluation set up alike: the Trainer on this machine's hardware, the run folder, the process."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from effkit.arguments import check_arguments
from effkit.device import resolve_device, resolve_precision
from effkit.errors import UserError, choose
from effkit.lightning.callbacks import RunCheckpoint, TimeLimit
from effkit.lightning.environment import check_nodes, cluster_environment
from effkit.lightning.ranks import own_ranks
from effkit.lightning.resume import AtomicCheckpointIO
from effkit.lightning.sharding import ShardedStrategy

__all__ = ["build_trainer", "count_epochs", "device_name", "own_settings", "run_folder"]

_OWN_KEYS = {"self", "logger", "callbacks", "plugins", "default_root_dir", "use_distributed_sampler", "overfit_batches"}
_OWN_KEYS |= {"max_steps", "min_steps", "num_sanity_val_steps", "log_every_n_steps", "barebones", "fast_dev_run"}
_PRECISIONS = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}
_BITS = {"fp32": "32", "bf16": "bf16", "fp16": "16"}


def _resolve_hardware(options: dict[str, Any], device: str, precision: str) -> dict[str, Any]:
    """Fill in what ``auto`` means: the command's ``device`` and ``precision``, by default what the machine has.

    Raises:
        UserError: If the trainer says something else than they do, or the device has not the precision.
    """
    if options.setdefault("accelerator", "auto") == "auto" or device != "auto":
        chosen = resolve_device(device)
        kind = "gpu" if chosen.type == "cuda" else chosen.type
        if options["accelerator"] not in ("auto", kind, chosen.type):
            raise UserError(
                f"device={device} and trainer.accelerator={options['accelerator']} contradict each other: "
                "add trainer.accelerator=auto, or leave device out"
            )
        options["accelerator"] = kind
        if ":" in device:  # one GPU by number; `cuda` alone leaves their number to trainer.devices
            options["devices"] = [chosen.index]
    used = resolve_device("cpu" if options["accelerator"] == "cpu" else "auto")
    if options.setdefault("precision", "auto") == "auto":
        options["precision"] = _PRECISIONS[resolve_precision(precision, used)]
    elif precision != "auto" and str(options["precision"]).partition("-")[0] != _BITS.get(precision):
        raise UserError(
            f"precision={precision} and trainer.precision={options['precision']} contradict each other: "
            "add trainer.precision=auto, or leave precision out"
        )
    if used.type == "cpu" and str(options["precision"]) in ("16", "16-mixed"):  # Lightning would take bf16
        raise UserError("precision=fp16: Lightning has no fp16 on the CPU, use bf16 or fp32")
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
            terminal, else one line per epoch; ``max_time`` ends the training between two epochs.
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
    count_epochs(options)
    options = _resolve_hardware(options, device, precision)
    check_arguments(Trainer, options, "trainer.", also=["enable_progress_bar"])
    for key in ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes"):  # Lightning divides by them unasked
        if options.get(key) is not None and options[key] < 1:
            raise UserError(f"trainer.{key}={options[key]!r} must be a whole number of at least 1")
    bar = options.pop("enable_progress_bar", None)
    bar = sys.stderr.isatty() if bar is None else bar
    callbacks = [*callbacks, *([RichProgressBar(console_kwargs={"stderr": True})] if bar else [])]
    limit = options.pop("max_time", None)
    if options.get("strategy") == "fsdp":
        options["strategy"] = ShardedStrategy()
    foreign = str(options.get("strategy", "")).startswith(("fsdp", "deepspeed", "model"))
    environment = cluster_environment()
    check_nodes(environment, options.get("num_nodes", 1))
    try:
        if limit is not None:
            callbacks = [*callbacks, TimeLimit(limit)]
        trainer = Trainer(
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
            # Foreign strategies write folders of their own.
            plugins=[environment] if foreign else [environment, AtomicCheckpointIO()],
        )
    except (MisconfigurationException, MemoryError, ValueError, TypeError) as error:
        said = " ".join(str(error).split()) or f"{options} asks for more than there is memory for"
        raise UserError(f"trainer: {said}") from error
    _check_tasks(trainer)
    own_ranks(trainer)
    return trainer


def _check_tasks(trainer: Trainer) -> None:
    """Refuse devices that SLURM started no task for: Lightning leaves them out without a word."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if not isinstance(environment, SLURMEnvironment):
        return
    asked, started = trainer.num_devices * trainer.num_nodes, environment.world_size()
    if asked != started:
        raise UserError(
            f"trainer.devices={trainer.num_devices} on trainer.num_nodes={trainer.num_nodes} are {asked} processes, "
            f"but SLURM_NTASKS={started}: start the job with --ntasks-per-node={trainer.num_devices}, or set "
            "trainer.devices to the tasks of a node"
        )


def count_epochs(options: Mapping[str, Any]) -> int:
    """Return ``trainer.max_epochs``.

    Raises:
        UserError: If it is no whole number of at least 1.
    """
    epochs = options.get("max_epochs")
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise UserError(f"trainer.max_epochs={epochs!r} must be a whole number of at least 1")
    return epochs


@contextmanager
def own_settings() -> Iterator[None]:
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


def run_folder(folder: Path | None) -> Path:
    """Return ``folder``, or the running command's."""
    if folder is not None:
        return Path(folder)
    from effkit.cli import run_dir

    return run_dir()


def device_name(trainer: Trainer) -> str:
    """Name of the GPU that a trainer runs on, or the kind of its device."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
