"""What is analysed: pictures of a data set, a teacher, and what an adapted probe is made of.

For the embedded digits a teacher is trained on the spot when none is given; a file of weights is needed elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from effkit.errors import UserError, choose
from kd_autoaug.analysis.probe import ProbeTrainer
from kd_autoaug.analysis.study import Predictor
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.networks import create_network

__all__ = ["Data", "Subject", "own_teacher"]

EMBEDDED = ("digits", "digits_small")
OWN_STRENGTH = 0.3  # of the augmentation under which our own teacher is trained, in units of the usual range


class Data(Protocol):
    """Pictures of a data set as bytes; ``kd_autoaug.training.data.ViewData`` is one."""

    name: Any  # a string; the data set's class allows None, as Lightning's does

    @property
    def class_names(self) -> list[str]:
        """One name per class."""

    @property
    def num_classes(self) -> int:
        """Their number."""

    @property
    def in_chans(self) -> int:
        """Channels of the pictures."""

    @property
    def image_size(self) -> int:
        """Their side in pixels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the normalisation, per channel."""

    @property
    def std(self) -> tuple[float, ...]:
        """Likewise."""

    @property
    def num_train(self) -> int:
        """Pictures of the training split."""

    def labels(self, split: str) -> Tensor:
        """Class indices of a split, int64 ``(N,)``."""

    def pictures(self, split: str, indices: Any = None) -> Tensor:
        """Some pictures of a split, uint8 ``(n, C, H, W)``."""


@dataclass
class Subject:
    """Pictures, teacher and probe material.

    Attributes:
        name: Of the data set and split.
        images: Pictures to ask about, uint8 ``(n, C, H, W)``.
        labels: ``(n,)``.
        index: Their numbers in the split, ``(n,)``.
        class_names: By label.
        teacher: The frozen classifier.
        teacher_name: What to call it.
        train_images: Pictures that probes are trained on, none of ``images``.
        train_labels: Theirs.
        network: Makes a probe's network.
        mean: Of the data's normalisation, pixels being 0..1.
        std: Likewise.
        device: Where probes are trained.
        notes: What a reader has to know.
    """

    name: str
    images: Tensor
    labels: Tensor
    index: Tensor
    class_names: Sequence[str]
    teacher: Predictor
    teacher_name: str
    train_images: Tensor
    train_labels: Tensor
    network: Callable[[], nn.Module]
    mean: Sequence[float]
    std: Sequence[float]
    device: str | torch.device = "cpu"
    notes: list[str] = field(default_factory=list)

    def probe(self, epochs: int, seed: int) -> ProbeTrainer:
        """What trains the probes, with the recipe of the digits experiment."""
        return ProbeTrainer(
            self.network,
            self.train_images,
            self.train_labels,
            self.mean,
            self.std,
            epochs=epochs,
            seed=seed,
            device=self.device,
        )

    @classmethod
    def of(
        cls,
        data: Data,
        teacher: Teacher | None,
        *,
        network: Mapping[str, Any] | None = None,
        split: str = "test",
        limit: int | None = 2000,
        train_limit: int | None = 5000,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> Subject:
        """Take pictures of a data set.

        Args:
            data: The data set.
            teacher: The frozen classifier; ``None`` trains one on embedded digits.
            network: The ``teacher`` (or ``model``) group that probes are built from: ``name`` and its options.
            split: ``"val"`` or ``"test"``.
            limit: At most this many pictures, evenly spread over the split.
            train_limit: At most this many training pictures for a probe.
            seed: Of our own teacher.
            device: Where it runs.

        Raises:
            UserError: If there is no teacher for data that is not embedded, or an argument is out of range.
        """
        choose("split", split, ["val", "test"])
        labels = data.labels(split)
        index = _spread("limit", len(labels), limit)
        chosen = _spread("train_limit", data.num_train, train_limit)
        train_images, train_labels = data.pictures("train", chosen), data.labels("train")[chosen]
        spec = dict(network or {"name": "digits_cnn"})
        if not isinstance(spec.get("options") or {}, Mapping):
            raise UserError(f"teacher.options={spec['options']!r} must be a mapping of keys and values")

        def build() -> nn.Module:
            options = dict(spec.get("options") or {})
            return create_network(spec["name"], data.num_classes, data.in_chans, data.image_size, **options)

        notes = []
        name = str(spec["name"])
        if teacher is None:
            if data.name not in EMBEDDED:
                raise UserError(
                    f"teacher.weights is not set: give a file for data={data.name}; only {' and '.join(EMBEDDED)} come "
                    "with a teacher of their own, trained on the spot"
                )
            teacher = own_teacher(build, train_images, train_labels, data.mean, data.std, seed=seed, device=device)
            notes.append(
                f"No teacher.weights given: a {name} was trained here on {len(train_images)} pictures under mild "
                f"augmentation (linear, two operators, strength up to {OWN_STRENGTH}): experiment=digits_teacher."
            )
            name += ", trained here"
        else:
            teacher = teacher.to(device)
        return cls(
            f"{data.name}, {split}",
            data.pictures(split, index).to(device),
            labels[index],
            index.to(device),
            data.class_names,
            teacher,
            name,
            train_images,
            train_labels,
            build,
            data.mean,
            data.std,
            device,
            notes,
        )


def own_teacher(
    network: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    seed: int = 0,
    epochs: int = 40,
    device: str | torch.device = "cpu",
) -> Teacher:
    """Train a small teacher under the mild augmentation of the digits experiment: strengths drawn up to 0.3.

    Args:
        network: Makes it.
        images: Training pictures, uint8.
        labels: Theirs.
        mean: Of its normalisation.
        std: Likewise.
        seed: Of weights, order and augmentation.
        epochs: Passes over the pictures.
        device: Where.
    """
    trainer = ProbeTrainer(network, images, labels, mean, std, epochs=epochs, seed=seed, device=device)
    mild = BatchAugment(Policy.random(n=2, m=OWN_STRENGTH, space="linear", mstd=float("inf")), seed)
    return Teacher(trainer.train(mild), mean, std)


def _spread(name: str, total: int, limit: int | None) -> Tensor:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UserError(f"{name}={limit!r} must be a whole number of at least 1, or null for all")
    count = total if limit is None else min(limit, total)
    return torch.arange(count) * total // max(1, count)
