"""The runs of the laptop claim: small networks on digits, trained by the experiment files in a loop without a trainer.

The loop does what ``kd-autoaug train experiment=digits_ce`` and ``kd-autoaug distill experiment=digits_kd`` do, with
the same data, augmentation, loss, optimizer and schedule, and ends with the same weights (a test holds it to that). It
only leaves out what dozens of short runs do not need: checkpoints, logs and the evaluation after every epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn

import effkit.cli
from effkit.lightning.optim import create_optimizer, create_scheduler, plain_options
from kd_autoaug.commands.build import set_up
from kd_autoaug.commands.parts import Parts, build_everything
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.views import ViewKey
from kd_autoaug.paper.digits.runs import Trained
from kd_autoaug.paper.digits.ways import TEACHER_STRENGTH, WAYS

__all__ = ["accuracy", "compose", "fit_lean", "train_digits", "train_seed", "train_teacher"]


TEACHER_SEED = 1000  # added to the seed: the teacher has the student's split, but its own start and order


def compose(method: str, strength: float, seed: int, *overrides: str) -> Any:
    """The config of one run, as the command line composes it.

    Args:
        method: One of ``WAYS``.
        strength: ``policy.m``.
        seed: ``seed``.
        *overrides: As on the command line.

    Raises:
        UserError: If an override does not fit.
    """
    cfg = copy.deepcopy(_composed(method, overrides))
    cfg.seed, cfg.policy.m = seed, strength
    return cfg


@lru_cache(maxsize=32)
def _composed(method: str, overrides: tuple[str, ...]) -> Any:
    way = WAYS[method]
    words = [f"experiment={way.experiment}", "device=cpu", *way.overrides, *overrides]
    return effkit.cli.compose("kd-autoaug", "kd_autoaug.configs", way.command, words)


def fit_lean(cfg: Any, parts: Parts) -> float:
    """Train ``parts.student`` for ``trainer.max_epochs`` epochs.

    All views of an epoch are made in one go, which for small pictures is several times faster and gives the same bits.

    Returns:
        The share of the last epoch's training views that the teacher, where there is one, takes for another class.
    """
    module, loader, epochs = parts.module, parts.data.train_dataloader(), cfg.trainer.max_epochs
    optimizer = create_optimizer(parts.student, plain_options(cfg.optimizer))
    schedule = create_scheduler(optimizer, plain_options(cfg.scheduler), epochs=epochs, updates_per_epoch=len(loader))
    module.train()
    until = round(module.policy_until * epochs)
    wrong = seen = 0
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        images, labels, index, view = (torch.cat(column) for column in zip(*batches, strict=True))
        policy = epoch < until
        shown, key = module.views.student(images, index, view, policy=policy)
        sizes = [len(batch[0]) for batch in batches]
        columns = (t.split(sizes) for t in (images, labels, shown, key.index, key.view))
        for before, truth, seen_now, numbers, views in zip(*columns, strict=True):
            made = ViewKey(numbers, views, key.augment)
            terms, _, answers = module.step_on_views(before, truth, seen_now, made, policy=policy)
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            if isinstance(answers, torch.Tensor) and epoch == epochs - 1:
                wrong, seen = wrong + int((answers.argmax(1) != truth).sum()), seen + len(answers)
    return wrong / seen if seen else float("nan")


@torch.no_grad()
def accuracy(model: nn.Module, parts: Parts) -> float:
    """Percent of the clean test pictures that a student gets right."""
    model.eval()
    logits = model(parts.module.prepared(parts.data.pictures("test")))
    return 100 * float((logits.argmax(1) == parts.data.labels("test")).float().mean())


def train_teacher(seed: int, *overrides: str) -> tuple[Teacher, float]:
    """Train the teacher of a seed: the same network, cross-entropy under mild augmentation.

    Returns:
        The teacher and its test accuracy, percent.
    """
    cfg = compose("CE", TEACHER_STRENGTH, seed + TEACHER_SEED, f"data.split_seed={seed}", *overrides)
    set_up(cfg)
    parts = build_everything(cfg)
    fit_lean(cfg, parts)
    found = accuracy(parts.student, parts)
    return Teacher(parts.student, parts.data.mean, parts.data.std), found


def train_digits(method: str, strength: float, seed: int, teacher: Teacher | None, *overrides: str) -> Trained:
    """Do one run.

    Args:
        method: One of ``WAYS``.
        strength: Magnitude of the augmentation.
        seed: Of split, start, order and augmentation; runs of one seed differ in nothing else than their method.
        teacher: For the ways that distil.
        *overrides: As on the command line.
    """
    cfg = compose(method, strength, seed, *overrides)
    set_up(cfg)
    parts = build_everything(cfg, teacher if WAYS[method].command == "distill" else None)
    outside = fit_lean(cfg, parts)
    return Trained(method, strength, seed, accuracy(parts.student, parts), outside)


def train_seed(
    seed: int, cells: Sequence[tuple[str, float]], overrides: Sequence[str], told: Callable[[str, float], None]
) -> dict[str, Any]:
    """Do all runs of a seed.

    Args:
        seed: Of split, start, order and augmentation.
        cells: Method and strength of each run.
        overrides: As on the command line.
        told: Gets a line and the share of the seed's work that is done before each run.

    Returns:
        ``teacher``: its accuracy; ``runs``: method, strength, accuracy, share of views that the teacher takes for
        another class (``None`` without a teacher). Plain values, see ``Runs.of_seeds``.
    """
    threads = torch.get_num_threads()
    # One thread: for networks this small a second one costs more than it brings, and sums keep their order.
    words = ("threads=1", *overrides)
    runs: list[list[Any]] = []
    try:
        teacher, found = train_teacher(seed, *words)
        for n, (method, strength) in enumerate(cells):
            told(f"{method} at M={strength}", (n + 1) / (len(cells) + 1))
            run = train_digits(method, strength, seed, teacher, *words)
            runs.append([method, strength, run.accuracy, None if math.isnan(run.outside) else run.outside])
    finally:
        torch.set_num_threads(threads)
    return {"teacher": found, "runs": runs}
