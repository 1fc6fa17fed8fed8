"""From the ``model`` group of a config to a network on its device."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import OmegaConf

from effkit.arguments import check_arguments, named_below
from effkit.data import DataModule, Preprocessing, create_data
from effkit.device import resolve_device, seed_everything, set_threads
from effkit.errors import UserError, written
from effkit.runs import PICTURE_KEYS, given_words
from tnt_vit.checkpoints.pyramids import PYRAMIDS
from tnt_vit.checkpoints.weights import classes_of, load_checkpoint, read_weights
from tnt_vit.checkpoints.zoo import create_model, full_name
from tnt_vit.commands.known import preprocessing_of_weights
from tnt_vit.commands.options import options
from tnt_vit.model import TNT
from tnt_vit.pyramid import PyramidTNT

__all__ = ["build_data_and_model", "build_model", "set_up"]


_BESIDE = {"name", "pretrained", "ema"}  # of the network's own arguments


def build_model(
    cfg: Mapping[str, Any], *, num_classes: int | None = None, in_chans: int | None = None
) -> TNT | PyramidTNT:
    """Build the network that a ``model`` group describes.

    Args:
        cfg: Keys of ``configs/model_args.yaml`` or, for a PyramidTNT, ``configs/pyramid_args.yaml``; null means
            "as the variant has it".
        num_classes: Classes of the data, used where ``cfg`` does not say; else those of the weights, if it names some.
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
    if "name" not in args:
        raise UserError("model.name is null: give the name of a variant")
    kind = PyramidTNT if full_name(str(args.get("name"))) in PYRAMIDS else TNT
    arguments = (_BESIDE | set(inspect.signature(kind).parameters)) - {"device", "dtype"}
    _check_keys(kind, args, arguments)
    check_arguments(kind, args, "model.")
    check_arguments(create_model, {k: args[k] for k in ("name", "pretrained", "ema") if k in args}, "model.")
    if args.get("pretrained") == "":
        raise UserError("model.pretrained= is empty: give true, false or the path of a checkpoint")
    pretrained, ema = args.pop("pretrained", False), args.pop("ema", "auto")
    if isinstance(pretrained, bool):
        with named_below("model.", arguments):
            return create_model(args.pop("name"), pretrained, **args)
    with named_below("model.", ["ema"]):
        stored = read_weights(pretrained, ema)
    classes = classes_of(stored)
    if classes is not None and args.setdefault("num_classes", classes) not in (0, classes):
        raise UserError(
            f"model.num_classes={args['num_classes']}, but the weights {str(stored.path)!r} tell {classes} classes "
            "apart: leave model.num_classes out"
        )
    with named_below("model.", arguments):
        network = create_model(args.pop("name"), **args)
    load_checkpoint(network, stored, strict_head=network.num_classes > 0)
    return network.eval()


def _check_keys(kind: type, args: Mapping[str, Any], arguments: set[str]) -> None:
    """Refuse keys of the other kind of network, which a word on the command line may bring in beside a name."""
    for key in args:
        if key not in arguments:
            raise UserError(
                f"model.{key}={written(args[key])} is no argument of model.name={args['name']}, a {kind.__name__}; use "
                f"one of {', '.join(sorted(arguments))}"
            )


def build_data_and_model(cfg: Any, *, fresh_head: bool) -> tuple[DataModule, TNT | PyramidTNT]:
    """Build the data of the ``data`` group and a network for its classes, channels and picture size.

    The picture size is the data's; a network that was not told its own takes it over, and two that disagree are
    refused. Weights to be measured (``fresh_head=False``) that were kept with their preprocessing get pictures prepared
    by that, whatever the data's own is; only words of the command line win over it.

    Args:
        cfg: Composed config with ``data`` and ``model``.
        fresh_head: Whether a classifier for other classes than the checkpoint's may start at random (fine-tuning). If
            not, such a checkpoint is refused: its accuracy would be chance.

    Raises:
        ValueError: If an argument does not fit, or files are missing.
    """
    data = create_data(**options(cfg, "data")["data"])
    model: dict[str, Any] = options(cfg, "model")["model"]
    pretrained, given = model.pop("pretrained", False), model.pop("ema", None)
    ema: Any = "auto" if given is None else given
    known = None if fresh_head else preprocessing_of_weights(pretrained)
    if known is not None:
        known = _with_words(known, data.preprocessing)
    kept = known or data.preprocessing
    if model.get("img_size") is None:
        model["img_size"] = kept.size
    if model.get("num_classes") not in (None, data.num_classes):
        raise UserError(
            f"model.num_classes={written(model['num_classes'])}, but data={data.name} has {data.num_classes} classes: "
            "leave model.num_classes out"
        )
    stored = None
    if isinstance(pretrained, str) and pretrained:
        with named_below("model.", ["ema"]):
            stored = read_weights(pretrained, ema)
    classes = classes_of(stored) if stored is not None else 1000 if pretrained is True else None
    if classes not in (None, data.num_classes) and not fresh_head:
        raise UserError(
            f"model.pretrained={written(pretrained)} tells {classes} classes apart and data={data.name} has "
            f"{data.num_classes}: evaluate on the classes it was trained on, or fine-tune it on these first, "
            f"tnt-vit train model.pretrained={'true' if pretrained is True else pretrained} data={data.name}"
        )
    network = build_model(
        {**model, "pretrained": pretrained if stored is None else False},
        num_classes=data.num_classes,
        in_chans=kept.channels,
    )
    if stored is not None:
        load_checkpoint(network, stored, strict_head=not fresh_head)
    if known is not None:
        data.use(known)
    if network.img_size != kept.size and not network.dynamic_img_size:
        raise UserError(
            f"model.img_size={model['img_size']} and data.image_size={kept.size[0]} differ; "
            f"give data.image_size={network.img_size[0]} or leave model.img_size out"
        )
    return data, network


def _with_words(known: Preprocessing, asked: Preprocessing) -> Preprocessing:
    """What weights expect of pictures, except for what the command line asks for by name."""
    fields = {"image_size": ["size"], "in_chans": ["mean", "std"], **{key: [key] for key in PICTURE_KEYS[2:]}}
    given = [word.removeprefix("data.") for word in given_words() if word.startswith("data.")]
    changed = {field for key in given for field in fields.get(key, [])}
    return dataclasses.replace(known, **{field: getattr(asked, field) for field in changed})


def set_up(cfg: Any) -> torch.device:
    """Set threads and seed of a command, and find its device."""
    set_threads(cfg.get("threads"))
    seed_everything(cfg.get("seed", 0))
    return resolve_device(cfg.get("device", "auto"))
