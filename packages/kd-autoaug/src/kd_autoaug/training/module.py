"""Distillation on augmented views as a Lightning module: the core's classifier with a teacher beside it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError
from effkit.lightning import Classifier
from effkit.lightning.metrics import MeanLoss
from effkit.lightning.optim import plain_options
from kd_autoaug.distillation.loss import LossTerms, TopKDistillationLoss, TopLogits
from kd_autoaug.distillation.views import ViewKey
from kd_autoaug.training.views import BatchViews

__all__ = ["DistillationModule", "check_combination"]

_OBJECTS = ("loss", "preprocessing", "views", "teacher", "cache", "cache_mode", "policy_until")


class DistillationModule(Classifier):
    """Trains a student on ``(images, labels, index, view)`` batches of bytes, with or without a teacher.

    A step: augment the batch on its device, mix (if asked for), normalise for the student; ask the teacher about the
    same pictures, or read its answer of this view from the cache; cross-entropy plus distillation. The teacher and the
    cache are no part of the module: neither parameters nor checkpoints hold them.

    Metrics per epoch: those of ``Classifier`` (``train_loss`` is the whole loss), and with a teacher ``train_ce``,
    ``train_kd`` and ``label_outside_topk`` (share of pictures whose label is not among the teacher's K best classes:
    the outlier rate). Evaluation shows clean pictures.

    Args:
        model: The student, from normalised pictures to logits ``(B, num_classes)``.
        num_classes: Number of classes.
        loss: Cross-entropy and distillation; with ``weight=0`` the teacher is not run.
        preprocessing: What turns bytes into what the student sees, in training and evaluation.
        views: Makes the student's and the teacher's pictures; ``None`` augments nothing.
        teacher: A ``Teacher``; ``None`` where the cache answers, or there is no distillation.
        cache: A ``LogitCache`` of the student's views.
        cache_mode: ``"read"``: a missing record is an error. ``"readwrite"``: the teacher fills it.
        policy_until: Share of the epochs after which the policy is switched off (crop and flip stay); 1 keeps it on.
        recipe: Plain values that a resumed run must agree in (loss, augmentation), kept in checkpoints.
        optimizer: As for ``Classifier``.
        scheduler: As for ``Classifier``.
        mixup: As for ``Classifier``; pictures are mixed as bytes, so that student and teacher see the same.
        ema: As for ``Classifier``.

    Raises:
        UserError: If a value is out of range, or two of them cannot go together.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        loss: TopKDistillationLoss,
        preprocessing: Preprocessing,
        views: BatchViews | None = None,
        teacher: Any = None,
        cache: Any = None,
        cache_mode: str = "read",
        policy_until: float = 1.0,
        recipe: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        mixup: Mapping[str, Any] | None = None,
        ema: float | None = None,
    ) -> None:
        # Lightning collects these from here as well, and a checkpoint must be readable as plain values.
        optimizer, scheduler, mixup, recipe = map(plain_options, (optimizer, scheduler, mixup, recipe))
        super().__init__(
            model, num_classes, optimizer=optimizer, scheduler=scheduler, mixup=mixup, ema=ema,
            label_smoothing=loss.label_smoothing, preprocessing=preprocessing,
        )  # fmt: skip
        if not isinstance(policy_until, int | float) or not 0 <= policy_until <= 1:
            raise UserError(f"policy_until={policy_until!r} must be a share of the epochs in [0, 1]")
        self.views = views or BatchViews()
        self.policy_until = float(policy_until)
        has = {"teacher": teacher is not None, "cache": cache is not None}
        check_combination(
            loss.weight, cache_mode=cache_mode, mixed=self.mixup is not None, teacher_view=self.views.teacher_view,
            policy_until=self.policy_until, **has,
        )  # fmt: skip
        self.loss = copy.copy(loss)
        if self.mixup is not None:
            self.loss.label_smoothing = 0.0  # already in the mixed targets
        # In a tuple, where Lightning does not find them: a frozen network is neither trained, nor counted, nor saved.
        self._beside = (teacher if loss.weight > 0 else None, cache if loss.weight > 0 else None, cache_mode)
        self.train_ce, self.train_kd, self.outside = MeanLoss(), MeanLoss(), MeanLoss()

    def save_hyperparameters(self, *args: Any, ignore: Any = None, frame: Any = None, **kwargs: Any) -> None:
        """Leave objects out of what the checkpoint remembers: it must be readable as plain tensors and values."""
        frame = frame or inspect.currentframe().f_back  # type: ignore[union-attr]
        super().save_hyperparameters(*args, ignore=[*(ignore or ()), *_OBJECTS], frame=frame, **kwargs)

    # --- training -------------------------------------------------------------------------------------------------

    @property
    def teacher(self) -> Any:
        """The teacher, or ``None``."""
        return self._beside[0]

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device."""
        if self.teacher is not None:
            self.teacher.to(self.device)

    def _policy_on(self) -> bool:
        epochs = self.trainer.max_epochs or 1
        return self.current_epoch < round(self.policy_until * epochs)

    def step(
        self, batch: tuple[Tensor, ...], *, policy: bool = True
    ) -> tuple[LossTerms, Tensor, Tensor | TopLogits | None]:
        """The forward pass of one training batch; needs no trainer.

        Args:
            batch: ``(images, labels, index, view)``.
            policy: False once the policy is switched off.

        Returns:
            The loss and its parts, the student's logits, and the teacher's answers where it was asked.
        """
        images, labels, index, view = batch
        shown, key = self.views.student(images, index, view, policy=policy)
        return self.step_on_views(images, labels, shown, key, policy=policy)

    def step_on_views(
        self, images: Tensor, labels: Tensor, shown: Tensor, key: ViewKey, *, policy: bool = True
    ) -> tuple[LossTerms, Tensor, Tensor | TopLogits | None]:
        """As :meth:`step`, for pictures that are augmented already.

        Args:
            images: uint8 ``(B, C, H, W)`` as they were before.
            labels: ``(B,)``.
            shown: What ``views.student`` made of them.
            key: Its key.
            policy: As for :meth:`step`.
        """
        targets = labels
        if self.mixup is not None:
            mixed, targets = self._mix(shown.float(), labels)
            shown = mixed.round().clamp(0, 255).to(torch.uint8)
        logits = self._logits(self.prepared(shown))
        answers = self._answers(images, shown, key, policy)
        return self.loss(logits, answers, targets), logits, answers

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:  # type: ignore[override]
        """Return the loss of one batch ``(images, labels, index, view)``."""
        terms, logits, _ = self.step(batch, policy=self._policy_on())
        self._log_terms(terms, len(logits))
        if self.mixup is None:
            self.train_top1.update(logits.detach(), batch[1])
            self.log("train_top1", self.train_top1, on_step=False, on_epoch=True, logger=False)
        self.log("loss", terms["loss"].detach(), on_step=True, on_epoch=False, logger=False, prog_bar=True)
        return terms["loss"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring new records of the cache to the disk before the checkpoint that counts on them."""
        super().on_save_checkpoint(checkpoint)
        _, cache, mode = self._beside
        if cache is not None and mode == "readwrite":
            cache.flush()

    def _log_terms(self, terms: LossTerms, count: int) -> None:
        meters = {"train_loss": (self.train_loss, "loss")}
        if self.loss.weight > 0:
            meters |= {"train_ce": (self.train_ce, "ce"), "train_kd": (self.train_kd, "kd")}
            meters |= {"label_outside_topk": (self.outside, "label_outside_topk")}
        for name, (meter, term) in meters.items():
            meter.update(terms[term].detach() * count, count)  # type: ignore[literal-required]
            self.log(name, meter, on_step=False, on_epoch=True, logger=False)

    @torch.no_grad()
    def _answers(self, images: Tensor, shown: Tensor, key: ViewKey, policy: bool) -> Tensor | TopLogits | None:
        """The teacher's logits about the views it is to see, from the cache where there is one."""
        teacher, cache, mode = self._beside
        if self.loss.weight == 0:
            return None
        if cache is None:
            pictures, asked = self.views.teacher(images, shown, key, policy=policy)
            return self._ask(teacher, pictures, asked, key)
        if mode == "readwrite":
            self._fill(teacher, cache, shown, key)
        needs_sum = self.loss.mode in ("partial", "bucket")
        return cache.read(key, temperature=self.loss.temperature if needs_sum else None).to(self.device)

    def _ask(self, teacher: Any, pictures: Tensor, asked: ViewKey, key: ViewKey) -> Tensor:
        if self.views.teacher_view == "same":
            key.check(asked, "teacher")
        logits = teacher(pictures, asked)
        classes = self.hparams["num_classes"]
        if logits.shape[1] != classes:
            raise UserError(f"the teacher has {logits.shape[1]} classes and the data {classes}: they must agree")
        return logits

    def _fill(self, teacher: Any, cache: Any, shown: Tensor, key: ViewKey) -> None:
        """Ask the teacher about what the cache does not know yet."""
        lacking = ~cache.has(key.index, key.view)
        if bool(lacking.any()):
            where = lacking.to(shown.device)
            part = ViewKey(key.index[where], key.view[where], key.augment)
            cache.write(part.index, part.view, self._ask(teacher, shown[where], part, part))

    # --- resuming -------------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another recipe, loss and augmentation included, unless that is meant."""
        super().on_load_checkpoint(checkpoint)
        before = checkpoint.get("hyper_parameters", {}).get("recipe") or {}
        now = self.hparams["recipe"] or {}
        for key in sorted(set(before) | set(now)):
            if before.get(key) == now.get(key):
                continue
            self.recipe_changes[f"recipe.{key}"] = (before.get(key), now.get(key))
            if not self.resume_anyway:
                raise UserError(
                    f"resume: {key} was {before.get(key)} in the interrupted run and is {now.get(key)} now; "
                    "give the same, or start a new run"
                )


def check_combination(
    weight: float,
    *,
    teacher: bool,
    cache: bool,
    cache_mode: str = "read",
    mixed: bool = False,
    teacher_view: str = "same",
    policy_until: float = 1.0,
) -> None:
    """Refuse parts of a distillation that cannot go together.

    Args:
        weight: Of the distillation term; without one nothing is refused.
        teacher: Whether there is a teacher.
        cache: Whether there is a cache.
        cache_mode: ``"read"`` or ``"readwrite"``.
        mixed: Whether pictures are mixed (mixup, CutMix).
        teacher_view: As of ``BatchViews``.
        policy_until: As of :class:`DistillationModule`.

    Raises:
        UserError: With what to take instead.
    """
    if weight > 0 and not teacher and not (cache and cache_mode == "read"):
        raise UserError(f"loss.weight={weight} needs a teacher: give one, a full cache, or loss.weight=0")
    if weight == 0:
        return
    if mixed and teacher_view != "same":
        raise UserError(
            f"mixup and teacher_view={teacher_view} exclude each other: the teacher would answer about unmixed "
            "pictures, the label is of two; use teacher_view=same, or no mixup"
        )
    if not cache:
        return
    if mixed:
        raise UserError("mixup and a cache exclude each other: the cache holds answers about unmixed pictures")
    if teacher_view != "same":
        raise UserError(
            f"teacher_view={teacher_view!r} needs answers that the cache does not hold: use teacher_view=same, or no "
            "cache"
        )
    if policy_until < 1:
        raise UserError(
            f"policy_until={policy_until} and a cache exclude each other: the cache holds answers about views of the "
            "policy only"
        )
