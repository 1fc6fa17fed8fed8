"""NeedleBench's contexts: needles put into a haystack at the token, as OpenCompass does (release with seeds, 2024)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

__all__ = ["apart", "at_depth", "at_depths", "haystack", "unique_needles"]

Encode = Callable[[str], list[int]]


def haystack(texts: Iterable[str], num_tokens: int, encode: Encode) -> list[int] | None:
    """The first so many tokens of texts, one behind the other; ``None`` if they hold fewer."""
    ids: list[int] = []
    for text in texts:
        if len(ids) >= num_tokens:
            break
        ids += encode(text)
    return ids[:num_tokens] if len(ids) >= num_tokens else None


def at_depth(hay: Sequence[int], needle: Sequence[int], depth: float) -> list[int]:
    """One needle; ``depth`` is in percent of the haystack."""
    place = int(len(hay) * (depth / 100))
    return [*hay[:place], *needle, *hay[place:]]


def at_depths(hay: Sequence[int], needles: Sequence[Sequence[int]], depths: Sequence[float]) -> list[int]:
    """A needle at each of several depths, in percent of the haystack."""
    ids, grown = list(hay), 0
    for needle, depth in zip(needles, depths, strict=True):
        place = min(int(len(hay) * (depth / 100)) + grown, len(ids))
        ids[place:place] = needle
        grown += len(needle)
    return ids


def apart(hay: Sequence[int], needles: Sequence[Sequence[int]], depth: float, gap: float) -> list[int]:
    """The first needle at a depth, each other a part of the haystack behind the one before; both in percent.

    Places are those of the published code, which counts the lengths of earlier needles twice.

    Args:
        hay: The haystack.
        needles: In the order in which they stand.
        depth: Of the first.
        gap: Between two.
    """
    places: list[int] = []
    for i in range(len(needles)):
        place = int(places[-1] + len(needles[i - 1]) + len(hay) * (gap / 100)) if i else int(len(hay) * (depth / 100))
        places.append(min(place, len(hay) + sum(map(len, needles[:i]))))
    ids = list(hay)
    for i, needle in enumerate(needles):
        place = places[i] + sum(map(len, needles[:i]))
        ids[place:place] = needle
    return ids


def unique_needles(needles: Sequence[dict[str, str]], count: int, seed: int) -> list[dict[str, str]]:
    """So many needles in a random order, no two with the same subject or the same key word.

    The published code draws them without a seed; ours are the same for the same seed.

    Args:
        needles: With ``arg1`` (the subject) and ``arg2`` (the key word).
        count: How many; fewer if there are no more.
        seed: Of the order.
    """
    order = list(needles)
    random.Random(seed).shuffle(order)
    found: list[dict[str, str]] = []
    for needle in order:
        if len(found) == count:
            break
        if all(needle["arg1"] != other["arg1"] and needle["arg2"] != other["arg2"] for other in found):
            found.append(needle)
    return found
