"""``kd-autoaug bench step``: cross-entropy, distillation from the cache, distillation beside the teacher."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effkit.arguments import renamed
from effkit.bench import Bench, check_providers
from effkit.device import autocast
from effkit.errors import UserError
from effkit.report import Report
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.commands.bench.shared import photographs
from kd_autoaug.distillation.loss import TopKDistillationLoss, TopLogits
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.views import ViewKey
from kd_autoaug.networks import create_network

__all__ = ["PROVIDERS", "step_report"]

PROVIDERS = {
    "ce": "cross-entropy",
    "cached": "distillation, the teacher's answers read from the cache",
    "online": "distillation, the teacher asked in every step",
}
VIEWS = 4
_MEAN, _STD = 127.5, 64.0


class _Trainer:
    """One student with its optimizer, trained on the same pictures in ever new views."""

    def __init__(
        self, network: nn.Module, augment: BatchAugment, images: Tensor, labels: Tensor, dtype: torch.dtype
    ) -> None:
        self.network, self.augment, self.images, self.labels, self.dtype = network, augment, images, labels, dtype
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        self.index = torch.arange(len(images), device=images.device)
        self.steps = 0

    def step(self, loss: TopKDistillationLoss, ask: Callable[[Tensor, ViewKey], Tensor | TopLogits] | None) -> None:
        """Augment, ask for the teacher's answer, forward, backward, update."""
        view = torch.full_like(self.index, self.steps % VIEWS)
        self.steps += 1
        pictures = self.augment(self.images, self.index, view)
        answer = None if ask is None else ask(pictures, ViewKey(self.index, view, self.augment.fingerprint()))
        with autocast(self.images.device, self.dtype):
            logits = self.network(pictures.float().sub_(_MEAN).div_(_STD))
        self.optimizer.zero_grad(set_to_none=True)
        loss(logits, answer, self.labels)["loss"].backward()
        self.optimizer.step()


def step_report(
    bench: Bench,
    *,
    network: str,
    classes: int,
    k: int,
    size: int,
    batch_size: int,
    providers: Sequence[str] | None,
    seed: int,
    csv: str | Path | None,
    folder: Path,
) -> Report:
    """Time a step of each kind on the same pictures; student and teacher are the same network, with random weights.

    Args:
        bench: Where, and the precision of the student's forward pass.
        network: Any name :func:`kd_autoaug.networks.create_network` takes.
        classes: Number of classes.
        k: Classes kept in the cache; -1 keeps all.
        size: Side of the pictures.
        batch_size: Pictures per step.
        providers: Keys of :data:`PROVIDERS`; all if ``None``. The ratio is taken against ``ce`` if it is among them.
        seed: Of weights, labels and draws.
        csv: File to append the rows to.
        folder: Gets a picture; the cache lives in a temporary folder inside it.

    Raises:
        UserError: If a value is not allowed.
    """
    names = check_providers(providers or PROVIDERS, PROVIDERS)
    if classes < 2 or not (k == -1 or 1 <= k <= classes):
        raise UserError(f"classes={classes} and k={k}: there must be two classes at least, and k in 1..classes or -1")
    where, kept = bench.device, classes if k == -1 else k
    torch.manual_seed(seed)
    images = photographs(batch_size, size).to(where)
    labels = torch.randint(0, classes, (batch_size,)).to(where)
    augment = BatchAugment(Policy.random(n=2, m=9, space="timm", prob=1.0, interpolation=["nearest"]), seed)
    with renamed({"model.name": "network", "num_classes": "classes", "image_size": "size"}):
        answers = create_network(network, classes, 3, image_size=size)
    teacher = Teacher(answers.to(where), _MEAN / 255, _STD / 255)
    place = Path(tempfile.mkdtemp(prefix="cache_", dir=folder))
    try:
        cache = _filled(place / "logits", images, augment, teacher, classes, kept)
        # As the Lightning module does it: the record read on the CPU, and moved without waiting.
        asks: dict[str, Any] = {
            "ce": None,
            "cached": lambda pictures, key: cache.read(key.index.cpu(), key.view.cpu()).to(where),
            "online": lambda pictures, key: teacher(pictures, key),
        }
        calls: dict[str, Callable[[], None]] = {}
        for name in names:
            torch.manual_seed(seed)
            student = create_network(network, classes, 3, image_size=size).to(where)
            loss = TopKDistillationLoss(k=k, weight=0.0 if name == "ce" else 0.5)
            calls[name] = _step(_Trainer(student, augment, images, labels, bench.dtype), loss, asks[name])
        baseline = "ce" if "ce" in names else names[-1]
        measured = bench.run(
            calls,
            case="step",
            mode=f"step {network} {size}x{size} K={kept}",
            x=batch_size,
            title=f"A step of {network}, {batch_size} pictures of {size}x{size}, K={kept}",
            baseline=baseline,
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)
    measured.table.note += " " + "; ".join(f"{name}: {PROVIDERS[name]}" for name in names) + "."
    times = {n: measured.result.ratio(n, baseline).median for n in names}
    data = {"seconds": measured.seconds, f"times_of_{baseline}": times}
    return bench.report("kd-autoaug bench step", data, csv=csv, folder=folder)


def _filled(path: Path, images: Tensor, augment: BatchAugment, teacher: Teacher, classes: int, kept: int) -> LogitCache:
    """A cache of the teacher's answers about all views."""
    index = torch.arange(len(images), device=images.device)
    cache = LogitCache.create(
        path, num_samples=len(index), num_views=VIEWS, num_classes=classes, k=kept,
        fingerprints={"augment": augment.fingerprint()},
    )  # fmt: skip
    for view in range(VIEWS):
        cache.write(index.cpu(), view, teacher(augment(images, index, view)).cpu())
    return cache


def _step(trainer: _Trainer, loss: TopKDistillationLoss, ask: Any) -> Callable[[], None]:
    return lambda: trainer.step(loss, ask)
