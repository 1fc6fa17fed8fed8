"""Pictures that cannot be read, found before training instead of in the middle of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from effkit.data.pictures import UnreadablePicture
from effkit.errors import UserError

__all__ = ["leave_out"]

SHOWN = 3  # names in the one line; all of them are in the module's `unreadable`


class _Reasons(Dataset):
    """Why each file cannot be read; empty where it can."""

    def __init__(self, paths: Sequence[str], read: Callable[[str], Any]) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> str:
        try:
            self.read(self.paths[index])
        except (UnreadablePicture, OSError) as error:
            return str(error)
        return ""


def leave_out(
    samples: Sequence[tuple[str, int]],
    read: Callable[[str], Any],
    found: dict[str, str],
    num_workers: int,
    classes: Sequence[str],
) -> list[tuple[str, int]]:
    """Read every picture once and return those that can be read; the others are counted and named in one line.

    Args:
        samples: Paths and labels.
        read: The reader.
        found: Gets the reason by path of each one left out.
        num_workers: Processes that read.
        classes: Names of the classes, each of which must keep a picture.

    Raises:
        UserError: If a class has no readable picture.
    """
    paths = [path for path, _ in samples]
    own = torch.Generator().manual_seed(0)  # or the loader would draw a seed from the global generator
    reasons: Any = DataLoader(_Reasons(paths, read), batch_size=None, num_workers=num_workers, generator=own)
    bad = {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}
    kept = [(path, label) for path, label in samples if path not in bad]
    if missing := sorted(set(range(len(classes))) - {label for _, label in kept}):
        raise UserError(f"no picture of the class {classes[missing[0]]} can be read: {next(iter(bad.values()))}")
    if new := {path: reason for path, reason in bad.items() if path not in found}:
        _say(list(new.values()), len(paths))
    found.update(bad)
    return kept


@rank_zero_only
def _say(reasons: Sequence[str], total: int) -> None:
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    logging.getLogger(__name__).warning(
        "data.skip_unreadable=true leaves out %d of %d pictures: %s%s",
        len(reasons),
        total,
        "; ".join(reasons[:SHOWN]),
        more,
    )
