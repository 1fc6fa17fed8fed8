"""Optimizer and learning-rate schedule: timm's factories, checked, plus torch's one-cycle schedule.

Schedules are stepped once per optimizer update and laid out over the whole run: ``trainer.max_epochs`` includes the
cooldown epochs, during which the learning rate stays at ``min_lr``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from effkit.errors import UserError, choose
from effkit.lightning.arguments import (
    MISTAKES,
    ONE_CYCLE,
    OPTIMIZER,
    TIMM,
    check_number,
    check_numbers,
    try_optimizer,
    try_schedule,
)

__all__ = ["SCHEDULES", "TimmSchedule", "check_optimizer", "create_optimizer", "create_scheduler", "plain_options"]

TIMM_SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly")
SCHEDULES = (*TIMM_SCHEDULES, "onecycle", "none")
"""Allowed values of ``scheduler.sched``."""

_SET_BY_US = {"optimizer", "sched", "num_epochs", "step_on_epochs", "updates_per_epoch"}
_ONECYCLE_SET_BY_US = {
    "self",
    "optimizer",
    "max_lr",
    "total_steps",
    "epochs",
    "steps_per_epoch",
    "last_epoch",
    "verbose",
}


def plain_options(value: Any) -> Any:
    """Turn OmegaConf nodes, mappings and sequences into plain dicts and lists, which checkpoints can hold."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {str(k): plain_options(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_options(v) for v in value]
    return value


def create_optimizer(model: nn.Module, options: Mapping[str, Any]) -> Optimizer:
    """Build an optimizer with timm; 1-D parameters and those of ``model.no_weight_decay()`` are not decayed.

    Args:
        model: The network (not the Lightning module: its ``no_weight_decay`` and layer groups are asked for).
        options: Arguments of ``timm.optim.create_optimizer_v2``: ``opt``, ``lr``, ``weight_decay``, ``eps``, ...

    Raises:
        UserError: If the name is not known to timm, the learning rate is missing or an argument is not the optimizer's.
    """
    from timm.optim import create_optimizer_v2

    options = dict(options)
    check_optimizer(options)
    try:
        return create_optimizer_v2(model, **options)
    except MISTAKES as error:
        raise UserError(f"optimizer.opt={options['opt']}: {error}") from error


def check_optimizer(options: Mapping[str, Any]) -> None:
    """Try the arguments of :func:`create_optimizer` on a network of one layer.

    Raises:
        UserError: If they do not fit.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    choose("optimizer.opt", str(options.get("opt", "")).lower().removeprefix("lookahead_"), list_optimizers())
    check_number("optimizer.lr", options.get("lr"), *OPTIMIZER["lr"])
    try_optimizer(create_optimizer_v2, options)


class TimmSchedule:
    """A timm schedule that counts the updates itself, so that Lightning can step it like one of torch's.

    Its whole state is the number of updates: a resumed run follows the schedule of its own command, not a stored one.

    Args:
        schedule: A ``timm.scheduler.Scheduler`` laid out in updates.
        optimizer: Whose learning rates it sets.
    """

    def __init__(self, schedule: Any, optimizer: Optimizer) -> None:
        self.schedule, self.optimizer, self.updates = schedule, optimizer, 0

    def step(self) -> None:
        """Set the learning rates for the next update."""
        self.updates += 1
        self.schedule.step_update(self.updates)

    def state_dict(self) -> dict[str, int]:
        """Return the number of updates done."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go to the stored number of updates."""
        self.updates = state_dict["updates"]
        self.schedule.step_update(self.updates)


def create_scheduler(
    optimizer: Optimizer, options: Mapping[str, Any] | None, *, epochs: int, updates_per_epoch: int
) -> TimmSchedule | OneCycleLR | None:
    """Build the learning-rate schedule of a run.

    Args:
        optimizer: Whose learning rates it sets.
        options: ``sched`` (one of ``SCHEDULES``) and the arguments of ``timm.scheduler.create_scheduler_v2``, or of
            ``torch.optim.lr_scheduler.OneCycleLR`` for ``onecycle`` (its ``max_lr`` is the optimizer's ``lr``).
        epochs: Epochs of the whole run, cooldown included.
        updates_per_epoch: Optimizer updates per epoch.

    Returns:
        A schedule to step after each update, or ``None`` for a constant learning rate.

    Raises:
        UserError: If a name is not known, or warm-up and cooldown leave no epoch between them.
    """
    options = dict(options or {"sched": "none"})
    name = choose("scheduler.sched", options.pop("sched", "none"), SCHEDULES)
    if name == "none":
        return None
    if name == "onecycle":
        return _one_cycle(optimizer, options, epochs * updates_per_epoch)
    return _timm(optimizer, name, options, epochs, updates_per_epoch)


def _one_cycle(optimizer: Optimizer, options: dict[str, Any], updates: int) -> OneCycleLR:
    allowed = sorted(set(inspect.signature(OneCycleLR.__init__).parameters) - _ONECYCLE_SET_BY_US)
    for key in options:
        choose("scheduler=onecycle argument", key, allowed)
    check_numbers("scheduler", options, ONE_CYCLE)
    peaks = [group["lr"] * group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    try:
        return OneCycleLR(optimizer, max_lr=peaks, total_steps=updates, **options)
    except MISTAKES as error:
        raise UserError(f"scheduler=onecycle: {error}") from error


def _timm(
    optimizer: Optimizer, name: str, options: dict[str, Any], epochs: int, updates_per_epoch: int
) -> TimmSchedule:
    from timm.scheduler import create_scheduler_v2

    allowed = sorted(set(inspect.signature(create_scheduler_v2).parameters) - _SET_BY_US)
    for key in options:
        choose(f"scheduler={name} argument", key, allowed)
    check_numbers("scheduler", options, TIMM)
    warmup, cooldown = options.get("warmup_epochs") or 0, options.get("cooldown_epochs") or 0
    prefix = warmup if options.get("warmup_prefix", False) else 0
    if warmup + cooldown >= epochs:
        raise UserError(
            f"scheduler.warmup_epochs={warmup} and scheduler.cooldown_epochs={cooldown} must leave some of "
            f"trainer.max_epochs={epochs} between them"
        )
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched=name,
            num_epochs=epochs - cooldown - prefix,
            step_on_epochs=False,
            updates_per_epoch=updates_per_epoch,
            **options,
        )
    except MISTAKES as error:
        raise UserError(f"scheduler.sched={name}: {error or type(error).__name__}") from error
    try_schedule(name, optimizer, schedule.step_update, epochs * updates_per_epoch)
    return TimmSchedule(schedule, optimizer)
