"""Pictures for stand-alone trainings, as tensors in three parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from effkit.data.selection import SelectionData, plain_pictures
from effkit.errors import UserError, choose, written
from ws_nas.evaluation.splits import Splits, digits_splits
from ws_nas.spaces.space import Layout
from ws_nas.training.pictures import labelled, open_data

__all__ = ["calibration_pictures", "make_splits", "splits_name"]

_BATCH = 512
LARGEST = 2**30  # bytes of pictures that are kept in memory
PARTS = ("auto", "fixed", "held_out")
# What the fixed parts have no use for, unless it says nothing.
_PLAIN = {"mean": None, "std": None, "augment": "none", "train_size": None, "limit": None, "repeats": 1}


def splits_name(options: Mapping[str, Any]) -> str:
    """What columns of a table call the data."""
    return str(options["data"]["name"]).replace("_", "")


def make_splits(options: Mapping[str, Any], layout: Layout) -> Splits:
    """The pictures that a config names, at the size of a space's networks.

    Args:
        options: ``data``, ``parts``, ``split_seed``, and ``held_out``. Digits at 8 x 8 have three ``fixed`` parts, 899,
            449 and 449; of other data, and other sizes, training pictures are ``held_out`` to choose by.
        layout: What the networks take and give.

    Raises:
        UserError: If the data does not fit the networks, or into memory.
    """
    parts, given = choose("parts", options["parts"], PARTS), options["data"]
    small = given["name"] == "digits" and layout == Layout(1, 8, 10)
    if parts == "fixed" and not small:
        raise UserError(f"parts=fixed is of digits at 8 x 8, not of data={given['name']} and {tuple(layout)}")
    if small and parts != "held_out":
        for key, value in _PLAIN.items():
            if given[key] != value:
                raise UserError(
                    f"data.{key}={written(given[key])} changes nothing in the fixed parts of 8 x 8 digits: "
                    "set parts=held_out"
                )
        return digits_splits(options["split_seed"])
    data = open_data(options["data"], layout)
    data.setup("fit")
    chosen = SelectionData(data, options["held_out"])
    count = len(chosen.train) + len(chosen.val)
    needed = 4 * count * layout.in_channels * layout.resolution**2
    if needed > LARGEST:
        raise UserError(
            f"data={data.name} takes {needed / 2**30:.1f} GiB as tensors, more than {LARGEST / 2**30:.0f}: "
            "stand-alone trainings keep their pictures in memory; set data.limit"
        )
    found = []
    for part in (chosen.train, chosen.val, data.split("test")):
        batches = labelled(part, None, _BATCH, data)
        found.append((torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])))
    return Splits(*found)


def calibration_pictures(data: SelectionData, count: int) -> list[Tensor]:
    """Training pictures to re-estimate statistics on, evenly spread and normalised.

    Args:
        data: The data of a training.
        count: How many at most.

    Raises:
        UserError: If that is less than two.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise UserError(f"calibration={written(count)} must be a whole number of at least 2")
    pictures = plain_pictures(data.train, data.data)
    return [x for x, _ in labelled(pictures, min(count, len(pictures)), _BATCH, data.data)]
