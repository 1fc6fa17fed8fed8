"""The adapted probe: the same network, trained under the augmentation it is then asked about.

A frozen teacher that fails on a view may only have never met such pictures. A network that was trained on them and
still cannot tell the label is evidence that the label is gone. Both are lower bounds on what the view tells; the
probe's is the tighter one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.data.preprocessing import Normalize
from effkit.errors import UserError
from kd_autoaug.analysis.study import Predictor
from kd_autoaug.augmentation.augment import BatchAugment

__all__ = ["ProbeTrainer"]


@dataclass
class ProbeTrainer:
    """Trains one small network per call: SGD with Nesterov momentum, cosine learning rate, cross-entropy.

    The defaults are those of the digits experiment. Nothing global is seeded or drawn from.

    Args:
        network: Makes a new network; called under this trainer's seed.
        images: Training pictures, uint8 ``(n, C, H, W)``; none of those that the probe is asked about later.
        labels: int64 ``(n,)``.
        mean: Per channel, of pixels in 0..1.
        std: Likewise.
        epochs: Passes over the pictures; view number = epoch.
        batch_size: Pictures per step.
        lr: Peak learning rate.
        momentum: Of SGD.
        weight_decay: Of SGD.
        seed: Of the initial weights and of the order.
        device: Where to train.

    Raises:
        UserError: If pictures and labels do not fit or a number is out of range.
    """

    network: Callable[[], nn.Module]
    images: Tensor
    labels: Tensor
    mean: Sequence[float]
    std: Sequence[float]
    epochs: int = 40
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or self.labels.shape != (len(self.images),):
            raise UserError(
                f"images must be uint8 (n, C, H, W) with one label each, got {self.images.dtype} "
                f"{tuple(self.images.shape)} and labels {tuple(self.labels.shape)}"
            )
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if value < 1:
                raise UserError(f"{name}={value!r} must be at least 1")
        if self.lr <= 0:
            raise UserError(f"lr={self.lr!r} must be above 0")

    def train(self, augment: BatchAugment | None) -> nn.Module:
        """A network trained on augmented pictures, in evaluation mode."""
        device = torch.device(self.device)
        images, labels = self.images.to(device), self.labels.to(device)
        normalise = Normalize(self.mean, self.std).to(device)
        order = torch.Generator().manual_seed(self.seed)
        # Initial weights and dropout draw from torch's global generators, which are put back afterwards.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            model = self.network().to(device).train()
            optimizer = torch.optim.SGD(
                model.parameters(),
                lr=self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.momentum > 0,
            )
            steps = self.epochs * -(-len(images) // self.batch_size)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for epoch in range(self.epochs):
                for index in torch.randperm(len(images), generator=order).to(device).split(self.batch_size):
                    if len(index) == 1 and len(images) > 1:
                        continue  # batch normalisation learns nothing from a single small picture, and may refuse it
                    views = images[index] if augment is None else augment(images[index], index, epoch)
                    loss = F.cross_entropy(model(normalise(views)), labels[index])
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    schedule.step()
        return model.eval()

    def __call__(self, augment: BatchAugment | None) -> Predictor:
        """Train under an augmentation; ``None`` trains on the pictures as they are."""
        model = self.train(augment)
        device = torch.device(self.device)
        normalise = Normalize(self.mean, self.std).to(device)

        @torch.no_grad()
        def predict(images: Tensor) -> Tensor:
            return model(normalise(images.to(device)))

        return predict
