"""The teacher's accuracy on clean pictures, said before work that believes its answers begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from effkit.errors import UserError
from kd_autoaug.distillation.chance import CleanAccuracy, clean_accuracy
from kd_autoaug.training.data import ViewData

__all__ = ["check_knowing"]


def check_knowing(
    cfg: Mapping[str, Any], data: ViewData, teacher: Any, device: torch.device | None = None
) -> CleanAccuracy:
    """Say how often the teacher is right about training pictures as they are; refuse one that only guesses.

    Args:
        cfg: Composed config; ``guessing_teacher=true`` accepts one.
        data: The pictures.
        teacher: Who will be asked.
        device: Where.

    Raises:
        UserError: If its accuracy is that of chance and nobody said that this is meant.
    """
    found = clean_accuracy(teacher, lambda index: data.pictures("train", index), data.labels("train"), device=device)
    if not found.at_chance:
        logging.getLogger(__name__).info(str(found))
    elif cfg.get("guessing_teacher"):
        logging.getLogger(__name__).warning(f"{found}; guessing_teacher=true goes on with it")
    else:
        raise UserError(
            f"{found}: other weights, classes in another order, or another normalisation or size than the teacher was "
            "trained with; guessing_teacher=true asks it all the same"
        )
    return found
