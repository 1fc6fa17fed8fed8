"""What happens around the epochs of a run: seeds, one row of metrics, checkpoints, the average of the weights.

At the end of an epoch the order is fixed: first its row is on disk, then its checkpoint. A process killed between the
two leaves a row too many, which resuming drops; the other order would lose one.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, Timer, WeightAveraging
from torch import Tensor

from effkit.data.preprocessing import Preprocessing
from effkit.data.sampling import mix_seed, seed_all
from effkit.errors import UserError
from effkit.lightning.agreement import hardware
from effkit.runs import save_preprocessing

__all__ = ["EpochLog", "EpochSeed", "RunCheckpoint", "TimeLimit", "WeightEma", "whole_epoch"]

FIRST_COLUMNS = ("train_loss", "train_top1", "val_loss", "val_top1", "val_top5")


class EpochSeed(Callback):
    """Reseed all generators at the start of each epoch from ``(seed, epoch, rank)``.

    Dropout, stochastic depth and mixup of an epoch then do not depend on whether the run was interrupted before it.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reseed."""
        seed_all(mix_seed(self.seed, trainer.current_epoch, trainer.global_rank))


class WeightEma(WeightAveraging):
    """Exponential moving average of the weights, updated after each optimizer update and kept in checkpoints.

    Lightning's ``EMAWeightAveraging``, except that integer buffers (counters, index tables) are copied: averaged and
    cut back to integers they would drift.

    Args:
        decay: Weight of the old average.
    """

    def __init__(self, decay: float) -> None:
        def average(old: Tensor, new: Tensor, count: Tensor) -> Tensor:
            return old.lerp(new, 1 - decay) if old.is_floating_point() else new

        super().__init__(use_buffers=True, avg_fn=average)


class EpochLog(Callback):
    """Sends one row of metrics per epoch to every logger, and a line to standard error where there is no progress bar.

    Columns: ``step`` (updates so far), ``lr`` (of the epoch's last update, the largest group's), every scalar the
        module
    logged per epoch, ``seconds`` (validation included) and ``images_per_second`` (training only, all processes).

    Args:
        show: Print the line.

    Raises:
        UserError: If the training loss is not finite. The epoch's checkpoint is then not written: the last good one
            stays.
    """

    def __init__(self, show: bool) -> None:
        self.show = show
        self.lr = math.nan
        self.started = self.trained = 0.0
        self.images = 0
        self._part: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on counting in an epoch that was stopped on its way, and so does not start."""
        if self._part is not None and trainer.fit_loop.restarted_mid_epoch:
            self.started = time.perf_counter() - self._part["seconds"]
            self.images = self._part["images"]
        self._part = None

    def state_dict(self) -> dict[str, Any]:
        """What of the epoch is done."""
        return {"seconds": time.perf_counter() - self.started, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the training begins."""
        self._part = state_dict

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and forget the figures of earlier epochs: this one may not be validated."""
        trainer.callback_metrics.clear()
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            trainer.progress_bar_metrics.clear()
        self.started = time.perf_counter()
        self.trained = self.images = 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Note the learning rate: the schedule moves it right after the update."""
        self.lr = max(group["lr"] for group in optimizer.param_groups)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images; the time of the last batch ends the training part of the epoch."""
        self.images += len(batch[0]) if isinstance(batch, tuple | list) else len(batch)
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row; a part of an epoch has none."""
        if not whole_epoch(trainer):
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k != "loss"}
        order = [k for k in FIRST_COLUMNS if k in metrics] + sorted(set(metrics) - set(FIRST_COLUMNS))
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": self.lr}
        row |= {k: metrics[k] for k in order}
        row["seconds"] = time.perf_counter() - self.started
        row["images_per_second"] = self.images * trainer.world_size / max(self.trained - self.started, 1e-9)
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.current_epoch)
        if self.show and trainer.is_global_zero:
            print(_line(row, trainer.max_epochs), file=sys.stderr, flush=True)
        loss = metrics.get("train_loss", 0.0)
        if not math.isfinite(loss):
            raise UserError(
                f"train_loss became {loss} in epoch {trainer.current_epoch + 1}: lower optimizer.lr, set "
                "trainer.gradient_clip_val=1.0 or use trainer.precision=32-true"
            )


def whole_epoch(trainer: Trainer) -> bool:
    """Whether the current epoch has had all its batches; a callback may stop the training in the middle of one."""
    return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


class TimeLimit(Timer):
    """Stops after the last epoch that fits into ``trainer.max_time``, judged by the epoch before; at least one is done.

    Lightning's own stops in the middle of an epoch, and a resumed run has no time left: there the time of all attempts
    counts together, here each has its own.

    Args:
        duration: ``DD:HH:MM:SS``, a ``timedelta`` or its arguments.
    """

    def __init__(self, duration: Any) -> None:
        super().__init__(duration, interval="epoch", verbose=False)
        self._last = 0.0

    def on_train_epoch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Decide, on all processes alike."""
        now, left = self.time_elapsed(), self.time_remaining()
        epoch, self._last = now - self._last, now
        out = trainer.strategy.reduce_boolean_decision(left is not None and left < epoch, all=False)
        trainer.should_stop = trainer.should_stop or out

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the time of an interrupted run is not this one's."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start at zero."""


def _line(row: dict[str, Any], epochs: int | None) -> str:
    parts = [f"epoch {row['epoch'] + 1}/{epochs}"]
    parts += [f"{k} {row[k]:.4g}" for k in row if k not in ("epoch", "step", "seconds", "images_per_second")]
    return "  ".join([*parts, f"{row['seconds']:.1f} s", f"{row['images_per_second']:.0f} images/s"])


class RunCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` (every epoch) and ``best.ckpt`` (highest ``monitor``) in one folder.

    Each file is replaced atomically.

    Args:
        folder: Where the two files live.
        monitor: The metric that decides what is best; the higher the better.
        config: The run's composed configuration as a plain dict, kept in the checkpoints.
        data: The data module, whose ``preprocessing`` is kept in the checkpoints and in the folder above.
    """

    def __init__(
        self, folder: Path, monitor: str = "val_top1", config: dict[str, Any] | None = None, data: Any = None
    ) -> None:
        self.folder, self.monitor, self.config, self.data = folder, monitor, config, data
        self.best: dict[str, float] | None = None
        self.seconds = 0.0
        self._started = 0.0

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The data's, which knows all class names once the data is set up."""
        return getattr(self.data, "preprocessing", None)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the preprocessing: whoever looks into a running run finds it."""
        if trainer.is_global_zero and self.preprocessing is not None:
            save_preprocessing(self.folder.parent, self.preprocessing)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting the training time, on top of that of the resumed run."""
        self._started = time.perf_counter() - self.seconds

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Count the time: a checkpoint may be written now."""
        self.seconds = time.perf_counter() - self._started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoints of the epoch that has just ended; a part of an epoch cannot be resumed and has none."""
        if not whole_epoch(trainer):
            return
        self.seconds = time.perf_counter() - self._started
        value = trainer.callback_metrics.get(self.monitor)
        # best.ckpt first: last.ckpt remembers what is best, so it must not be ahead of that file.
        if value is not None and (self.best is None or float(value) > self.best[self.monitor]):
            self.best = {"epoch": trainer.current_epoch, self.monitor: float(value)}
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=False)
        trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration, what it came to on this machine, and the preprocessing."""
        checkpoint["config"] = self.config or {}
        checkpoint["hardware"] = hardware(trainer)
        if self.preprocessing is not None:
            checkpoint["preprocessing"] = self.preprocessing.to_dict()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know."""
        return {"best": self.best, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the time of the interrupted run, and its best value where the checkpoint of it is at hand."""
        self.seconds = state_dict["seconds"]
        self.best = state_dict["best"] if (self.folder / "best.ckpt").is_file() else None
