"""From the groups ``model`` and ``aug`` of a config to a network, and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf
from timm.models import get_pretrained_cfg, is_model
from torch import nn

from augshortcut.checkpoints.files import holds_paths, load_checkpoint, load_paths
from augshortcut.config import preset
from augshortcut.injection.augment import augment
from augshortcut.models.zoo import OFFICIAL, create_model
from effkit.arguments import check_arguments, foreign, named_below, renamed
from effkit.data import DataModule, Preprocessing, create_data
from effkit.device import resolve_device, seed_everything, set_threads
from effkit.errors import UserError, written
from effkit.runs import PICTURE_KEYS, Run, given_words

__all__ = ["Opened", "build_data_and_model", "build_model", "open_both", "open_network", "plain", "set_up"]


def plain(cfg: Any, *keys: str) -> dict[str, Any]:
    """Some keys of a config (all if none is named), with plain lists and dictionaries."""
    values: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
    return {key: values[key] for key in keys} if keys else values


def _network(
    *,
    name: str,
    pretrained: bool | str,
    paths: str | None,
    img_size: int | tuple[int, int] | None,
    patch_size: int | tuple[int, int] | None,
    embed_dim: int | list[int] | None,
    depth: int | list[int] | None,
    num_heads: int | list[int] | None,
    in_chans: int | None,
    num_classes: int | None,
    drop_rate: float | None,
    drop_path_rate: float | None,
    args: dict[str, Any] | None,
) -> None:
    """The keys of ``configs/model_args.yaml``, each with its kind."""


def checked(model: Mapping[str, Any]) -> dict[str, Any]:
    """The group ``model``, plain.

    Raises:
        UserError: If a value is of another kind than its key asks for.
    """
    values = plain(model)
    check_arguments(_network, values, "model.")
    return values


def set_up(cfg: Any) -> torch.device:
    """Set threads and seed of a command, and find its device."""
    set_threads(cfg.get("threads"))
    seed_everything(cfg.get("seed", 0))
    return resolve_device(cfg.get("device", "auto"))


def build_model(
    model: Mapping[str, Any],
    aug: Mapping[str, Any] | None,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    strict_head: bool = True,
) -> nn.Module:
    """Build the network that the groups ``model`` and ``aug`` describe.

    Args:
        model: Keys of ``configs/model_args.yaml``; null means "as the model has it".
        aug: Keys of ``configs/aug_args.yaml``; a null ``preset`` adds nothing.
        num_classes: Classes of the data, used where ``model`` does not say.
        in_chans: Channels of the data, likewise.
        strict_head: Whether weights must fit the classifier too.

    Returns:
        The network, with weights if ``pretrained`` or ``paths`` say so.

    Raises:
        ValueError: If an argument does not fit.
    """
    args = {k: v for k, v in checked(model).items() if v is not None}
    others = args.pop("args", None) or {}
    args.update(others)
    name, pretrained, paths = args.pop("name"), args.pop("pretrained", False), args.pop("paths", None)
    if num_classes is not None:
        args.setdefault("num_classes", num_classes)
    if in_chans is not None:
        args.setdefault("in_chans", in_chans)
    keys = {key: f"model.args.{key}" if key in others else f"model.{key}" for key in args}
    given = ", ".join(f"{keys[key]}={written(value)}" for key, value in args.items())
    try:
        with named_below("model.", ["name"]), foreign(f"model.name={name} with {given or 'nothing else'}"):
            network = create_model(name, pretrained=pretrained is True, **args)
    except OSError as error:
        if pretrained is not True:
            raise
        raise UserError(
            f"the weights of {name} cannot be had: {str(error).splitlines()[0]}; give model.pretrained=PATH "
            "of a file downloaded elsewhere"
        ) from error
    wanted = None if aug is None else aug["preset"]
    if aug is not None and wanted is not None:
        fields = {key: value for key, value in plain(aug).items() if key != "preset"}
        with named_below("aug.", fields):
            config = preset(wanted, **fields)
        bare = isinstance(pretrained, str) and not holds_paths(pretrained)
        if bare:  # a base's weights go under its own names, then come the paths
            load_checkpoint(network, str(pretrained), strict_head=strict_head)
        with renamed({"block": "aug.num_blocks", **{name: f"aug.{name}" for name in fields}}):
            augment(network, config)
        pretrained = pretrained if not bare else False
    if isinstance(pretrained, str):
        load_checkpoint(network, pretrained, strict_head=strict_head)
    if paths is not None:
        load_paths(network, paths)
    return network


def build_data_and_model(cfg: Any, *, fresh_head: bool) -> tuple[DataModule, nn.Module]:
    """Build the data of the group ``data`` and a network for its classes, channels and picture size.

    Args:
        cfg: Composed config with ``data``, ``model`` and ``aug``.
        fresh_head: Whether a classifier for other classes than the weights' may start at random (fine-tuning).

    Raises:
        ValueError: If an argument does not fit, or files are missing.
    """
    data = create_data(**plain(cfg, "data")["data"])
    model = checked(cfg.model)
    kept = data.preprocessing
    _take_size(model, kept.size[0])
    side = model.get("img_size")
    if side is not None and side != kept.size[0]:
        raise UserError(f"model.img_size={side} and data.image_size={kept.size[0]} differ; give both the same")
    network = build_model(
        model, cfg.aug, num_classes=data.num_classes, in_chans=kept.channels, strict_head=not fresh_head
    )
    return data, network


def _take_size(model: dict[str, Any], side: int) -> None:
    """Give a network of a fixed picture size that of the data, where it was not told its own."""
    name = OFFICIAL.get(model["name"], (model["name"],))[0]
    cfg = get_pretrained_cfg(name, allow_unregistered=True) if is_model(name) else None
    if (
        model.get("img_size") is None
        and cfg is not None
        and cfg.fixed_input_size
        and tuple(cfg.input_size[1:]) != (side, side)
    ):
        model["img_size"] = side


@dataclass(frozen=True)
class Opened:
    """A network that a command's words name.

    Attributes:
        model: The network, on the CPU, in evaluation mode.
        name: What to call it.
        trained: Whether it has weights.
        preprocessing: What it expects of pictures, if that is known.
        run: The run it comes from.
    """

    model: nn.Module
    name: str
    trained: bool
    preprocessing: Preprocessing | None = None
    run: Run | None = None


def _name(cfg: Any) -> str:
    """What to call a network in tables and pictures."""
    added = cfg["aug"]["preset"]
    return str(cfg["model"]["name"]) + (f" + {added} paths" if added else "")


def _check_weights(cfg: Any) -> None:
    if cfg.weights != "auto":
        raise UserError(f"weights={cfg.weights} chooses among those of a run: give run=RUN")


def open_network(cfg: Any) -> Opened:
    """The network of a run (``run=``), or that of the groups ``model`` and ``aug``.

    Raises:
        ValueError: If something cannot be used, or words contradict each other.
    """
    if not cfg.get("run"):
        _check_weights(cfg)
        network = build_model(cfg.model, cfg.aug).eval()
        return Opened(network, _name(cfg), bool(cfg.model.pretrained or cfg.model.paths))
    run = Run.open(str(cfg.run), package="augshortcut")
    run.refuse(given_words(), ["model", "aug", "experiment"])
    kept = run.preprocessing
    model = {**run.config["model"], "pretrained": False, "paths": None}
    _take_size(model, kept.size[0])
    classes = len(kept.class_names) or None
    network = build_model(model, run.config["aug"], num_classes=classes, in_chans=kept.channels)
    load_checkpoint(network, run.weights(cfg.weights))
    return Opened(network.eval(), _name(run.config), True, kept, run)


def open_both(cfg: Any) -> tuple[DataModule, Opened]:
    """The data and the network of a command, the pictures prepared as the network expects them.

    Raises:
        ValueError: If data and model do not fit together.
    """
    if not cfg.get("run"):
        _check_weights(cfg)
        data, network = build_data_and_model(cfg, fresh_head=False)
        return data, Opened(network.eval(), _name(cfg), bool(cfg.model.pretrained or cfg.model.paths))
    found = open_network(cfg)
    assert found.run is not None
    given = given_words()
    found.run.refuse(given, [f"data.{key}" for key in PICTURE_KEYS])
    return found.run.open_data(plain(cfg, "data")["data"], given), found
