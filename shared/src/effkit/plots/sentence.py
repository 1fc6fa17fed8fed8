"""What a picture shows, in words: said where it is drawn, kept inside its file, read out where it is shown.

A PNG file has a place for it, the keyword "Description" (PNG specification, 11.3.3.2), so the words go wherever the
file goes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DESCRIPTION", "describe", "description_of", "joined", "read_description"]

DESCRIPTION = "Description"
_FEWEST_WORDS = 5
_said: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()


def describe(fig: Figure, sentence: str) -> None:
    """Say what a figure shows, for people who do not see it; `save_png` refuses a figure that says nothing.

    Args:
        fig: The figure.
        sentence: What kind of picture it is, of what, and what is seen in it: with the figures a reader would take
            from it, and not only the name of the plot. At least five words, on one line, ending with a full stop.

    Raises:
        ValueError: If that is no sentence.
    """
    words = sentence.split()
    if len(words) < _FEWEST_WORDS or not words[-1].endswith("."):
        raise ValueError(f"a picture's description must be a sentence with its full stop, got {sentence!r}")
    _said[fig] = " ".join(words)  # names in it may hold line breaks


def description_of(fig: Figure) -> str:
    """What `describe` was told of a figure.

    Raises:
        ValueError: If nothing was.
    """
    if fig not in _said:
        raise ValueError("a picture must say in a sentence what is seen: call effkit.plots.describe(fig, ...) first")
    return _said[fig]


def read_description(path: str | os.PathLike[str]) -> str:
    """The sentence inside a PNG file; "" if it holds none.

    Raises:
        OSError: If there is no such picture.
    """
    from PIL import Image

    with Image.open(path) as picture:
        return str(picture.info.get(DESCRIPTION, ""))


def joined(parts: Sequence[str], most: int = 6) -> str:
    """Parts of a sentence as people say them: "a, b and c"; of many the first, and how many more there are.

    Example:
        >>> joined(["ESA 2.1", "sinks 2.4", "full attention 2.0"])
        'ESA 2.1, sinks 2.4 and full attention 2.0'
        >>> joined(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
    """
    shown = list(parts) if len(parts) <= most else [*parts[:most], f"{len(parts) - most} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))
