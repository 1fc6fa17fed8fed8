"""Shifts are told where the training stands, and what they have learnt is logged."""

from __future__ import annotations

from collections import Counter

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from shiftghost_sr.layers.schedule import set_epoch, shifts

__all__ = ["ShiftSchedule", "direction_counts", "mean_entropy"]


def direction_counts(model: nn.Module) -> Counter[tuple[int, int]]:
    """How many shifts of a network have which direction ``(dy, dx)`` in evaluation."""
    counts: Counter[tuple[int, int]] = Counter()
    for _, shift in shifts(model):
        counts.update(shift.chosen_directions())
    return counts


def mean_entropy(model: nn.Module) -> float:
    """Mean entropy of the softmax of the shifts' logits, in bits; 0 where there are no shifts."""
    found = []
    for _, shift in shifts(model):
        logged = torch.log_softmax(shift.logits.detach().double(), dim=1)
        found.append(-(logged.exp() * logged).sum(1) / torch.log(torch.tensor(2.0, dtype=torch.float64)))
    return float(torch.cat(found).mean()) if found else 0.0


class ShiftSchedule(Callback):
    """Sets the shifts' epoch (the noise of their directions falls with it), and logs entropy and share of moves.

    Args:
        per_run: Epochs of the paper's schedule that the whole run stands for; ``None``: one epoch is one epoch. A short
            finetuning would otherwise end with noise that is hardly smaller than at its start.
    """

    def __init__(self, per_run: float | None = None) -> None:
        self.per_run = per_run

    def place(self, trainer: Trainer, batch: int = 0) -> float:
        """The epoch that the shifts are told, counted from 1; with ``per_run`` it moves on from batch to batch."""
        done: float = trainer.current_epoch
        if self.per_run is None:
            return 1.0 + done
        done += batch / max(1, int(trainer.num_training_batches))
        return 1.0 + done * self.per_run / (trainer.max_epochs or 1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set it."""
        set_epoch(pl_module, self.place(trainer))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Set it; also where an interrupted epoch goes on in its middle, which does not start."""
        set_epoch(pl_module, self.place(trainer, batch_idx))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was learnt beside the epoch's other figures."""
        counts = direction_counts(pl_module)
        if total := sum(counts.values()):
            pl_module.log("shift_entropy", mean_entropy(pl_module), logger=False)
            pl_module.log("shift_moved", 1 - counts[0, 0] / total, logger=False)
