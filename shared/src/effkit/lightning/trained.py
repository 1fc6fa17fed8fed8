"""What every Lightning module that trains a network has: optimizer, schedule, average of weights, how it resumes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from effkit.errors import UserError
from effkit.lightning.arguments import is_number
from effkit.lightning.callbacks import WeightEma
from effkit.lightning.optim import check_optimizer, create_optimizer, create_scheduler
from effkit.lightning.resumed import Resumed, check_network

__all__ = ["TrainedModule"]


class TrainedModule(LightningModule):
    """A network in training; the loss and the metrics are its subclasses'.

    A subclass keeps ``optimizer``, ``scheduler`` and ``ema`` among its hyperparameters
    (``self.save_hyperparameters``), as plain values that ``torch.load(weights_only=True)`` reads.

    Args:
        model: The network.
        optimizer: Arguments of ``timm.optim.create_optimizer_v2``; evaluation needs none.
        ema: Decay of the moving average of the weights per update; ``None`` keeps none.

    Attributes:
        monitor: The metric per epoch that decides which checkpoint is best; the higher the better.
        resume_anyway: Go on with another optimizer, schedule or batch size where that is possible.
        recipe_changes: What that came to, beyond the config's own words.

    Raises:
        UserError: If a value is out of range or a key is not known.
    """

    monitor = "val_top1"

    def __init__(
        self, model: nn.Module, *, optimizer: Mapping[str, Any] | None = None, ema: float | None = None
    ) -> None:
        super().__init__()
        if ema is not None and not is_number(ema, lambda x: 0 < x < 1):
            raise UserError(f"ema={ema!r} must be a decay in (0, 1), e.g. 0.9999, or null")
        if optimizer:
            check_optimizer(optimizer)
        self.model = model
        self.updates_per_epoch = 0
        self.resume_anyway = False
        self.recipe_changes: dict[str, tuple[Any, Any]] = {}
        self._resumed: Resumed | None = None

    # --- set-up ---------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Bring the moving average of the weights, where one is asked for."""
        return [] if self.hparams["ema"] is None else [WeightEma(self.hparams["ema"])]

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule for the length of this run."""
        if not self.hparams["optimizer"]:
            raise UserError("optimizer is not set: training needs at least optimizer.opt and optimizer.lr")
        optimizer = self.create_optimizer(self.hparams["optimizer"])
        epochs = self.trainer.max_epochs or 1
        updates = self._updates_per_epoch()
        self.updates_per_epoch = updates
        if self._resumed is not None:
            self._resumed.check(epochs, updates, self.resume_anyway)
        options = self.hparams["scheduler"]
        schedule = create_scheduler(optimizer, options, epochs=epochs, updates_per_epoch=updates)
        if self._resumed is not None:
            self._resumed.fit_to(optimizer, updates)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def create_optimizer(self, options: Mapping[str, Any]) -> Optimizer:
        """Build the optimizer; subclasses may group the parameters in another way."""
        return create_optimizer(self.model, options)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule by one update (Lightning asks for this hook with schedules that are not torch's)."""
        scheduler.step()

    def _updates_per_epoch(self) -> int:
        """Count optimizer updates per epoch without Lightning's ``estimated_stepping_batches``.

        That property starts the training iterator before a checkpoint is restored, and a resumed run would then see the
        first epoch's order once more.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None:
            return math.ceil(self.trainer.estimated_stepping_batches / (self.trainer.max_epochs or 1))
        batches = len(datamodule.train_dataloader())
        limit = self.trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if batches == 0:
            raise UserError(f"trainer.limit_train_batches={limit!r} and data.batch_size leave no training batch")
        return math.ceil(batches / self.trainer.accumulate_grad_batches)

    # --- resuming -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the length of an epoch: after a change of the batch size it does not follow from the updates done."""
        checkpoint["updates_per_epoch"] = self.updates_per_epoch

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another recipe: half of it would silently win over what the command says."""
        check_network(checkpoint.get("state_dict", {}), self.state_dict())
        self._resumed = Resumed(checkpoint, self.hparams)
        self._resumed.check_recipe(self.resume_anyway)
