"""The augmentation of one picture that comes alone: crop, flip, policy and cutout, by plain numbers and Pillow.

Pixels are those of :class:`~kd_autoaug.augmentation.augment.BatchAugment` on a batch; :func:`takes` says for which
augmentations and pictures that is known.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kd_autoaug.augmentation import rng
from kd_autoaug.augmentation.augment import ACROSS, DOWN, FLIP, LEFT, TOP, BatchAugment
from kd_autoaug.augmentation.policies.mixture_single import mixed_picture, shares_of
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.augmentation.policies.sampling_single import Words
from kd_autoaug.augmentation.rng_single import picture_words
from kd_autoaug.ops.single import Step, apply_steps, cut_out, from_picture, ink, to_picture

__all__ = ["augment_alone", "takes"]

_BACKENDS = ("auto", "pil")
_FLIPPED = Image.Transpose.FLIP_LEFT_RIGHT


def takes(augment: BatchAugment, picture: Any) -> bool:
    """Whether a picture can be augmented alone: bytes on a CPU, and nothing about the augmentation is foreign.

    Backends asked for by name are left to the batch, and so is whatever it refuses.

    Args:
        augment: What is to be applied.
        picture: A Pillow picture, or a tensor.
    """
    policy = augment.policy
    if augment.backend not in _BACKENDS or type(augment) is not BatchAugment:
        return False
    if policy is not None and type(policy).sample is not Policy.sample:
        return False
    if isinstance(picture, Image.Image):
        return picture.mode in ("L", "RGB") and min(picture.size) > 0
    return (
        picture.dtype is torch.uint8
        and picture.ndim == 3
        and picture.shape[0] in (1, 3)
        and min(picture.shape) > 0
        and picture.device.type == "cpu"
    )


def augment_alone(augment: BatchAugment, picture: Any, index: int, view: int) -> Any:
    """Augment one picture.

    Args:
        augment: What is applied.
        picture: What :func:`takes` says yes to: a Pillow picture, or uint8 ``(C, H, W)``.
        index: The sample's number, 0 to 2^63 - 1.
        view: Which view of it, 0 to 2^32 - 1.

    Returns:
        The same kind of picture; a Pillow picture itself where nothing happens, of a tensor a copy.
    """
    planes = isinstance(picture, Tensor)
    size = (picture.shape[1], picture.shape[2]) if planes else (picture.height, picture.width)
    augment.look_at(size)
    policy, places = augment.policy, not augment.only_policy
    single = None if policy is None or not policy.num_layers else policy.single
    steps: list[Step] = []
    words: Words = (), ()
    if places or single is not None:
        streams = () if single is None else single.streams
        blocks = max(1 if single is None else single.blocks, 2 if augment.cutout else 1)
        words = picture_words(augment.seed, index, view, (rng.PLACEMENT, *streams) if places else streams, blocks)
        if single is not None and single.mixture is None:
            steps = single.steps(words, size, blocks, int(places))
    mixes = single is not None and single.mixture is not None
    if not (steps or places or mixes):
        return picture.clone() if planes else picture
    image = to_picture(picture) if planes else picture
    if places:
        image = _placed(augment, image, words)
    if policy is not None:
        change = partial(apply_steps, fill=policy.fill, cutout_fill=policy.cutout_fill)
        image = change(image, steps)
        if single is not None and single.mixture is not None:
            mixture = single.mixture
            shares = shares_of(mixture, augment.seed, index, view)
            chains = [
                single.steps(words, size, blocks, places + chain * mixture.longest, length)
                for chain, length in enumerate(shares[2])
            ]
            image = mixed_picture(image, chains, shares, change)
    if augment.cutout:
        image = _blanked(augment, image, words)
    return from_picture(image) if planes else image


def _word(words: Words, number: int) -> int:
    """A word of the first stream."""
    return words[number % 4 // 2][number // 4 * 2 + number % 2]


def _placed(augment: BatchAugment, image: Image.Image, words: Words) -> Image.Image:
    """Padded crop and flip."""
    pad = augment.padding
    if pad:
        left, top = (pad - (_word(words, k) * (2 * pad + 1) >> 32) for k in (LEFT, TOP))
        canvas = Image.new(image.mode, image.size, ink(image.mode, augment.padding_fill))
        if abs(left) < image.width and abs(top) < image.height:
            canvas.paste(image, (left, top))
        image = canvas
    return image.transpose(_FLIPPED) if _word(words, FLIP) < augment.hflip * 2.0**32 else image


def _blanked(augment: BatchAugment, image: Image.Image, words: Words) -> Image.Image:
    """The cutout after the policy."""
    side = augment.cutout
    left, top = ((_word(words, k) * n >> 32) - side // 2 for k, n in ((ACROSS, image.width), (DOWN, image.height)))
    return cut_out(image, (left, top, left + side, top + side), ink(image.mode, augment.cutout_fill))
