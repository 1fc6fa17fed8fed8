"""ROUGE-L of two summaries, in the two forms that the benchmarks use; they are not the same number.

LongBench calls the package `rouge`, InfiniteBench `rouge-score` through Hugging Face's `evaluate`. Both follow section
3.2 of Lin 2004: the longest common subsequence of a wanted sentence with every sentence of the answer, united. What a
sentence and a word is, and what is counted, differs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

__all__ = ["rouge_l", "rouge_lsum"]

_SMALL = 1e-8  # in the denominator of the package `rouge`
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")


def rouge_l(answer: str, wanted: str) -> float:
    """ROUGE-L as of the package `rouge` 1.0: sentences end at full stops, words are counted once, case matters.

    Where that package raises, LongBench counts 0: a text without any sentence.

    Args:
        answer: What was said.
        wanted: What is right.

    Returns:
        The F measure, 0 to 1.
    """
    said, right = _at_stops(answer), _at_stops(wanted)
    if not said or not right:
        return 0.0
    united: set[str] = set()
    for sentence in right:
        for other in said:
            united |= {sentence[i] for i in _common(sentence, other, last_of_answer_first=True)}
    precision = len(united) / len({word for sentence in said for word in sentence})
    recall = len(united) / len({word for sentence in right for word in sentence})
    return 2 * precision * recall / (precision + recall + _SMALL)


def rouge_lsum(answer: str, wanted: str) -> float:
    """ROUGE-Lsum as of `rouge-score` 0.1 without stemming: a sentence is a line, words are ASCII letters and digits.

    Args:
        answer: What was said.
        wanted: What is right.

    Returns:
        The F measure, 0 to 1.
    """
    said, right = _lines(answer), _lines(wanted)
    length, right_length = sum(map(len, said)), sum(map(len, right))
    if not length or not right_length:
        return 0.0
    left = Counter(word for sentence in said for word in sentence)
    right_left = Counter(word for sentence in right for word in sentence)
    hits = 0
    for sentence in right:
        found = set[int]().union(*(_common(sentence, other, last_of_answer_first=False) for other in said))
        for word in (sentence[i] for i in sorted(found)):
            if left[word] > 0 and right_left[word] > 0:  # none is counted more often than both have it
                hits += 1
                left[word] -= 1
                right_left[word] -= 1
    if hits == 0:
        return 0.0
    precision, recall = hits / length, hits / right_length
    return 2 * precision * recall / (precision + recall)


def _at_stops(text: str) -> list[list[str]]:
    """Sentences as words. What is only white space after a stop is a sentence of one empty word, as in the package."""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _lines(text: str) -> list[list[str]]:
    return [_NOT_ALPHANUMERIC.sub(" ", line.lower()).split() for line in text.split("\n") if line]


def _common(wanted: Sequence[str], answer: Sequence[str], *, last_of_answer_first: bool) -> list[int]:
    """Positions in ``wanted`` of one longest common subsequence.

    There may be several of the same length; which one is taken shows in a union. It is read from the ends.

    Args:
        wanted: Words.
        answer: Words.
        last_of_answer_first: Of two equally good ways, leave out the answer's last word (else the wanted one's).
    """
    rows, columns = len(wanted), len(answer)
    same = np.array(answer, dtype=object)[None] == np.array(wanted, dtype=object)[:, None]
    table = np.zeros((rows + 1, columns + 1), dtype=np.int32)
    for i in range(rows):
        # Along a row a cell is the largest of what stands above, the diagonal with a match, and all to its left.
        best = np.maximum(table[i, 1:], np.where(same[i], table[i, :-1] + 1, 0))
        table[i + 1, 1:] = np.maximum.accumulate(best)
    found, i, j = [], rows, columns
    while i and j:
        up, left = table[i - 1, j], table[i, j - 1]
        if same[i - 1, j - 1]:
            found.append(i - 1)
            i, j = i - 1, j - 1
        elif left > up or (left == up and last_of_answer_first):
            j -= 1
        else:
            i -= 1
    return found
