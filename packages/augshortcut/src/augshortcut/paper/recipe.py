"""The official training command beside ``experiment=imagenet/aug_vit_small``: how our config has each number."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from augshortcut.config import preset
from effkit.cli import compose

__all__ = ["READERS", "recipe_config"]

READERS: dict[str, Callable[[Any], float]] = {
    "epochs": lambda c: c.trainer.max_epochs - c.scheduler.cooldown_epochs,
    "batch size": lambda c: c.data.batch_size * c.trainer.devices,
    "learning rate": lambda c: c.optimizer.lr,
    "weight decay": lambda c: c.optimizer.weight_decay,
    "warm-up epochs": lambda c: c.scheduler.warmup_epochs,
    "learning rate at the start": lambda c: c.scheduler.warmup_lr,
    "learning rate at the end": lambda c: c.scheduler.min_lr,
    "cooldown epochs": lambda c: c.scheduler.cooldown_epochs,
    "label smoothing": lambda c: c.label_smoothing,
    "mixup": lambda c: c.mixup.mixup_alpha,
    "cutmix": lambda c: c.mixup.cutmix_alpha,
    "switch to cutmix": lambda c: c.mixup.switch_prob,
    "random erasing": lambda c: c.data.augment.re_prob,
    "repeated augmentation": lambda c: c.data.repeats,
    "drop path": lambda c: c.model.drop_path_rate,
    "decay of the weights' average": lambda c: c.ema,
    "AdamW epsilon": lambda c: c.optimizer.eps,
    "scale of the residual stream": lambda c: preset(c.aug.preset).residual_scale,
}


@cache
def recipe_config() -> Any:
    """The composed config of ``augshortcut train experiment=imagenet/aug_vit_small``; only configs are read."""
    return compose("augshortcut", "augshortcut.configs", "train", ["experiment=imagenet/aug_vit_small"])
