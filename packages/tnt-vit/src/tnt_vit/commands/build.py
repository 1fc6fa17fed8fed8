"""From the ``model`` group of a config to a network on its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import OmegaConf

from effkit.data import DataModule, create_data
from effkit.device import resolve_device, seed_everything, set_threads
from effkit.errors import UserError
from tnt_vit.checkpoints.weights import load_checkpoint
from tnt_vit.checkpoints.zoo import create_model
from tnt_vit.model import TNT

__all__ = ["build_data_and_model", "build_model", "set_up"]


def build_model(cfg: Mapping[str, Any], *, num_classes: int | None = None, in_chans: int | None = None) -> TNT:
    """Build the network that a ``model`` group describes.

    Args:
        cfg: Keys of ``configs/model_args.yaml``; null means "as the variant has it".
        num_classes: Classes of the data, used where ``cfg`` does not say.
        in_chans: Channels of the data, likewise.

    Returns:
        The network, with weights if ``pretrained`` says so.

    Raises:
        ValueError: If an argument does not fit.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
    args = {k: v for k, v in plain.items() if v is not None}
    for size in ("img_size", "patch_size"):
        if isinstance(args.get(size), list):
            args[size] = tuple(args[size])
    if num_classes is not None:
        args.setdefault("num_classes", num_classes)
    if in_chans is not None:
        args.setdefault("in_chans", in_chans)
    return create_model(args.pop("name"), **args)


def build_data_and_model(cfg: Any, *, fresh_head: bool) -> tuple[DataModule, TNT]:
    """Build the data of the ``data`` group and a network for its classes, channels and picture size.

    The picture size is the data's; a network that was not told its own takes it over, and two that disagree are
    refused.

    Args:
        cfg: Composed config with ``data`` and ``model``.
        fresh_head: Whether a classifier for other classes than the checkpoint's may start at random (fine-tuning). If
            not, such a checkpoint is refused: its accuracy would be chance.

    Raises:
        ValueError: If an argument does not fit, or files are missing.
    """
    args: Any = OmegaConf.to_container(cfg.data, resolve=True)
    for key in ("mean", "std"):
        if key in args and args[key] is None:
            args[key] = 0.5  # of all published weights, on every data set
    data = create_data(**args)
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    if model.get("img_size") is None:
        model["img_size"] = data.image_size
    pretrained = model.pop("pretrained", False)
    if pretrained is True and not fresh_head and data.num_classes != 1000:
        raise UserError(
            f"model.pretrained=true has 1000 classes and {data.name} has {data.num_classes}; "
            "train first, then evaluate that checkpoint"
        )
    checkpoint = pretrained if isinstance(pretrained, str) else None
    network = build_model(
        {**model, "pretrained": pretrained is True}, num_classes=data.num_classes, in_chans=data.in_chans
    )
    if checkpoint is not None:
        load_checkpoint(network, checkpoint, strict_head=not fresh_head)
    if network.img_size != (data.image_size, data.image_size) and not network.dynamic_img_size:
        raise UserError(
            f"model.img_size={model['img_size']} and data.image_size={data.image_size} differ; "
            f"give data.image_size={network.img_size[0]} or leave model.img_size out"
        )
    return data, network


def set_up(cfg: Any) -> torch.device:
    """Set threads and seed of a command, and find its device."""
    set_threads(cfg.get("threads"))
    seed_everything(cfg.get("seed", 0))
    return resolve_device(cfg.get("device", "auto"))
