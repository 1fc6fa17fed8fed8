"""What a file of weights says about the pictures it was trained on, also one of ours from before that was kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from effkit.data.facts import known_preprocessing
from effkit.data.preprocessing import Preprocessing
from effkit.runs import preprocessing_of

__all__ = ["earlier", "preprocessing_of_weights"]


def earlier(data: Mapping[str, Any]) -> Preprocessing:
    """What a run did that kept no preprocessing: its training took 0.5 where the config had no mean or deviation.

    Args:
        data: The run's ``data`` config.

    Raises:
        ValueError: If its data set is not known.
    """
    half = {key: 0.5 for key in ("mean", "std") if data.get(key) is None}
    return known_preprocessing({**data, **half})


def preprocessing_of_weights(pretrained: bool | str | os.PathLike[str] | None) -> Preprocessing | None:
    """What weights expect of pictures.

    Args:
        pretrained: As given to ``create_model``.

    Returns:
        The preprocessing, or ``None``: then it is the variant's own.

    Raises:
        ValueError: If it was kept but is damaged.
    """
    if pretrained is None or isinstance(pretrained, bool):
        return None
    return preprocessing_of(os.fspath(pretrained), earlier)
