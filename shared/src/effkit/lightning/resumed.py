"""A stored state of training meets the recipe of the command that goes on with it.

Lightning restores optimizer and schedule as they were, whatever the command says: values that differ are either refused
or put into the stored state, before it is restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from effkit.errors import UserError

__all__ = ["Resumed", "check_network"]


class Resumed:
    """The checkpoint that a run goes on from.

    Args:
        checkpoint: As Lightning has read it; changed in place by :meth:`fit_to`.
        recipe: ``optimizer``, ``scheduler`` and ``ema`` of this command.
    """

    def __init__(self, checkpoint: dict[str, Any], recipe: Mapping[str, Any]) -> None:
        self.checkpoint, self.now = checkpoint, recipe
        self.before: dict[str, Any] = dict(checkpoint.get("hyper_parameters", {}))
        self.epochs = checkpoint["epoch"] + 1
        self.updates = checkpoint.get("updates_per_epoch") or checkpoint["global_step"] / self.epochs
        schedules = checkpoint.get("lr_schedulers") or [{}]
        self.total_steps = schedules[0].get("total_steps")

    def changed(self, key: str) -> bool:
        """Whether this part of the recipe differs."""
        return key in self.before and self.before[key] != self.now[key]

    def check_recipe(self, anyway: bool) -> None:
        """Refuse another optimizer, schedule or average of the weights.

        Args:
            anyway: Refuse only what the stored state is no use to.

        Raises:
            UserError: If they differ.
        """
        for key in ("optimizer", "scheduler", "ema"):
            if self.changed(key) and not anyway:
                raise UserError(
                    f"resume: {key} was {self.before[key]} in the interrupted run and is {self.now[key]} now; "
                    "give the same, or start a new run"
                )
        parts = [("optimizer", "opt"), ("scheduler", "sched")]
        for group, key in parts:
            old, new = ((side.get(group) or {}).get(key) for side in (self.before, self.now))
            if group in self.before and old != new:
                raise UserError(f"resume: the state of {group}.{key}={old} is no use to {new}: start a new run")
        if self.changed("ema") and None in (self.before["ema"], self.now["ema"]):
            raise UserError(f"resume: ema was {self.before['ema']} and cannot become {self.now['ema']} within a run")
        if self.total_steps is not None and (self.changed("optimizer") or self.changed("scheduler")):
            raise UserError("resume: a one-cycle schedule cannot be changed on its way: start a new run")

    def check(self, epochs: int, updates: int, anyway: bool) -> None:
        """Refuse epochs of another length, and a one-cycle run of another length.

        Raises:
            UserError: If they differ.
        """
        if self.updates != updates and not anyway:
            raise UserError(
                f"resume: an epoch had {self.updates:g} updates in the interrupted run and has {updates} "
                "now; keep data.batch_size, data.limit, trainer.devices, trainer.accumulate_grad_batches and "
                "trainer.limit_train_batches"
            )
        total = self.total_steps
        if total is not None and total != epochs * updates:
            length = "" if self.updates == updates else f" of {self.updates:g} updates (now {updates})"
            raise UserError(
                f"resume: the one-cycle schedule was laid out for {total / self.updates:g} epochs{length} and cannot "
                f"be stretched to trainer.max_epochs={epochs}; keep what it was, or start a new run"
            )

    def fit_to(self, optimizer: Optimizer, updates: int) -> None:
        """Put this command's values into the stored state: rates and decays of the groups, and where a schedule stands.

        Raises:
            UserError: If the parameters are grouped in another way, as with ``weight_decay=0``.
        """
        if self.changed("optimizer"):
            (state,) = self.checkpoint["optimizer_states"]
            if [len(g["params"]) for g in state["param_groups"]] != [len(g["params"]) for g in optimizer.param_groups]:
                raise UserError("resume: optimizer=... sorts the parameters into other groups now: start a new run")
            for stored, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
                stored.update({k: v for k, v in group.items() if k != "params"})
        for schedule in self.checkpoint.get("lr_schedulers") or []:
            if "updates" in schedule and "step" not in self.checkpoint:  # a part of an epoch goes on unchanged
                schedule["updates"] = self.epochs * updates


def check_network(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse the weights of another network in one line, where torch lists every parameter.

    Args:
        stored: Of the checkpoint.
        wanted: Of the network.

    Raises:
        UserError: If a name or shape differs.
    """
    names = [k for k in dict.fromkeys([*stored, *wanted]) if _shape(stored, k) != _shape(wanted, k)]
    if names:
        first = names[0]
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise UserError(
            f"resume: the network differs from that of the interrupted run: {first.removeprefix('model.')} was "
            f"{_shape(stored, first)} and is {_shape(wanted, first)} now{more}; give the same model=..., "
            "or start a new run"
        )


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(state[name].shape) if name in state else "not there"
