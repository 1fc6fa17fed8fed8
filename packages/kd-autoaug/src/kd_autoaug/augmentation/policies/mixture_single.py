"""AugMix on one Pillow picture: :func:`~.mixture.mixed` with numpy in torch's place, rounding by rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from kd_autoaug.augmentation.policies.mixture import LONGEST, STREAM, Mixture
from kd_autoaug.augmentation.rng_single import picture_words

__all__ = ["Shares", "mixed_picture", "shares_of"]

Shares = tuple[float, list[float], list[int]]


def shares_of(mixture: Mixture, seed: int, index: int, view: int) -> Shares:
    """Share of the mixed picture, weights of the chains, and how many operators each of them has."""
    width = mixture.width
    evens, odds = picture_words(seed, index, view, (STREAM,), -(-2 * width // 4))
    words = [word for n in range(0, len(evens), 2) for word in (*evens[n : n + 2], *odds[n : n + 2])]
    cuts = sorted(word * 2.0**-32 for word in words[1:width])
    weights = [after - before for before, after in pairwise([0.0, *cuts, 1.0])]
    lengths = [mixture.depth or 1 + (word * LONGEST >> 32) for word in words[width : 2 * width]]
    return words[0] * 2.0**-32, weights, lengths


def mixed_picture(
    image: Image.Image, chains: Sequence[Any], shares: Shares, run: Callable[[Image.Image, Any], Image.Image]
) -> Image.Image:
    """Mix the chains of a picture.

    Args:
        image: Of mode L or RGB.
        chains: What each of them does, for ``run``.
        shares: From :func:`shares_of`.
        run: Applies a chain to the picture.

    Returns:
        A new picture.
    """
    share, weights, _ = shares
    given = np.asarray(image).astype(np.float32)
    total = np.zeros_like(given)
    for weight, chain in zip(weights, chains, strict=True):
        total += np.float32(weight) * np.asarray(run(image, chain)).astype(np.float32)
    whole = total.clip(0, 255).astype(np.uint8).astype(np.float32)
    whole -= given
    whole *= np.float32(share)
    whole += given
    return Image.fromarray(whole.clip(0, 255).astype(np.uint8))
