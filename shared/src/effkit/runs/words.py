"""Words of the command line that a run, or a file, already says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effkit.errors import UserError

__all__ = ["PICTURE_KEYS", "given_words", "refuse_words"]

PICTURE_KEYS = ("image_size", "in_chans", "crop_pct", "interpolation", "mean", "std")
"""Keys of the group ``data`` that a network's preprocessing decides."""


def given_words() -> dict[str, Any]:
    """What was given on the command line of the running command: value by key (or group), without defaults."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not HydraConfig.initialized():
        return {}
    parsed = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return {o.key_or_group: None if o.is_delete() else o.value() for o in parsed}


def refuse_words(source: str, given: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Refuse words that say again what a run or a file says.

    Args:
        source: It, for the message: ``run='runs/first'``.
        given: Value by key, as :func:`given_words` returns it.
        keys: Groups and keys that it decides; what lies below a group is meant too.

    Raises:
        UserError: If one of them was given.
    """
    for word in given:
        if any(word == key or word.startswith(f"{key}.") for key in keys):
            raise UserError(f"{source} says what {word} is: leave {word}=... out")
