"""Labelled pictures in three parts: to train on, to choose by, and to judge by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Splits", "digits_splits"]


class Splits(NamedTuple):
    """Three disjoint parts, each (pictures (N, C, H, W), labels (N,))."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def digits_splits(seed: int = 0) -> Splits:
    """scikit-learn's digits, 899 to train on, 449 to choose by, 449 to judge by; each with all classes in proportion.

    Args:
        seed: Of the split; figures of different splits are not to be compared.

    Returns:
        Grey pictures (N, 1, 8, 8) from -1 to 1.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    train, rest = train_test_split(range(len(data.target)), train_size=899, stratify=data.target, random_state=seed)
    val, test = train_test_split(rest, train_size=449, stratify=data.target[rest], random_state=seed)
    pictures, labels = torch.from_numpy(data.images).float()[:, None] / 8 - 1, torch.from_numpy(data.target).long()
    parts = [(pictures[p], labels[p]) for p in (sorted(train), sorted(val), sorted(test))]
    return Splits(*parts)
