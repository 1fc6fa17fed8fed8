"""What a model sees in pictures: the most likely classes of each file, with their probabilities."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkit.arguments import check_arguments
from effkit.data import Preprocessing, Unreadable, find_pictures
from effkit.data import class_names as names_of
from effkit.device import autocast, resolve_precision
from effkit.errors import UserError
from effkit.report import Report, Table
from tnt_vit.checkpoints.origin import RANDOM, weights_note
from tnt_vit.commands.build import set_up
from tnt_vit.commands.known import preprocessing_of_weights
from tnt_vit.commands.opened import open_network
from tnt_vit.commands.options import options
from tnt_vit.inference.preprocessing import preprocessing as expected

__all__ = ["predict_report", "probabilities", "run"]


def _device(model: nn.Module) -> torch.device:
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))  # an exported file has none


@torch.inference_mode()
def probabilities(model: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Class probabilities ``(B, classes)`` in float32 of preprocessed pictures ``(B, C, H, W)``.

    Args:
        model: The network; its weights keep their type.
        x: The pictures.
        dtype: Type of the matrix products (autocast).
    """
    was_training = model.training
    model.eval()
    device = _device(model)
    try:
        with autocast(device, dtype):
            logits = model(x.to(device))
        return logits.float().softmax(dim=-1).cpu()
    finally:
        model.train(was_training)


def predict_report(
    model: nn.Module,
    paths: Sequence[str | os.PathLike[str]],
    class_names: Sequence[str] | str | None = None,
    topk: int = 5,
    *,
    batch_size: int = 16,
    pretrained: bool | str | os.PathLike[str] | None = None,
    crop_pct: float | None = None,
    preprocessing: Preprocessing | None = None,
    precision: str = "fp32",
) -> Report:
    """Classify picture files.

    Args:
        model: A TNT with a classifier, on any device.
        paths: Files, folders, or names of bundled photographs.
        class_names: See :func:`effkit.data.class_names`; the default asks the run that trained the model.
        topk: How many classes to list; a model with fewer lists all of its own.
        batch_size: Pictures that run together.
        pretrained: What the weights are, as given to ``create_model``; ``None`` finds out whether they are
            trained. A path in a run of ours also tells class names and normalisation.
        crop_pct: Kept part of the resized picture; the default is the model's own.
        preprocessing: What the model expects of pictures; by default what ``pretrained`` tells, else the variant's.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``: type of the matrix products.

    Returns:
        A table of picture, rank, class and probability, and the same under ``data["pictures"]``. Pictures that cannot
        be read are left out and named, see :class:`effkit.data.Unreadable`; the exit code is 1 then.

    Raises:
        FileNotFoundError: If a file is missing; nothing has run then.
        ValueError: If an argument cannot be used, or none of the files.
    """
    given = {"topk": topk, "batch_size": batch_size, "class_names": class_names, "crop_pct": crop_pct}
    check_arguments(predict_report, given)
    for name, value in (("topk", topk), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name}={value} must be a whole number of at least 1")
    dtype = resolve_precision(precision, _device(model))
    num_classes = int(model.num_classes)  # type: ignore[arg-type]
    if num_classes < 1:
        raise UserError(
            "the model has no classifier (num_classes=0); build it with the number of classes of its weights"
        )
    files = find_pictures(paths)
    known = preprocessing or preprocessing_of_weights(pretrained)
    prepare = expected(model, known=known, crop_pct=crop_pct)
    names = names_of(num_classes, class_names, prepare.class_names)

    rows, pictures, unreadable = [], [], Unreadable()
    for start in range(0, len(files), batch_size):
        batch = unreadable.read(files[start : start + batch_size], prepare.picture)
        if not batch:
            continue
        x = prepare.normalize(torch.stack([pixels for _, pixels in batch]))
        top = probabilities(model, x, dtype).topk(min(topk, num_classes))
        for (file, _), values, indices in zip(batch, top.values.tolist(), top.indices.tolist(), strict=True):
            ranked = list(zip(indices, values, strict=True))
            rows += [
                [file if rank == 1 else None, rank, names[i], round(100 * p, 2)]
                for rank, (i, p) in enumerate(ranked, 1)
            ]
            pictures.append(
                {"file": file, "top": [{"class": i, "name": names[i], "probability": p} for i, p in ranked]}
            )
    unreadable.check()
    note = weights_note(model, pretrained)
    lines = unreadable.lines()
    if note == RANDOM:
        lines.append(
            "WARNING: random weights, these names mean nothing; give model.pretrained=PATH (true: the published ones)"
        )
    table = Table(f"Most likely classes ({note})", ["picture", "rank", "class", "probability, %"], rows)
    random = note == RANDOM
    data = {"pictures": pictures, "unreadable": unreadable.reasons, "weights": note, "random_weights": random}
    return Report("tnt-vit predict", [table], data=data, lines=lines, exit_code=unreadable.exit_code)


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit predict`` does.

    Args:
        cfg: The composed config.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If an argument or a file cannot be used.
    """
    device = set_up(cfg)
    found = open_network(cfg)
    asked = options(cfg, "images", "class_names", "topk", "batch_size", "crop_pct", "precision")
    asked |= {"pretrained": found.weights, "preprocessing": found.preprocessing}
    return predict_report(found.model.to(device), asked.pop("images"), **asked)
