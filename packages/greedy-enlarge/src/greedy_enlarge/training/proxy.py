"""Proxy training: what a candidate reaches on validation pictures after a given number of training samples.

The learning rate is constant, so that a longer training begins as a shorter one did and racing can go on where it was.
Norm statistics are estimated anew before a score is taken (precise batch norm). The paper's own proxy is not known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from effkit.arguments import renamed
from effkit.atomic import atomic
from effkit.data.sampling import seeded
from effkit.data.selection import SelectionData
from effkit.device import resolve_device
from effkit.errors import UserError
from effkit.lightning import Classifier, build_trainer, quiet_lightning
from effkit.lightning.setup import own_settings
from greedy_enlarge.growth.grow import grow
from greedy_enlarge.networks.build import build
from greedy_enlarge.search.tasks import Result, Task, seed_of
from greedy_enlarge.spec import ArchSpec
from greedy_enlarge.training.data import open_data

__all__ = ["ProxyTrain", "measure", "recalibrate"]


class _Continued(Classifier):
    """A classifier whose optimizer goes on from a kept state."""

    optimizer_state: dict[str, Any] | None = None

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and give it the state of the training it goes on with."""
        found = super().configure_optimizers()
        if self.optimizer_state is not None:
            found.load_state_dict(self.optimizer_state)
        return found


class _Average(Callback):
    """A moving average of the weights, kept from one rung to the next.

    Args:
        decay: Weight of the old average.
        model: The network as the training begins.
        state: The average so far; ``None`` begins one with the network's weights.
    """

    def __init__(self, decay: float, model: nn.Module, state: dict[str, Any] | None) -> None:
        self.model = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        if state is not None:
            self.model.module.load_state_dict(state)
        self.model.n_averaged.fill_(1)  # else the first update would forget what there is

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the new weights in."""
        self.model.to(pl_module.device)
        self.model.update_parameters(pl_module.model)


@dataclass(frozen=True)
class ProxyTrain:
    """Trains candidates with Lightning.

    Args:
        folder: Where states are kept, by name.
        data: The group ``data`` of a config.
        epochs: Length of an evaluation where the search gives no number of samples.
        optimizer: Arguments of ``timm.optim.create_optimizer_v2``.
        label_smoothing: Of the training loss.
        inherits: Whether candidates start as the function of their parent.
        calibration: Training batches that norm statistics are estimated on before a score is taken; 0 keeps them.
        ema: Decay of a moving average of the weights, which is then what is scored; ``None`` scores the weights.
        device: ``cpu``, ``cuda``, ``auto``.
        threads: CPU threads; torch's choice if not given.
        n_val: Validation pictures; counted by :meth:`for_search`.
        n_train: Training pictures an epoch shows, likewise.
    """

    folder: str
    data: Mapping[str, Any]
    epochs: int = 3
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"opt": "adamw", "lr": 3e-3, "weight_decay": 0.02})
    label_smoothing: float = 0.0
    inherits: bool = True
    calibration: int = 20
    ema: float | None = None
    device: str = "cpu"
    threads: int | None = None
    n_val: int = 0
    n_train: int = 0
    metric: str = "accuracy"

    @classmethod
    def for_search(cls, spec: ArchSpec, **options: Any) -> ProxyTrain:
        """Open the data once, to know that it fits and how many pictures it has.

        Args:
            spec: The start.
            **options: Those of the class.

        Raises:
            UserError: If data and network do not fit together, or a value is out of range.
        """
        for name, least in (("epochs", 1), ("calibration", 0)):
            value = options.get(name, least)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"evaluator.{name}={value!r} must be a whole number of at least {least}")
        ema = options.get("ema")
        if ema is not None and (isinstance(ema, bool) or not isinstance(ema, int | float) or not 0 < ema < 1):
            raise UserError(f"evaluator.ema={ema!r} must be a decay in (0, 1), e.g. 0.99, or null")
        optimizer, smoothing = options.get("optimizer"), options.get("label_smoothing", 0.0)
        keys = ["label_smoothing", "optimizer", *(f"optimizer.{key}" for key in optimizer or ())]
        with renamed({key: f"evaluator.{key}" for key in keys}):
            Classifier(nn.Identity(), spec.classes, optimizer=optimizer, label_smoothing=smoothing)
        resolve_device(options.get("device", "cpu"))
        view = SelectionData(open_data(options["data"], spec, 0))
        return cls(**options, n_val=len(view.val), n_train=view.seen)

    def check_samples(self, *given: Any) -> None:
        """Refuse numbers of training samples that are no whole epochs: scores would be those of others.

        Args:
            *given: Numbers, lists of them, or ``None``.

        Raises:
            UserError: Names the first that is none.
        """
        for value in given:
            for count in value if isinstance(value, list | tuple) else [value]:
                if isinstance(count, int) and count % self.n_train:
                    raise UserError(
                        f"samples={count}: proxy training goes by whole epochs, and data={self.data['name']} has "
                        f"{self.n_train:,} training pictures; give a multiple of that"
                    )

    def fingerprint(self) -> dict[str, Any]:
        """All that shapes a score."""
        data = {k: v for k, v in self.data.items() if k not in ("num_workers", "image_size", "in_chans", "seed")}
        return {
            "name": "proxy_train", "data": data, "epochs": self.epochs, "optimizer": dict(self.optimizer),
            "label_smoothing": self.label_smoothing, "inherits": self.inherits, "calibration": self.calibration,
            "ema": self.ema, "n_val": self.n_val, "n_train": self.n_train,
        }  # fmt: skip

    def evaluate(self, task: Task) -> Result:
        """Train and measure.

        Raises:
            UserError: If a state that the task goes on from is not there any more.
        """
        if self.threads:
            torch.set_num_threads(int(self.threads))
        started = time.perf_counter()
        model, state, done = self._start(task)
        epochs = max(1, round(task.samples / self.n_train)) if task.samples else self.epochs
        # An epoch's order depends on how many came before, not on where the training was cut into rungs.
        view = SelectionData(open_data(self.data, task.spec, task.shared_seed))
        if epochs > done:
            state = self._train(model, view, state, done, epochs, task)
        device = next(model.parameters()).device
        scored = model
        if state.get("average"):
            scored = build(task.spec).to(device)
            scored.load_state_dict(state["average"])
        recalibrate(scored, view, self.calibration, device)
        accuracy, loss = measure(scored, view, device)
        cost = {"samples": (epochs - done) * self.n_train, "seconds": round(time.perf_counter() - started, 3)}
        if not math.isfinite(loss):
            return Result(cost=cost, status="failed", reason=f"the validation loss is {loss}")
        name = f"{task.key(self.fingerprint())}.pt"
        with atomic(Path(self.folder) / name) as temporary:
            torch.save(
                {**state, "model": model.state_dict(), "scored": scored.state_dict(), "epochs": epochs}, temporary
            )
        return Result({"accuracy": accuracy, "loss": loss}, cost, state=name)

    def _load(self, name: str) -> dict[str, Any]:
        file = Path(self.folder) / name
        if not file.is_file():
            raise UserError(f"{file} is gone, which this search goes on from: restore it, or start in another folder")
        return torch.load(file, map_location="cpu", weights_only=True)

    def _start(self, task: Task) -> tuple[nn.Module, dict[str, Any], int]:
        """The network as this evaluation begins (fresh, grown from its parent, or where it was), state, and epochs."""
        with seeded(task.seed):
            if task.continues:
                state = self._load(task.continues)
                model = build(task.spec)
                model.load_state_dict(state["model"])
                return model, state, state["epochs"]
            if task.parent is None:
                return build(task.spec), {}, 0
            parent = build(task.parent)
            parent.load_state_dict(self._load(task.parent_state)["model"])
            return grow(parent, task.spec)[0], {}, 0

    def _train(
        self, model: nn.Module, view: SelectionData, state: dict[str, Any], done: int, epochs: int, task: Task
    ) -> dict[str, Any]:
        """Train from one epoch to another; returns the states of the optimizer and of the average."""
        module = _Continued(
            model, task.spec.classes, optimizer=dict(self.optimizer), scheduler={"sched": "none"},
            label_smoothing=self.label_smoothing, preprocessing=view.data.preprocessing,
        )  # fmt: skip
        module.optimizer_state = state.get("optimizer")
        average = None if self.ema is None else _Average(self.ema, model, state.get("average"))
        options = {"max_epochs": epochs - done, "enable_progress_bar": False, "limit_val_batches": 0}
        view.data.seed = seed_of(task.shared_seed, done) % 2**31
        with quiet_lightning(), own_settings(), seeded(seed_of(task.seed, "train", done)):
            callbacks = [] if average is None else [average]
            trainer = build_trainer(
                options, Path(self.folder), callbacks=callbacks, device=self.device, precision="fp32"
            )
            trainer.fit(module, datamodule=view)
        found = {"optimizer": trainer.optimizers[0].state_dict()}
        return found if average is None else {**found, "average": average.model.module.state_dict()}


@torch.no_grad()
def recalibrate(model: nn.Module, view: SelectionData, batches: int, device: Any = "cpu") -> None:
    """Estimate norm statistics anew, as plain means over training batches.

    Args:
        model: The network.
        view: The data.
        batches: How many; 0 changes nothing.
        device: Where the network is.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not batches or not norms:
        return
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # a plain mean
    model.train()
    for number, (images, *_) in enumerate(view.train_dataloader()):
        if number == batches:
            break
        model(view.normalize(images).to(device))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum


@torch.no_grad()
def measure(model: nn.Module, view: Any, device: Any = "cpu", split: str = "val") -> tuple[float, float]:
    """Accuracy (a fraction) and mean cross-entropy.

    Args:
        model: The network.
        view: :class:`~effkit.data.selection.SelectionData`, or a data module for another split.
        device: Where the network is.
        split: ``val``; ``test`` of a data module, once, for the final figures.
    """
    model.eval()
    right = total = 0
    loss = 0.0
    loader = view.val_dataloader() if split == "val" else view.test_dataloader()
    normalize = view.normalize if split == "val" else view.preprocessing.normalize
    for images, labels in loader:
        logits = model(normalize(images).to(device)).float().cpu()
        right += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        total += len(labels)
    return right / total, loss / total
