"""Arguments of optimizers and schedules, tried before anything is trained.

timm and torch look at few of them: most wrong ones raise deep inside the first update, and some (a momentum of 2, a
learning rate below 0) train to nonsense without a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from effkit.errors import UserError

__all__ = ["MISTAKES", "check_number", "check_numbers", "is_number", "try_optimizer", "try_schedule"]

MISTAKES = (TypeError, ValueError, ArithmeticError, LookupError, AssertionError, AttributeError)
"""What wrong arguments raise in libraries; a device that cannot do a thing raises `RuntimeError`."""

_Range = tuple[Callable[[float], bool], str]
_POSITIVE: _Range = (lambda x: x > 0, "above 0")
_AT_LEAST_0: _Range = (lambda x: x >= 0, "of at least 0")
_SHARE: _Range = (lambda x: 0 <= x < 1, "in [0, 1)")
_DECAY: _Range = (lambda x: 0 < x <= 1, "in (0, 1]")
_ANY: _Range = (lambda x: True, "")

OPTIMIZER: Mapping[str, _Range] = {
    **{"lr": _POSITIVE, "weight_decay": _AT_LEAST_0, "eps": _AT_LEAST_0, "layer_decay": _DECAY},
    **{"momentum": _SHARE, "dampening": _ANY},
}
ONE_CYCLE: Mapping[str, _Range] = {
    **{"div_factor": _POSITIVE, "final_div_factor": _POSITIVE, "base_momentum": _SHARE, "max_momentum": _SHARE},
}
TIMM: Mapping[str, _Range] = {
    **{"min_lr": _AT_LEAST_0, "warmup_lr": _AT_LEAST_0, "warmup_epochs": _AT_LEAST_0, "cooldown_epochs": _AT_LEAST_0},
    **{"decay_epochs": _POSITIVE, "patience_epochs": _AT_LEAST_0, "decay_rate": _POSITIVE, "cycle_limit": _POSITIVE},
    **{"cycle_decay": _POSITIVE, "cycle_mul": _POSITIVE, "noise_pct": _AT_LEAST_0, "noise_std": _AT_LEAST_0},
    "k_decay": _POSITIVE,
}


def is_number(value: Any, fits: Callable[[float], bool]) -> bool:
    """Whether something is a finite number that fits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and fits(value)


def check_number(key: str, value: Any, fits: Callable[[float], bool], words: str) -> None:
    """Refuse what is no finite number in a range.

    Args:
        key: Full key, for messages.
        value: What was given.
        fits: The range.
        words: It, in words: ``"in [0, 1)"``.

    Raises:
        UserError: If it does not fit.
    """
    if not is_number(value, fits):
        raise UserError(f"{key}={value!r} must be a number {words}".rstrip())


def check_numbers(group: str, options: Mapping[str, Any], ranges: Mapping[str, _Range]) -> None:
    """Refuse numbers out of range; `None` leaves the choice to the library.

    Raises:
        UserError: Names the key, the value and the range.
    """
    for key, (fits, words) in ranges.items():
        value = options.get(key)
        if value is None:
            continue
        check_number(f"{group}.{key}", value, fits, words)


def try_optimizer(make: Callable[..., Optimizer], options: Mapping[str, Any]) -> None:
    """Make the optimizer of a network of one layer and let it do one update.

    Args:
        make: ``timm.optim.create_optimizer_v2``.
        options: Its arguments.

    Raises:
        UserError: If an argument is not the optimizer's, out of range or of another shape.
    """
    name = str(options.get("opt", "")).lower()
    check_numbers("optimizer", options, OPTIMIZER)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.inference_mode(False):
        layer = nn.utils.skip_init(nn.Linear, 2, 2)  # draws nothing: a run is the same with and without the trial
        for parameter in layer.parameters():
            nn.init.zeros_(parameter).grad = torch.zeros_like(parameter)
        try:
            plain = make(layer, **{k: v for k, v in options.items() if k != "betas"})
            if options.get("betas") is not None:
                _check_betas(options["betas"], plain.defaults.get("betas"))
            make(layer, **options).step()
        except UserError:
            raise
        except MISTAKES as error:
            raise UserError(f"optimizer.opt={name}: {error or type(error).__name__}") from error
        except RuntimeError:  # of a device or a build: the real one says so, on the device of the run
            return


def _check_betas(betas: Any, default: Any) -> None:
    words = f"optimizer.betas={betas!r} must be {len(default) if isinstance(default, tuple) else 2} numbers in [0, 1)"
    if not isinstance(betas, list | tuple) or (isinstance(default, tuple) and len(betas) != len(default)):
        raise UserError(words)
    if not all(is_number(beta, _SHARE[0]) for beta in betas):
        raise UserError(words)


def try_schedule(name: str, optimizer: Optimizer, step: Callable[[int], Any], updates: int) -> None:
    """Go through a schedule at a few updates and look at the learning rates; put them back.

    Args:
        name: Of the schedule.
        optimizer: Whose learning rates it sets.
        step: Sets those of an update.
        updates: Of the whole run.

    Raises:
        UserError: If it raises, or gives a learning rate that is no number of at least 0.
    """
    before = [dict(group) for group in optimizer.param_groups]
    try:
        for update in sorted({0, 1, updates // 2, max(updates - 1, 0)}):
            step(update)
            for group in optimizer.param_groups:
                check_number(f"scheduler.sched={name}: the learning rate of update {update}", group["lr"], *_AT_LEAST_0)
    except UserError:
        raise
    except MISTAKES as error:
        raise UserError(f"scheduler.sched={name}: {error or type(error).__name__}") from error
    finally:
        for group, values in zip(optimizer.param_groups, before, strict=True):
            group.update(values)
