"""Overlap of words, whatever their order: F1 as question answering has it since SQuAD."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

__all__ = ["Segmenter", "bag_f1", "characters_f1", "plain_chinese", "plain_english", "segmented_f1", "word_f1"]

Segmenter = Callable[[str], Sequence[str]]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# What both benchmarks leave out of Chinese answers, beside ASCII: full-width forms, CJK brackets and quotes, dashes.
_CHINESE = (
    "\uff01\uff1f\uff61\u3002\uff02\uff03\uff04\uff05\uff06\uff07\uff08\uff09\uff0a\uff0b\uff0c\uff0d\uff0f\uff1a\uff1b"
    "\uff1c\uff1d\uff1e\uff20\uff3b\uff3c\uff3d\uff3e\uff3f\uff40\uff5b\uff5c\uff5d\uff5e\uff5f\uff60\uff62\uff63\uff64"
    "\u3001\u3003\u300b\u300c\u300d\u300e\u300f\u3010\u3011\u3014\u3015\u3016\u3017\u3018\u3019\u301a\u301b\u301c\u301d"
    "\u301e\u301f\u3030\u303e\u303f\u2013\u2014\u2018\u2019\u201b\u201c\u201d\u201e\u201f\u2026\u2027\ufe4f."
)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_CHINESE = str.maketrans("", "", string.punctuation + _CHINESE)


def plain_english(text: str) -> str:
    """Lower case, without ASCII punctuation, then without articles, single spaces between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def plain_chinese(text: str) -> str:
    """Lower case, without punctuation of either kind and without any white space."""
    return "".join(text.lower().translate(_NO_CHINESE).split())


def bag_f1(answer: Sequence[str], wanted: Sequence[str]) -> float:
    """Harmonic mean of the shares of either list's items that the other holds too, counted with repetition."""
    same = sum((Counter(answer) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(answer), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def word_f1(answer: str, wanted: str) -> float:
    """F1 of the words of two English texts.

    Example:
        >>> word_f1("The red fox!", "a red dog")
        0.5
    """
    return bag_f1(plain_english(answer).split(), plain_english(wanted).split())


def characters_f1(answer: str, wanted: str) -> float:
    """F1 of the characters of two Chinese texts (InfiniteBench)."""
    return bag_f1(plain_chinese(answer), plain_chinese(wanted))


def segmented_f1(answer: str, wanted: str, segment: Segmenter) -> float:
    """F1 of the words of two Chinese texts (LongBench).

    Args:
        answer: What was said.
        wanted: What is right.
        segment: Cuts a text into words.
    """
    parts = ([plain_chinese(word) for word in segment(text)] for text in (answer, wanted))
    said, right = ([word for word in words if word] for words in parts)
    return bag_f1(said, right)
