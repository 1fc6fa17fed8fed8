"""A training that is asked to stop does so after the step it is in, and keeps all that the next one needs.

``checkpoints/step.ckpt`` stands for a part of an epoch: weights, optimizer and schedule as in any checkpoint, and what
is otherwise drawn or counted anew in every epoch: the state of all random generators of every process, the sums behind
the epoch's metrics, how many batches were seen. With the same configuration and as many processes the run then goes on
to the bits of one that was never stopped. It goes when its epoch ends.
"""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from torchmetrics import Metric

from effkit.errors import UserError
from effkit.lightning.callbacks import whole_epoch
from effkit.lightning.resume import STEP_FILE
from effkit.stopping import current, deferred

__all__ = ["StepCheckpoint"]


class StepCheckpoint(Checkpoint):
    """Stops between two steps when a signal has asked for it, and keeps the state; also every few minutes.

    A signal that comes while an epoch is validated or written waits for that: the epoch's own checkpoint follows.

    Args:
        folder: Where the checkpoint lives.
        minutes: How often to write it unasked, so that a machine that dies loses no more; ``None`` for never.

    Raises:
        UserError: If ``minutes`` is no number of at least 0.
    """

    def __init__(self, folder: Path, minutes: float | None = None) -> None:
        if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes < 0):
            raise UserError(f"checkpoint_minutes={minutes!r} must be a number of at least 0, or null for never")
        self.file, self.seconds = folder / STEP_FILE, None if minutes is None else 60 * minutes
        self.stopped = False
        self._written = 0.0
        self._batches: int | None = None
        self._restored: dict[str, Any] | None = None
        self._block = contextlib.ExitStack()

    # --- when -----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on signals wait for the end of a step."""
        # Lightning asks the first process before every batch whether it was told to stop; all are asked here.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        self._block.enter_context(deferred())
        self._written = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put back what the first step of a resumed epoch finds, right before it."""
        if self._restored is not None:
            _restore(self._restored, trainer, pl_module)
            self._restored = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint, and stop, where that is asked for and an update has just been done."""
        _alive()
        if whole_epoch(trainer) or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        asked, due = self._agreed(trainer)
        if asked or due:
            self._save(trainer, batch_idx + 1)
        if asked:
            self._stop(asked)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Go on: the epoch's checkpoint follows."""
        _alive()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after the epoch's checkpoint; an epoch that was the last one ends the run as ever."""
        if not whole_epoch(trainer):
            return
        if trainer.is_global_zero:
            self.file.unlink(missing_ok=True)
        self._written = time.monotonic()
        asked, _ = self._agreed(trainer)
        if asked and trainer.current_epoch + 1 < (trainer.max_epochs or 0) and not trainer.should_stop:
            self._stop(asked)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Signals act at once again."""
        self._block.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._block.close()

    def _agreed(self, trainer: Trainer) -> tuple[int, bool]:
        """The signal that some process has had (0 for none), and whether the first wants a checkpoint."""
        stop = current()
        asked = 0 if stop is None else stop.received or 0
        due = trainer.is_global_zero and self.seconds is not None and time.monotonic() - self._written > self.seconds
        if trainer.world_size == 1:
            return asked, due
        found = torch.tensor([asked, int(due)], device=trainer.strategy.root_device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        asked, wanted = (int(v) for v in found.tolist())
        return asked, bool(wanted)

    def _stop(self, asked: int) -> None:
        stop = current()
        self.stopped = True
        if stop is None:
            raise KeyboardInterrupt
        stop.received = stop.received or asked  # another process was told, and this one goes with it
        raise stop.error()

    # --- what -----------------------------------------------------------------------------------------------------

    def keep_before(self, trainer: Trainer) -> bool:
        """Write the state before the step that is under way, which cannot be finished.

        Args:
            trainer: In a training step that has updated nothing.

        Returns:
            Whether there is one: the first step of an epoch has the epoch's own checkpoint before it.
        """
        progress = trainer.fit_loop.epoch_loop.batch_progress
        done = int(progress.current.completed)
        if not done:
            return False
        for tracker in (progress.total, progress.current):  # as it is when a step has just ended
            tracker.ready = tracker.started = tracker.processed  # type: ignore[attr-defined]
            tracker.completed = tracker.processed - 1  # type: ignore[attr-defined]
        self._save(trainer, done)
        return True

    def _save(self, trainer: Trainer, batches: int) -> None:
        self._batches = batches
        try:
            trainer.save_checkpoint(self.file, weights_only=False)
        finally:
            self._batches = None
        self._written = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what a part of an epoch has besides the weights, of every process."""
        if self._batches is not None:
            own = {"random": _random_state(trainer), "metrics": _metrics(pl_module)}
            checkpoint["step"] = {
                "batches": self._batches,
                "of": int(trainer.num_training_batches),
                "ranks": _gathered(own, trainer),
            }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep it until the first step."""
        step = checkpoint.get("step")
        self._restored = None if step is None else step["ranks"][trainer.global_rank]


def _alive() -> None:
    if (stop := current()) is not None:
        stop.alive()


def _gathered(own: dict[str, Any], trainer: Trainer) -> list[dict[str, Any]]:
    if trainer.world_size == 1:
        return [own]
    every: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(every, own)
    return every


def _random_state(trainer: Trainer) -> dict[str, Any]:
    """State of the global generators, as plain values and tensors."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - timm's mixup draws from the global generator
    device = trainer.strategy.root_device
    return {
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _metrics(module: LightningModule) -> dict[str, Any]:
    """What metrics have summed up since their epoch began, by name."""
    found: dict[str, Any] = {}
    for name, metric in module.named_modules():
        if isinstance(metric, Metric) and metric._update_count:
            values = {k: _on_cpu(v) for k, v in metric.metric_state.items()}
            found[name] = {"updates": metric._update_count, "values": values}
    return found


def _on_cpu(value: Any) -> Any:
    return [v.cpu() for v in value] if isinstance(value, list) else value.detach().cpu().clone()


def _restore(state: dict[str, Any], trainer: Trainer, module: LightningModule) -> None:
    version, numbers, gauss = state["random"]["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, *rest = state["random"]["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["random"]["torch"])
    if state["random"]["cuda"] is not None:
        torch.cuda.set_rng_state(state["random"]["cuda"], trainer.strategy.root_device)
    metrics = dict(module.named_modules())
    for name, found in state["metrics"].items():
        metric: Any = metrics[name]
        metric._update_count = found["updates"]
        for key, value in found["values"].items():
            setattr(metric, key, _on_device(value, module.device))


def _on_device(value: Any, device: torch.device) -> list[Tensor] | Tensor:
    return [v.to(device) for v in value] if isinstance(value, list) else value.to(device)
