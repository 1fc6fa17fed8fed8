"""One Lightning module around any family: it steps the optimizer, averages over processes, keeps what is learnt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from effkit.data.preprocessing import Preprocessing
from effkit.data.sampling import IGNORE
from effkit.errors import UserError
from effkit.lightning import Classifier, MeanLoss
from effkit.lightning.optim import create_scheduler
from effkit.lightning.stepping import StepCheckpoint
from ws_nas.families.base import Batch, Family, NotFinite
from ws_nas.families.progress import Progress, Stage
from ws_nas.training.data import ValidationStream

__all__ = ["AfterEpoch", "FamilyModule"]

AFTER = 1 << 30
"""Where the stream of validation pictures for what follows an epoch begins; steps of training come nowhere near."""


class AfterEpoch(Callback):
    """Calls something after each epoch's steps, with how many epochs are done."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self.call = call

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Call it."""
        self.call(int(trainer.current_epoch) + 1)


class FamilyModule(Classifier):
    """Trains a family of weight sharing on batches ``(images, labels)``.

    The weights' optimizer is the module's; what is learnt about architectures the family updates by itself. Gradients
    are averaged over processes once a step, after all passes of it. Metrics per epoch: ``train_loss``, ``val_loss`` and
    ``val_top1`` of a few sub-networks or of the mixture, with each batch's own statistics, and what the family says.

    Args:
        family: The family.
        num_classes: Of the data.
        stream: Pictures for the architecture.
        optimizer: As for ``Classifier``; trains ``family.network``.
        scheduler: Likewise.
        preprocessing: Likewise.

    Raises:
        UserError: If a value is out of range or a key is not known.
    """

    unsaved: ClassVar[tuple[str, ...]] = ("family", "stream")

    def __init__(
        self,
        family: Family,
        num_classes: int,
        stream: ValidationStream | None = None,
        *,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__(
            family.network, num_classes, optimizer=optimizer, scheduler=scheduler, preprocessing=preprocessing
        )
        if family.needs_validation and stream is None:
            raise UserError(f"family={family.name} needs validation pictures for the architecture: give a stream")
        self.automatic_optimization = False
        self.family, self.stream = family, stream
        self.architecture = family.architecture
        self.val_top5 = None
        self.clip: float | None = None
        self.clips_values = False
        self._told: Progress | None = None
        self._schedules: list[tuple[Stage, Any]] | None = None
        self.columns = nn.ModuleDict({name: MeanLoss() for name in family.columns})

    # --- set-up ---------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Take over from the trainer what Lightning does not do where a module steps its optimizers itself."""
        trainer = self.trainer
        if trainer.accumulate_grad_batches != 1:
            raise UserError(
                f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} must be 1: every step of a family "
                "is an update; use a larger data.batch_size"
            )
        if str(trainer.precision) in ("16-mixed", "16"):
            raise UserError(
                "precision=fp16 needs a scaled loss, which a family's own passes have not: use bf16 or fp32"
            )
        self.clip, trainer.gradient_clip_val = trainer.gradient_clip_val, None  # type: ignore[assignment]
        self.clips_values = str(trainer.gradient_clip_algorithm or "norm").lower().endswith("value")
        return super().configure_callbacks()

    def on_fit_start(self) -> None:
        """Let the family average over the processes of this job."""
        self.family.average = average

    def on_train_epoch_start(self) -> None:
        """Tell the family how far the training is."""
        optimizer: Any = self.optimizers()
        self.family.weight_optimizer = optimizer.optimizer
        self._told = self._progress()
        self.family.begin_epoch(self._told)
        if self._schedules is None:
            self._schedules = self._staged(optimizer.optimizer, self._told)

    def _staged(self, optimizer: torch.optim.Optimizer, told: Progress) -> list[tuple[Stage, Any]]:
        """The schedule of each stage of the family; all of them are tried before the first step."""
        options = dict(self.hparams.get("scheduler") or {"sched": "none"})
        found = []
        for stage in self.family.stages(told.epochs):
            if options["sched"] == "onecycle":
                raise UserError(
                    "scheduler=onecycle is laid out over the whole run, and the stages of "
                    f"family={self.family.name} have schedules of their own: choose scheduler=cosine, or "
                    "family.rates=null"
                )
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
            warms = {} if stage.warms or "warmup_epochs" not in options else {"warmup_epochs": 0}
            try:
                made = create_scheduler(
                    optimizer, {**options, **warms}, epochs=stage.epochs, updates_per_epoch=told.steps
                )
            except UserError as error:
                raise UserError(
                    f"{error}: that is a stage of family={self.family.name} from epoch {stage.first + 1} on; "
                    "family.rates=null has one schedule over the run"
                ) from error
            found.append((stage, made))
        return found

    def _set_rate(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Where stages have learning rates of their own, that of a step."""
        assert self._told is not None
        for stage, schedule in self._schedules or []:
            into = step - stage.first * self._told.steps
            if 0 <= into < stage.epochs * self._told.steps:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"]
                if schedule is not None:
                    schedule.schedule.step_update(into)
                for group in optimizer.param_groups:
                    group["lr"] *= stage.rate

    def _progress(self) -> Progress:
        return Progress(self.trainer.current_epoch, self.trainer.max_epochs or 1, self.updates_per_epoch)

    # --- a step ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # type: ignore[override]
        """One update of the weights, and of the architecture where the family has one."""
        trainer, family = self.trainer, self.family
        if self._told != self._progress():  # resumed within an epoch, which does not start then
            self.on_train_epoch_start()
        optimizer: Any = self.optimizers()
        images, labels = self._arrived(batch)
        step = int(trainer.global_step)
        self._set_rate(optimizer.optimizer, step)
        optimizer.zero_grad(set_to_none=True)
        statistics = [buffer.clone() for buffer in self.model.buffers()]
        try:
            found = family.training_step(Batch(images, labels, *self._validation(step)), step)
        except NotFinite as error:
            for buffer, value in zip(self.model.buffers(), statistics, strict=True):  # forward passes have moved them
                buffer.copy_(value)
            raise self._not_finite(error) from None
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        average([p.grad for p in parameters if p.grad is not None])
        if self.clip and self.clips_values:
            torch.nn.utils.clip_grad_value_(parameters, self.clip)
        elif self.clip:
            torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        optimizer.step()
        schedule: Any = self.lr_schedulers()
        if schedule is not None:
            schedule.step()
        if batch_idx + 1 >= trainer.num_training_batches:
            self._note(family.end_epoch(self._endless()), 1)
        self._note(found, len(images))
        return found["loss"]

    def _validation(self, step: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
        if not self.family.needs_validation or self.stream is None:
            return None, None
        images, labels = self.stream.at(step)
        return self.prepared(images.to(self.device, non_blocking=True)), labels.to(self.device, non_blocking=True)

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Validation pictures for what follows an epoch."""
        begin = AFTER + self.trainer.current_epoch * (1 << 16)
        for step in itertools.count(begin):
            images, labels = self._validation(step)
            assert images is not None
            assert labels is not None
            yield images, labels

    def _not_finite(self, error: NotFinite) -> UserError:
        """Keep the state before the step, and say how the run goes on."""
        kept = False
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StepCheckpoint):
                kept = callback.keep_before(self.trainer)
        folder = self.trainer.default_root_dir
        if not kept and not self.trainer.current_epoch:
            return UserError(f"{error}; it was the first step, nothing has been learnt")
        return UserError(f"{error}; resume={folder} goes on from before that step, resume_anyway=true with other words")

    def _note(self, found: Mapping[str, Any], count: int) -> None:
        for name, value in found.items():
            value = torch.as_tensor(value, dtype=torch.float32, device=self.device)
            if name == "loss":
                self.train_loss.update(value * count, count)
                self.log("train_loss", self.train_loss, on_step=False, on_epoch=True, logger=False)
                self.log("loss", value, on_step=True, on_epoch=False, logger=False, prog_bar=True)
                continue
            column: Any = self.columns[name]
            column.update(value, 1)
            self.log(name, column, on_step=False, on_epoch=True, logger=False)

    # --- evaluation -----------------------------------------------------------------------------------------------

    def _evaluate(self, batch: Any, prefix: str) -> None:
        """Mean loss and accuracy over what the family shows of itself."""
        images, labels = self._arrived(batch)
        counted = labels != IGNORE
        if len(images) < 2:  # has no statistics of its own
            return
        for logits in self.family.shown(images):
            logits = logits.float()
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE)
            self.val_loss.update(loss, counted.sum())
            self.val_top1.update(logits, labels)
        self.log(f"{prefix}_loss", self.val_loss, on_step=False, on_epoch=True, logger=False)
        self.log(f"{prefix}_top1", self.val_top1, on_step=False, on_epoch=True, logger=False, prog_bar=True)

    # --- resuming -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the family keeps besides weights, with the hash of its space."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["family"] = self.family.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another family or another space, before shapes are compared."""
        if "family" not in checkpoint:
            raise UserError("the checkpoint is of no family of weight sharing")
        self.family.load_state_dict(checkpoint["family"])
        super().on_load_checkpoint(checkpoint)


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Average tensors over the processes of a job, in place; with one process nothing happens."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1 or not tensors:
        return
    flat = torch.cat([t.flatten().to(torch.float64 if t.dtype == torch.float64 else torch.float32) for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
