"""NeedleBench's scores (OpenCompass): key words found, and a fifth of how alike the sentence is where none is."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["edit_distance", "key_word_or_alike", "key_words_share", "words_of_answer_share"]

_WITHOUT_KEY_WORD = 0.2


def edit_distance(first: str, second: str) -> int:
    """Fewest insertions, deletions and replacements of a character that make one text of the other.

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    if len(first) < len(second):
        first, second = second, first
    above = list(range(len(second) + 1))
    for i, character in enumerate(first, 1):
        row = [i]
        for j, other in enumerate(second):
            row.append(min(above[j + 1] + 1, row[j] + 1, above[j] + (character != other)))
        above = row
    return above[-1]


def key_word_or_alike(answer: str, needle: str, key_word: str) -> float:
    """Single retrieval: 1 if the key word occurs, else a fifth of one minus the relative edit distance.

    Args:
        answer: What was said.
        needle: The sentence that was hidden; compared without white space.
        key_word: What the question asks for.
    """
    if key_word in answer:
        return 1.0
    said, right = (re.sub(r"\s+", "", text) for text in (answer, needle))
    longest = max(len(said), len(right))
    return _WITHOUT_KEY_WORD * (1 - edit_distance(said, right) / longest if longest else 1.0)


def key_words_share(answer: str, key_words: Sequence[str]) -> float:
    """Multiple retrieval: share of the key words that occur."""
    return sum(word in answer for word in key_words) / len(key_words)


def words_of_answer_share(answer: str, wanted: str) -> float:
    """Multiple reasoning: share of the words of the right answer that occur, in any case of letters."""
    words, said = wanted.lower().split(), answer.lower()
    return sum(word in said for word in words) / len(words) if words else 0.0
