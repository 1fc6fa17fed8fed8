"""Larger real data that some evidence uses where it is at hand; nothing depends on it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["data_at_hand"]


def data_at_hand(*parts: str) -> Path | None:
    """A file or folder of real data: in ``EFFKIT_DATA``, or in a ``shared/data`` beside or above this checkout.

    Args:
        *parts: Below that folder, e.g. ``"cifar10", "cifar10-jpeg.tar.xz"``.

    Returns:
        Where it is; ``None`` if it is not there.
    """
    named = os.environ.get("EFFKIT_DATA")
    roots = [Path(named)] if named else [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
    return next((root.joinpath(*parts) for root in roots if root.joinpath(*parts).exists()), None)
