"""What a TNT expects of pictures where no run says it: timm's evaluation, with a mean and deviation of 0.5.

Those are the constants of the published weights, and not ImageNet's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError
from tnt_vit.checkpoints.zoo import default_cfgs, registered_name

__all__ = ["preprocessing"]


def preprocessing(
    model: nn.Module,
    *,
    known: Preprocessing | None = None,
    img_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
) -> Preprocessing:
    """Preprocessing that a model was made for.

    Args:
        model: A TNT; one that was not built by name is taken to be normalised as the published ones.
        known: That of the run that trained the model, of an exported file...; it wins over the variant's.
        img_size: Another picture size than the model's own.
        crop_pct: Another crop; 1.0 keeps all of a square picture.

    Raises:
        ValueError: If ``crop_pct`` is out of range, or the model reads no photographs, or others than are ``known``.
    """
    size: Any = img_size if img_size is not None else model.img_size
    chans = int(model.in_chans)  # type: ignore[arg-type]
    if chans not in (1, 3):
        raise UserError(f"pictures have 3 channels (or 1 when grey), the model has in_chans={chans}")
    if known is None:
        of_variant = getattr(model, "pretrained_cfg", None)
        cfg: Any = of_variant or default_cfgs[registered_name("tnt_s_patch16_224")].default.to_dict()
        mean, std = tuple(cfg["mean"][:chans]), tuple(cfg["std"][:chans])
        known = Preprocessing(size, cfg["crop_pct"], cfg["interpolation"], mean, std)
    elif known.channels != chans:
        raise UserError(f"the model has in_chans={chans}, the pictures it was trained on {known.channels} channels")
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise UserError(f"crop_pct={crop_pct!r} must be above 0 and at most 1")
    return dataclasses.replace(known, size=size, crop_pct=known.crop_pct if crop_pct is None else crop_pct)
