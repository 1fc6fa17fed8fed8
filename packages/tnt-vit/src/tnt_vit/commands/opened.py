"""The network a command is about: a run's, an exported file's, or that of the ``model`` group.

A run and an exported file say everything: the network, its weights, and how its pictures are prepared. A word beside
them that says any of it again is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from effkit.arguments import named_path
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError, written
from effkit.runs import PICTURE_KEYS, Run, given_words, refuse_words
from tnt_vit.checkpoints.weights import classes_of, load_checkpoint, read_weights
from tnt_vit.commands.build import build_model
from tnt_vit.commands.known import earlier, preprocessing_of_weights
from tnt_vit.inference.exported import load_exported

__all__ = ["Opened", "open_elsewhere", "open_exported", "open_network", "open_run"]

# What a run or an exported file decides; `model.pretrained` lies below `model`.
_DECIDED = ("model", "experiment", "class_names", "crop_pct")


@dataclass(frozen=True)
class Opened:
    """A network and what is known about it.

    Attributes:
        model: The network, on the CPU.
        name: What to call it.
        weights: What its weights are, as given to ``create_model``.
        preprocessing: What it expects of pictures; ``None`` leaves that to its variant.
        run: The run it comes from.
    """

    model: nn.Module
    name: str
    weights: bool | str | os.PathLike[str]
    preprocessing: Preprocessing | None
    run: Run | None = None


def open_run(path: str, which: str = "auto", given: Mapping[str, Any] | None = None) -> Opened:
    """Build the network of a training run, with its weights.

    Args:
        path: The run's folder.
        which: Which weights, see :meth:`effkit.runs.Run.weights`.
        given: The words of the command line, by key.

    Raises:
        ValueError: If it is no run of ours, has no weights yet, or a word says what the run says.
    """
    run = Run.open(path, package="tnt_vit", earlier=earlier)
    run.refuse(given or {}, [*_DECIDED, "exported"])
    weights, kept = run.weights(which), run.preprocessing
    config = {**run.config["model"], "pretrained": False}
    if config.get("img_size") is None:
        config["img_size"] = kept.size
    # A folder of pictures that is gone has no names to count.
    classes = len(kept.class_names) or classes_of(read_weights(weights)) or 0
    model = build_model(config, num_classes=classes, in_chans=kept.channels)
    load_checkpoint(model, weights)
    return Opened(model.eval(), config["name"], weights, kept, run)


def open_exported(path: str, given: Mapping[str, Any] | None = None) -> Opened:
    """Load an exported file.

    Args:
        path: The file.
        given: The words of the command line, by key.

    Raises:
        ValueError: If it is none, or a word says what the file says.
    """
    refuse_words(f"exported={path!r}", given or {}, [*_DECIDED, *(f"data.{key}" for key in PICTURE_KEYS)])
    model = load_exported(path)
    return Opened(model, model.file.name, path, model.preprocessing)


def open_elsewhere(cfg: Any) -> Opened | None:
    """What ``run=`` or ``exported=`` of a command names; ``None`` without either.

    Raises:
        ValueError: See :func:`open_run` and :func:`open_exported`.
    """
    given = given_words()
    if cfg.get("run") is not None:
        return open_run(named_path("run", cfg.run), cfg.weights, given)
    if cfg.weights != "auto":
        raise UserError(f"weights={written(cfg.weights)} chooses among those of a run: give run=RUN")
    if cfg.get("exported") is None:
        return None
    exported = named_path("exported", cfg.exported)
    if cfg.precision not in ("auto", "fp32"):
        raise UserError(f"exported={exported!r} computes in the types it was written with: leave precision out")
    return open_exported(exported, given)


def open_network(cfg: Any) -> Opened:
    """The network that a command's words name.

    Args:
        cfg: Composed config with ``run``, ``weights``, ``model``, and perhaps ``exported``.

    Raises:
        ValueError: If something cannot be used, or words contradict each other.
    """
    found = open_elsewhere(cfg)
    if found is not None:
        return found
    pretrained = cfg.model.pretrained
    model = build_model(cfg.model)
    return Opened(model, cfg.model.name, pretrained, preprocessing_of_weights(pretrained))
