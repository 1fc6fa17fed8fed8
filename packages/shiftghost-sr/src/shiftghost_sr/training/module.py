"""Super-resolution as a Lightning module."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from effkit.data.sampling import IGNORE
from effkit.errors import UserError, choose
from effkit.lightning import MeanLoss, TrainedModule, create_optimizer
from effkit.lightning.arguments import is_number
from effkit.lightning.optim import plain_options
from shiftghost_sr.images.colour import y_of_rgb
from shiftghost_sr.images.enlarging import enlarge
from shiftghost_sr.images.metrics import psnr_y
from shiftghost_sr.layers.schedule import shift_logits
from shiftghost_sr.models.files import MARK, state_with_mark
from shiftghost_sr.training.losses import LOSSES
from shiftghost_sr.training.schedule import ShiftSchedule

__all__ = ["ARCHITECTURE", "SRModule", "luma_psnr", "prepared"]

ARCHITECTURE = "architecture"
"""The entry of a checkpoint that says what the network is, as ``shiftghost_sr.models.files`` keeps it."""


def prepared(model: nn.Module, low: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Low-resolution bytes as a network takes them.

    Args:
        model: With ``scale``, ``channels`` and ``grid``.
        low: uint8 ``(N, 3, h, w)``.
        dtype: Of the result.

    Returns:
        ``(N, channels, h, w)`` in 0..1, enlarged already for a network with ``grid = "hr"``.
    """
    values = low.to(dtype) / 255
    if model.channels == 1:
        values = y_of_rgb(values)
    return enlarge(values, int(model.scale)) if getattr(model, "grid", "lr") == "hr" else values  # type: ignore[arg-type]


def wanted(model: nn.Module, high: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """High-resolution bytes as a network gives them; arguments as for :func:`prepared`."""
    values = high.to(dtype) / 255
    return y_of_rgb(values) if model.channels == 1 else values


class SRModule(TrainedModule):
    """Trains a network on batches ``[low, [high, number]]`` of bytes, see ``SRData``.

    Metrics per epoch: ``train_loss``, with a teacher ``train_distance`` (to its output), ``val_psnr`` (luma, a border
    of ``scale`` left out, mean over the pictures), and what ``ShiftSchedule`` logs.

    Args:
        model: The network, with ``scale``, ``channels`` and ``grid``.
        loss: One of ``shiftghost_sr.training.losses.LOSSES``.
        teacher: The dense parent of a ghost network; not trained, and no part of checkpoints.
        distillation: Weight of the loss against the teacher's output, 0..1; the rest is against the picture.
        shift_lr: Factor of the learning rate of the shifts' logits; these are never decayed.
        shift_epochs: ``per_run`` of ``ShiftSchedule``.
        optimizer: As for ``TrainedModule``.
        scheduler: See ``effkit.lightning.create_scheduler``.
        ema: As for ``TrainedModule``.

    Raises:
        UserError: If a value is out of range, or teacher and network do not fit together.
    """

    monitor = "val_psnr"

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: str = "l1",
        teacher: nn.Module | None = None,
        distillation: float = 0.0,
        shift_lr: float = 1.0,
        shift_epochs: float | None = None,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        ema: float | None = None,
    ) -> None:
        optimizer, scheduler = plain_options(optimizer), plain_options(scheduler)
        if not is_number(distillation, lambda x: 0 <= x <= 1):
            raise UserError(f"distillation={distillation!r} must be a weight in [0, 1]")
        if distillation > 0 and teacher is None:
            raise UserError(f"distillation={distillation} needs a teacher: give one, or distillation=0")
        if not is_number(shift_lr, lambda x: x > 0):
            raise UserError(f"shift_lr={shift_lr!r} must be a number above 0")
        if shift_epochs is not None and not is_number(shift_epochs, lambda x: x > 0):
            raise UserError(f"shift_epochs={shift_epochs!r} must be a number above 0, or null")
        super().__init__(
            model.train(), optimizer=optimizer, ema=ema
        )  # a file gives it in eval mode: no noise on shifts
        self.loss = LOSSES[choose("loss", loss, LOSSES)]
        for name in ("scale", "channels", "grid") if teacher is not None else ():
            theirs, ours = (getattr(network, name, "lr" if name == "grid" else None) for network in (teacher, model))
            if theirs != ours:
                raise UserError(f"the teacher has {name}={theirs}, the network {name}={ours}")
        self.save_hyperparameters(ignore=["model", "teacher"], logger=False)
        # In a tuple, where Lightning does not find it: a teacher is neither trained, nor counted, nor saved.
        self._beside = (None if teacher is None or distillation == 0 else teacher.eval().requires_grad_(False),)
        self.train_loss, self.train_distance, self.val_psnr = MeanLoss(), MeanLoss(), MeanLoss()

    def forward(self, low: Tensor) -> Tensor:
        """Bytes ``(N, 3, h, w)`` to what the network gives, ``(N, channels, h * scale, w * scale)`` in 0..1."""
        return self.model(prepared(self.model, low, self._float))

    @property
    def _float(self) -> torch.dtype:
        return self.dtype if isinstance(self.dtype, torch.dtype) else torch.float32

    def configure_callbacks(self) -> list[Callback]:
        """Bring the schedule of the shifts."""
        return [*super().configure_callbacks(), ShiftSchedule(self.hparams["shift_epochs"])]

    def create_optimizer(self, options: Mapping[str, Any]) -> Optimizer:
        """The logits of shifts in a group of their own."""
        return create_optimizer(self.model, {**options, "param_group_fn": self._groups})

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        options = self.hparams["optimizer"]
        decay = options.get("weight_decay", 0.0)
        logits = shift_logits(model)
        own = {id(p) for p in logits}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
        groups = [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            {"params": logits, "weight_decay": 0.0, "lr": options["lr"] * self.hparams["shift_lr"]},
        ]
        return [group for group in groups if group["params"]]

    # --- training and evaluation ----------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Bring the teacher to the network's device."""
        if self._beside[0] is not None:
            self._beside[0].to(self.device)

    def step(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """The loss of a batch, and its distance to the teacher where there is one; needs no trainer."""
        low, (high, _) = batch
        given = prepared(self.model, low, self._float)
        output = self.model(given)
        loss = self.loss(output, wanted(self.model, high, self._float))
        teacher, weight = self._beside[0], self.hparams["distillation"]
        if teacher is None:
            return loss, None
        with torch.no_grad():
            answer = teacher(given)
        distance = self.loss(output, answer)
        return (1 - weight) * loss + weight * distance, distance.detach()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        count = len(batch[0])
        loss, distance = self.step(batch)
        if distance is not None:
            self.train_distance.update(distance * count, count)
            self.log("train_distance", self.train_distance, on_step=False, on_epoch=True, logger=False)
        self.train_loss.update(loss.detach() * count, count)
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True, logger=False)
        self.log("loss", loss.detach(), on_step=True, on_epoch=False, logger=False, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add one picture to the mean PSNR."""
        low, (high, number) = batch
        output = self.model(prepared(self.model, low, self._float))
        real = int(number) != IGNORE
        value = luma_psnr(output, high, int(self.model.scale)) if real else 0.0  # type: ignore[arg-type]
        self.val_psnr.update(torch.tensor(value, device=low.device), torch.tensor(int(real), device=low.device))
        self.log("val_psnr", self.val_psnr, on_step=False, on_epoch=True, logger=False, prog_bar=True)

    # --- resuming -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the network is, where a file can say that."""
        super().on_save_checkpoint(checkpoint)
        with contextlib.suppress(UserError):
            checkpoint[ARCHITECTURE] = state_with_mark(self.model)[MARK]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another recipe, the loss and its weights included, unless that is meant."""
        super().on_load_checkpoint(checkpoint)
        before = checkpoint.get("hyper_parameters", {})
        for key in ("loss", "distillation", "shift_lr", "shift_epochs"):
            if key in before and before[key] != self.hparams[key]:
                self.recipe_changes[key] = (before[key], self.hparams[key])
                if not self.resume_anyway:
                    raise UserError(
                        f"resume: {key} was {before[key]} in the interrupted run and is {self.hparams[key]} now; "
                        "give the same, or start a new run"
                    )


def luma_psnr(output: Tensor, high: Tensor, scale: int) -> float:
    """PSNR of one picture on luma.

    Args:
        output: ``(1, channels, H, W)`` in 0..1.
        high: uint8 ``(1, 3, H, W)``.
        scale: Border to leave out.
    """
    target = high[0].permute(1, 2, 0).cpu().numpy()
    if output.shape[1] == 3:
        return psnr_y(_bytes(output), target, scale)
    # Luma against unrounded luma, both in grey levels.
    wide = torch.tensor(target).permute(2, 0, 1)[None].double() / 255
    difference = 255 * (output.detach().double().cpu() - y_of_rgb(wide))[..., scale:-scale, scale:-scale]
    error = float((difference**2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _bytes(output: Tensor) -> NDArray:
    values = output[0].detach().permute(1, 2, 0).double().cpu().numpy()
    return np.clip(np.floor(values * 255 + 0.5), 0, 255).astype(np.uint8)
