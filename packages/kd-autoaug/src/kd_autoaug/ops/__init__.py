"""The operators of automatic augmentation on uint8 batches, per-sample arguments, with Pillow's exact bits.

>>> import torch
>>> from kd_autoaug import ops
>>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
>>> ops.rotate(images, torch.tensor([0.0, 10.0, -30.0, 90.0]), fill=128, interpolation="bilinear").shape
torch.Size([4, 3, 32, 32])
"""

from kd_autoaug.ops.dispatch import BACKENDS, apply
from kd_autoaug.ops.functions import (
    autocontrast,
    brightness,
    color,
    contrast,
    cutout,
    equalize,
    gaussian_blur,
    identity,
    invert,
    posterize,
    rotate,
    sharpness,
    shear_x,
    shear_y,
    solarize,
    solarize_add,
    translate_x,
    translate_y,
)
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import ARGUMENTS, BICUBIC, BILINEAR, INTERPOLATIONS, NEAREST, Op, operator

__all__ = [
    "ARGUMENTS",
    "BACKENDS",
    "BICUBIC",
    "BILINEAR",
    "INTERPOLATIONS",
    "NEAREST",
    "Layer",
    "Op",
    "apply",
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "cutout",
    "equalize",
    "gaussian_blur",
    "identity",
    "invert",
    "operator",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "solarize_add",
    "translate_x",
    "translate_y",
]
