"""One cell of the grid: show a teacher (and a probe) augmented views, and reduce its answers to figures.

Pictures and views go through a network in batches of the same pictures, which makes the identity's effect exactly 0 and
not only nearly: a network's bits may depend on how many pictures stand in a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kd_autoaug.analysis import statistics as stats
from kd_autoaug.analysis.bootstrap import bootstrap
from kd_autoaug.analysis.calibration import cross_fitted_temperature, reliability
from kd_autoaug.analysis.cell import Cell, Worst
from kd_autoaug.analysis.flags import KEEP
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy

__all__ = ["Predictor", "ProbeFactory", "Study", "answers"]

Predictor = Callable[[Tensor], Tensor]
"""Pictures uint8 ``(B, C, H, W)`` to logits ``(B, classes)``; a ``Teacher`` is one."""
ProbeFactory = Callable[[BatchAugment | None], Predictor]
"""Trains a network under an augmentation; ``kd_autoaug.analysis.probe.ProbeTrainer`` is one."""

_PROBE_SEED = 1_000_003  # a probe never meets the draws that it is examined on


def answers(
    predict: Predictor,
    augment: BatchAugment | None,
    images: Tensor,
    index: Tensor,
    draws: int,
    batch_size: int,
) -> tuple[Tensor, float]:
    """Ask a classifier about augmented views.

    Args:
        predict: The classifier.
        augment: Makes the views; ``None`` shows the pictures as they are.
        images: uint8 ``(n, C, H, W)``.
        index: Keys of the pictures, ``(n,)``.
        draws: Views of each picture, numbered from 0.
        batch_size: Pictures asked about at once.

    Returns:
        Logits ``(n, draws, classes)`` on the CPU, and the share of views that are blank though their picture is not.
    """
    found: list[Tensor] = []
    blank = 0
    for begin in range(0, len(images), batch_size):
        pictures, keys = images[begin : begin + batch_size], index[begin : begin + batch_size]
        drawn = []
        for draw in range(draws):
            views = pictures if augment is None else augment(pictures, keys, draw)
            blank += int((_flat(views) & ~_flat(pictures)).sum())
            drawn.append(predict(views).detach().float().cpu())
        found.append(torch.stack(drawn, 1))
    return torch.cat(found), blank / (len(images) * draws)


def _flat(images: Tensor) -> Tensor:
    """Which pictures are one colour, ``(B,)``."""
    return (images.amax((2, 3)) == images.amin((2, 3))).all(1)


class Study:
    """The pictures, the teacher's clean answers, and what each cell contributes picture by picture.

    Args:
        teacher: The frozen classifier.
        probe: Trains the adapted one, cell by cell; ``None`` trains none.
        confirm: Trains it again, longer, in cells where the first one found little.
        images: uint8 ``(n, C, H, W)``.
        labels: ``(n,)``.
        index: Keys of the pictures, ``(n,)``.
        draws: Views of each picture in each cell.
        batch_size: Pictures asked about at once.
        seed: Of the views, the folds and the resampling.
        worst: Pictures per cell to keep for the gallery.
    """

    def __init__(
        self,
        teacher: Predictor,
        probe: ProbeFactory | None,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        *,
        confirm: ProbeFactory | None,
        draws: int,
        batch_size: int,
        seed: int,
        worst: int,
    ) -> None:
        self.teacher, self.probe, self.confirm = teacher, probe, confirm
        self._whole = 0.0  # what the probe learns without augmentation, in bits
        self.images, self.labels, self.index = images, labels.cpu().long(), index
        self.draws, self.batch_size, self.seed, self.keep = draws, batch_size, seed, worst
        self.clean = answers(teacher, None, images, index, 1, batch_size)[0][:, 0]
        self._columns: list[tuple[Cell, str, Tensor, Tensor | None]] = []

    def measure(self, name: str, magnitude: float | None, policy: Policy | None) -> Cell:
        """All figures of a cell except intervals, which come for all cells at once.

        Args:
            name: Of the cell.
            magnitude: Of the cell, ``None`` where there is none.
            policy: What makes the views; ``None`` takes the pictures as they are.
        """
        augment = None if policy is None else BatchAugment(policy, self.seed)
        draws = 1 if policy is None else self.draws
        views, blank = answers(self.teacher, augment, self.images, self.index, draws, self.batch_size)
        stats.check_logits(self.clean, views, self.labels)
        temperature = cross_fitted_temperature(views, self.labels, self.seed)
        figures: dict[str, Tensor | tuple[Tensor, Tensor]] = {
            "confidence_drop": stats.confidence_drop(self.clean, views, self.labels),
            "outlier_rate": stats.outliers(self.clean, views, self.labels),
            "view_kl": stats.view_kl(self.clean, views),
            "teacher_entropy": stats.entropy(views),
            "teacher_accuracy": stats.accuracy(views, self.labels),
            "information_teacher": stats.label_information(views, self.labels, temperature),
        }
        if self.probe is not None:
            learned, figures["probe_accuracy"] = self._ask(self.probe, policy, augment, draws)
            figures["information_probe"] = learned
            if policy is None:
                self._whole = float(learned.mean())
            elif self.confirm is not None and float(learned.mean()) < KEEP * self._whole:
                figures["information_longer"], _ = self._ask(self.confirm, policy, augment, draws)
        cell = Cell(
            name,
            magnitude,
            mass=stats.top_mass(views).mean(0).tolist(),
            stddev=stats.teacher_stddev(views, seed=self.seed),
            blank=blank,
            temperature=float(temperature.mean()),
            reliability=reliability(views, self.labels),
            worst=[] if augment is None else self._worst(views, augment),
        )
        for key, figure in figures.items():
            over, under = figure if isinstance(figure, tuple) else (figure, None)
            self._columns.append((cell, key, over, under))
            cell.per_class[key] = self._by_class(over, under, views.shape[-1])
        return cell

    def _ask(
        self, probe: ProbeFactory, policy: Policy | None, augment: BatchAugment | None, draws: int
    ) -> tuple[Tensor, Tensor]:
        """Train a probe under a policy; label information and accuracy picture by picture on the study's views."""
        adapted = probe(None if policy is None else BatchAugment(policy, self.seed + _PROBE_SEED))
        seen, _ = answers(adapted, augment, self.images, self.index, draws, self.batch_size)
        warmth = cross_fitted_temperature(seen, self.labels, self.seed)
        return stats.label_information(seen, self.labels, warmth), stats.accuracy(seen, self.labels)

    def intervals(self, resamples: int, level: float) -> None:
        """Give every measured cell its estimates; all are resampled together, so that all see the same pictures."""
        over = torch.stack([column for _, _, column, _ in self._columns], 1)
        under = torch.stack([torch.ones_like(c) if w is None else w for _, _, c, w in self._columns], 1)
        found = bootstrap(over, under, resamples=resamples, level=level, seed=self.seed)
        for (cell, key, _, _), estimate in zip(self._columns, found, strict=True):
            cell.estimates[key] = estimate

    def _by_class(self, over: Tensor, under: Tensor | None, classes: int) -> list[float]:
        weights = torch.ones_like(over) if under is None else under
        zeros = torch.zeros(classes, dtype=torch.float64)
        return (zeros.index_add(0, self.labels, over) / zeros.index_add(0, self.labels, weights)).tolist()

    def _worst(self, views: Tensor, augment: BatchAugment) -> list[Worst]:
        """The views of well-known pictures on which the label got least, one view a picture."""
        logs = stats.log_probs(views)
        chosen = self.labels.view(-1, 1, 1).expand(-1, views.shape[1], 1)
        of_label, draw = logs.gather(-1, chosen).squeeze(-1).min(1)
        known = self.clean.argmax(-1) == self.labels
        order = torch.argsort(torch.where(known, of_label, torch.inf), stable=True)[: min(self.keep, int(known.sum()))]
        found = []
        for i in order.tolist():
            number = int(draw[i])
            top = logs[i, number].exp().sort(descending=True, stable=True)
            first = list(zip(top.indices[:5].tolist(), top.values[:5].tolist(), strict=True))
            seen = augment(self.images[i : i + 1], self.index[i : i + 1], number)[0]
            label = int(self.labels[i])
            found.append(Worst(self.images[i].cpu(), seen.cpu(), int(self.index[i]), number, label, first))
        return found
