"""What a network of timm's expects of pictures, as its configuration says."""

from __future__ import annotations

from typing import Any

from effkit.data.preprocessing import Preprocessing

__all__ = ["preprocessing_of_timm"]


def preprocessing_of_timm(model: Any, size: int | tuple[int, int] | None = None) -> Preprocessing:
    """Size, crop and normalisation.

    Args:
        model: A model of timm's; of another one timm's defaults are taken (ImageNet's normalisation, 224 pixels).
        size: Picture size; the model's own if not given.
    """
    from timm.data import resolve_data_config

    cfg = resolve_data_config({}, model=model)
    _, height, width = cfg["input_size"]
    own = getattr(getattr(model, "patch_embed", None), "img_size", None) or (height, width)
    pair = (size, size) if isinstance(size, int) else size or own
    return Preprocessing(
        size=(int(pair[0]), int(pair[1])),
        crop_pct=cfg["crop_pct"],
        interpolation=cfg["interpolation"],
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
    )
