"""Real data that some tests use where it is at hand; they skip where it is not."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from effkit.data.at_hand import data_at_hand

__all__ = ["shared_data", "unpack_cifar10"]

CLASSES, SPLITS = 10, ("train", "test")


def shared_data(*parts: str) -> Path:
    """A file or folder of real data: in ``EFFKIT_DATA``, or in a ``shared/data`` beside or above this checkout.

    The running test is skipped where there is none.

    Args:
        *parts: Below that folder, e.g. ``"cifar10", "cifar10-jpeg.tar.xz"``.
    """
    found = data_at_hand(*parts)
    if found is None:
        pytest.skip(f"{'/'.join(parts)} is not here; EFFKIT_DATA names the folder that has it")
    return found


def unpack_cifar10(folder: Path, per_class: int) -> Path:
    """Unpack the first pictures of each class and split, as ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``.

    Args:
        folder: Gets the pictures.
        per_class: How many of each class and split.

    Returns:
        The folder for ``data=cifar10_jpeg data.root=``.
    """
    archive = shared_data("cifar10", "cifar10-jpeg.tar.xz")
    places, taken = CLASSES * len(SPLITS), dict[str, int]()
    with tarfile.open(archive) as tar:
        for member in tar:
            parent = str(Path(member.name).parent)
            if member.isfile() and taken.get(parent, 0) < per_class:
                taken[parent] = taken.get(parent, 0) + 1
                tar.extract(member, folder, filter="data")
            if len(taken) == places and min(taken.values()) == per_class:
                break
    assert len(taken) == places
    return folder / "cifar10"
