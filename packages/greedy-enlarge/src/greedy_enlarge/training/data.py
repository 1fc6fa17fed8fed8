"""Data for a search, at a network's picture side and channels."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from effkit.data import DATASETS, DataModule, create_data, data_arguments
from effkit.errors import UserError, choose
from greedy_enlarge.spec import ArchSpec

__all__ = ["open_data"]


@functools.lru_cache(maxsize=8)
def _opened(options: str, resolution: int, in_chans: int | None) -> DataModule:
    """Pictures are cut and resized once a process and size."""
    grey: dict[str, Any] = {} if in_chans is None else {"in_chans": in_chans}
    return create_data(**json.loads(options), image_size=resolution, **grey)


def open_data(options: Mapping[str, Any], spec: ArchSpec, seed: int) -> DataModule:
    """Open the data set at a network's picture side and channels.

    Args:
        options: The group ``data`` of a config.
        spec: The network.
        seed: Of the order of the training pictures.

    Raises:
        UserError: If the network has other classes or channels, or an option does not fit.
    """
    given = {k: v for k, v in options.items() if k not in ("image_size", "in_chans", "seed")}
    kind = DATASETS[choose("data.name", str(given.get("name")), DATASETS)]
    channels = spec.in_chans if "in_chans" in data_arguments(kind) else None  # others have colours, always
    data = _opened(json.dumps(given, sort_keys=True), spec.resolution, channels)
    data.seed = seed
    sizes = (("classes", spec.classes, data.num_classes), ("channels", spec.in_chans, data.in_chans))
    for what, asked, there in sizes:
        if asked != there:
            raise UserError(f"spec has {asked} {what}, but data={data.name} has {there}: give spec as many")
    return data
