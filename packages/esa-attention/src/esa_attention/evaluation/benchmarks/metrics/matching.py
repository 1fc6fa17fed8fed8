"""What must occur in an answer: numbers, class names, strings; and how alike two lines of code are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

__all__ = [
    "classification",
    "code_similarity",
    "number_share",
    "paragraph_number",
    "printable",
    "string_match_all",
    "string_match_part",
]

_CONTROL = re.compile(r"[\x00-\x1f]")


def number_share(answer: str, wanted: str) -> float:
    """Share of the numbers in the answer that are the wanted one; 0 if there is none (LongBench's count)."""
    numbers = re.findall(r"\d+", answer)
    return numbers.count(wanted) / len(numbers) if numbers else 0.0


def paragraph_number(wanted: str, word: str) -> str | None:
    """The number in a right answer such as ``Paragraph 15``.

    Args:
        wanted: The right answer.
        word: What stands before the number, with the space if there is one.
    """
    found = re.search(rf"{re.escape(word)}(\d+)", wanted)
    return None if found is None else found[1]


def classification(answer: str, wanted: str, classes: Sequence[str]) -> float:
    """One over the number of classes named, if the right one is among them (LongBench).

    A class whose name is part of the right one's is no second answer. The published loop takes those out of the list
    it walks over, and so passes over the one behind each; so does this.

    Args:
        answer: What was said.
        wanted: The right class.
        classes: All of them.
    """
    named = [name for name in classes if name in answer]
    i = 0
    while i < len(named):
        if named[i] in wanted and named[i] != wanted:
            named.remove(named[i])
        i += 1
    return 1 / len(named) if wanted in named else 0.0


def code_similarity(answer: str, wanted: str) -> float:
    """How alike the first line of code in the answer and the right line are, in hundredths (LongBench).

    A line with a backtick, ``#`` or ``//`` is no code. The measure is ``fuzz.ratio`` of `fuzzywuzzy` as LongBench's
    requirements install it, which is difflib's; with python-Levenshtein beside it, it gives slightly other figures.

    Args:
        answer: What was said.
        wanted: The right line.
    """
    lines = answer.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    if line == wanted:
        return 1.0
    if not line or not wanted:
        return 0.0
    return round(100 * difflib.SequenceMatcher(None, line, wanted).ratio()) / 100


def printable(answer: str) -> str:
    """An answer as RULER looks at it: control characters are line ends, none at the edges."""
    return _CONTROL.sub("\n", answer.strip()).strip()


def string_match_all(answer: str, wanted: Sequence[str]) -> float:
    """Share of the wanted strings that occur in the answer, in any case of letters (RULER)."""
    said = answer.lower()
    return sum(text.lower() in said for text in wanted) / len(wanted)


def string_match_part(answer: str, wanted: Sequence[str]) -> float:
    """Whether any of the wanted strings occurs in the answer, in any case of letters (RULER)."""
    said = answer.lower()
    return float(any(text.lower() in said for text in wanted))
