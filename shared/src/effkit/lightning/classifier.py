"""Image classification as a Lightning module: loss, mixing, metrics, optimizer. The network comes from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.data.preprocessing import Preprocessing
from effkit.data.sampling import IGNORE
from effkit.errors import UserError, choose
from effkit.lightning.arguments import check_numbers, is_number
from effkit.lightning.metrics import MeanLoss, PercentCorrect
from effkit.lightning.optim import plain_options
from effkit.lightning.trained import TrainedModule

__all__ = ["Classifier"]

MIXUP_KEYS = ("mixup_alpha", "cutmix_alpha", "cutmix_minmax", "prob", "switch_prob", "mode", "correct_lam")

_AT_LEAST_0 = (lambda x: x >= 0, "of at least 0")
_SHARE = (lambda x: 0 <= x <= 1, "in [0, 1]")
_MIXUP = {"mixup_alpha": _AT_LEAST_0, "cutmix_alpha": _AT_LEAST_0, "prob": _SHARE, "switch_prob": _SHARE}


def _build_mixup(options: Mapping[str, Any] | None, num_classes: int, label_smoothing: float) -> Any:
    """Return timm's Mixup, or ``None`` if nothing is to be mixed."""
    options = dict(options or {})
    for key in options:
        choose("mixup argument", key, MIXUP_KEYS)
    options = {"mixup_alpha": 0.0, **{k: v for k, v in options.items() if v is not None}}
    check_numbers("mixup", options, _MIXUP)
    if not (options["mixup_alpha"] > 0 or options.get("cutmix_alpha", 0) > 0 or options.get("cutmix_minmax")):
        return None
    from timm.data import Mixup

    choose("mixup.mode", options.get("mode", "batch"), ["batch", "pair", "elem"])
    return Mixup(**options, label_smoothing=label_smoothing, num_classes=num_classes)


class Classifier(TrainedModule):
    """Trains a network on ``(images, labels)`` batches; labels are class indices, or ``(B, num_classes)`` soft targets.

    Images arrive as bytes and are normalised on the device, before anything is mixed; float images are taken to be
    normalised already.

    Metrics, per epoch: ``train_loss``, ``train_top1`` (not while mixing: mixed pictures have no one label),
    ``val_loss``, ``val_top1``, ``val_top5`` (with more than five classes). Accuracies are percentages, losses are mean
    cross-entropies; the validation loss is without label smoothing. With ``ema`` validation, checkpoints'
    ``state_dict`` and the final weights are those of the moving average.

    Args:
        model: Network from ``(B, C, H, W)`` to logits ``(B, num_classes)``.
        num_classes: Number of classes.
        optimizer: Arguments of ``timm.optim.create_optimizer_v2``, e.g. ``{"opt": "adamw", "lr": 1e-3}``; evaluation
            needs none.
        scheduler: ``sched`` and its arguments, see ``effkit.lightning.optim.create_scheduler``; ``None`` for a constant
            learning rate.
        mixup: Arguments of ``timm.data.Mixup``; ``None`` or zero alphas mix nothing.
        ema: Decay of the moving average of the weights per update, e.g. 0.9999; ``None`` keeps none.
        label_smoothing: Weight of the uniform distribution in the target.
        preprocessing: What turns bytes into what the network sees; ``None`` leaves them as they come.

    Attributes:
        unsaved: Arguments of a subclass that are no plain values, and no part of checkpoints.

    Raises:
        UserError: If a value is out of range or a key is not known.
    """

    unsaved: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        mixup: Mapping[str, Any] | None = None,
        ema: float | None = None,
        label_smoothing: float = 0.0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if not is_number(label_smoothing, lambda x: 0 <= x < 1):
            raise UserError(f"label_smoothing={label_smoothing!r} must be in [0, 1)")
        # Plain containers only, so that torch.load(weights_only=True) reads the checkpoint.
        optimizer, scheduler, mixup = plain_options(optimizer), plain_options(scheduler), plain_options(mixup)
        super().__init__(model, optimizer=optimizer, ema=ema)
        self.save_hyperparameters(ignore=["model", "preprocessing", *self.unsaved], logger=False)
        self.preprocessing = preprocessing
        self.mixup = _build_mixup(mixup, num_classes, label_smoothing)
        self.train_loss, self.val_loss = MeanLoss(), MeanLoss()
        self.train_top1 = PercentCorrect(num_classes)
        self.val_top1 = PercentCorrect(num_classes)
        self.val_top5 = PercentCorrect(num_classes, top_k=5) if num_classes > 5 else None

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of normalised images, or of bytes."""
        return self.model(self.prepared(images))

    def prepared(self, images: Tensor) -> Tensor:
        """Normalise bytes; anything else is what the network sees already."""
        if self.preprocessing is None or images.dtype != torch.uint8:
            return images
        return self.preprocessing.normalize(
            images, self.dtype if isinstance(self.dtype, torch.dtype) else torch.float32
        )

    def _arrived(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Normalise a batch on the device it was brought to; then erase what its loader has drawn.

        (Not in Lightning's ``on_after_batch_transfer``, about which it warns where there is a data module.)
        """
        images, labels, *erased = batch
        images = self.prepared(images)
        for part in erased:
            images = part.apply(images)
        return images, labels

    def _logits(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        if logits.ndim != 2 or logits.shape[1] != self.hparams["num_classes"]:
            raise UserError(
                f"the model gives logits of shape {tuple(logits.shape)}, but the data has "
                f"{self.hparams['num_classes']} classes: build the model with that num_classes"
            )
        return logits.float()  # the loss in full precision, whatever the network ran in

    # --- training -------------------------------------------------------------------------------------------------

    def _mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch; of an odd one the last picture stays as it is, since timm mixes pairs."""
        even = len(images) - len(images) % 2
        mixed, targets = self.mixup(images[:even], labels[:even])
        if even == len(images):
            return mixed, targets
        from timm.data.mixup import mixup_target

        left = mixup_target(labels[even:], self.mixup.num_classes, 1.0, self.mixup.label_smoothing)
        return torch.cat([mixed, images[even:]]), torch.cat([targets, left])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images, labels = self._arrived(batch)
        smoothing = self.hparams["label_smoothing"]
        if self.mixup is not None:
            images, targets = self._mix(images, labels)
            smoothing = 0.0  # already in the targets
        else:
            targets = labels
        logits = self._logits(images)
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        self.train_loss.update(loss.detach() * len(images), len(images))
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True, logger=False)
        if self.mixup is None:
            self.train_top1.update(logits.detach(), labels.argmax(1) if labels.ndim == 2 else labels)
            self.log("train_top1", self.train_top1, on_step=False, on_epoch=True, logger=False)
        self.log("loss", loss.detach(), on_step=True, on_epoch=False, logger=False, prog_bar=True)
        return loss

    # --- evaluation -----------------------------------------------------------------------------------------------

    def _evaluate(self, batch: tuple[Tensor, Tensor], prefix: str) -> None:
        images, labels = self._arrived(batch)
        logits = self._logits(images)
        hard = labels.argmax(1) if labels.ndim == 2 else labels
        loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE)
        metrics: dict[str, Any] = {"loss": self.val_loss, "top1": self.val_top1}
        if self.val_top5 is not None:
            metrics["top5"] = self.val_top5
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(loss, (hard != IGNORE).sum())
            else:
                metric.update(logits, hard)
            self.log(f"{prefix}_{name}", metric, on_step=False, on_epoch=True, logger=False, prog_bar=name == "top1")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the test metrics."""
        self._evaluate(batch, "test")
