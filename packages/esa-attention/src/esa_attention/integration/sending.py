"""A model for workers: the model itself where it was made here, or what loads it from its files."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from effkit.errors import UserError
from esa_attention.compression.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Remake", "packed", "unpacked"]

Remake = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]
"""A function at the top of a module, and what to call it with: gives the model again."""


def packed(model: PreTrainedModel, remake: Remake | None = None) -> bytes:
    """A model as bytes.

    Args:
        model: The model, as no integration has changed it.
        remake: Loads it again, e.g. from a folder that all workers see; without it the weights are sent.

    Raises:
        UserError: If the model cannot be sent.
    """
    try:
        return pickle.dumps((None if remake else model, remake, fingerprint(model)), pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise UserError(f"the model cannot be sent to workers: {error}; take executor=serial") from error


@functools.lru_cache(maxsize=1)
def unpacked(content: bytes) -> PreTrainedModel:
    """The model again, loaded once a process.

    Raises:
        UserError: If what was loaded is another model than the one that was packed.
    """
    model, remake, expected = pickle.loads(content)
    if remake is not None:
        function, args, kwargs = remake
        model = function(*args, **kwargs)
        if fingerprint(model) != expected:
            raise UserError(f"a worker loaded another model than this process did, from {args} {dict(kwargs)}")
    return model
