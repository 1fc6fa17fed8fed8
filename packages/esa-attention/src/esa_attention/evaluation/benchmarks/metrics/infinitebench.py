"""The accuracies of InfiniteBench, as its ``compute_scores.py`` of June 2024 decides them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "choice_named",
    "first_number",
    "function_named",
    "last_whole_number",
    "leading_share",
    "number_named",
    "speaker_named",
    "value_found",
    "words_of",
]

_MARKS = "\n:\"'.,?!{}"
_ANSWER_IS = ("answer is:", "answer:", "answer is", "option is")
_FUNCTION_IS = ("answer is:", "is:", "answer:", "correct option is:")
_LETTERS = "ABCD"


def words_of(answer: str, marks: str = _MARKS) -> list[str]:
    """The words between white space and marks."""
    return answer.translate({ord(mark): " " for mark in marks}).split()


def value_found(answer: str, wanted: str) -> float:
    """Retrieve.KV: the value is a word of the answer."""
    return float(wanted in words_of(answer))


def first_number(answer: str, wanted: str) -> float:
    """Retrieve.PassKey and Retrieve.Number: the first run of digits is the wanted one, zeros in front included."""
    found = re.search(r"[0-9]+", answer)
    return float(found is not None and found[0] == wanted)


def last_whole_number(answer: str, wanted: int) -> float:
    """Code.Run: the last word is the wanted whole number."""
    words = words_of(answer.strip(), "\n.`'\":")
    try:
        return float(bool(words) and int(words[-1]) == wanted)
    except ValueError:
        return 0.0


def number_named(answer: str, wanted: int | float) -> float:
    """Math.Find: the first number, with its decimals, is the wanted one."""
    found = re.search(r"\d+\.\d+|\d+", answer)
    return float(found is not None and float(found[0]) == wanted)


def leading_share(answer: str, wanted: Sequence[int]) -> float:
    """Math.Calc: share of the intermediate values that are right up to the first wrong one.

    Digits alone are looked at, as published: what is negative never matches.
    """
    said = [int(digits) for digits in re.findall(r"[0-9]+", answer)]
    right = 0
    for number, value in zip(said, wanted, strict=False):
        if number != value:
            break
        right += 1
    return right / len(wanted)


def speaker_named(answer: str, wanted: Sequence[str]) -> float:
    """En.Dia: the first of the accepted names is a word of the answer, in any case of letters.

    As published, the others are not looked at, and a name of several words is never found.
    """
    return float(wanted[0] in [word.upper() for word in words_of(answer.strip())])


def function_named(answer: str, wanted: Sequence[str]) -> float:
    """Code.Debug: the answer opens with the letter, or letter or name follow on "answer is:" and the like.

    Args:
        answer: What was said.
        wanted: The function's name and its letter.
    """
    name, letter = wanted
    said = answer.strip()
    if said[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0
    for mark in ("\n", "`", "'", '"', "-", "*", "Option", "option"):
        said = said.replace(mark, " ")
    after = _after(re.sub(" +", " ", said), _FUNCTION_IS)
    return float(after is not None and after.startswith((letter, name)))


def choice_named(answer: str, wanted: Sequence[str]) -> float:
    """En.MC: by the first letter, the option itself, what follows on "answer is", or the first lone letter.

    Args:
        answer: What was said.
        wanted: The option and its letter.
    """
    said = answer.strip()
    if not said:
        return 0.0
    if said[0] in _LETTERS:
        return float(said[0] in wanted)
    if said in wanted:
        return 1.0
    said = re.sub(" +", " ", said.translate({ord(mark): " " for mark in "\n\"'.,?!{}"}))
    after = _after(said, _ANSWER_IS)
    if after is not None:
        return float(after.startswith(tuple(wanted)))
    letter = next((word for word in said.split() if word in _LETTERS), None)
    return float(letter is not None and letter in wanted)


def _after(said: str, openings: Sequence[str]) -> str | None:
    """What stands one character behind the first opening that occurs, taken in order; empty if nothing does."""
    for opening in openings:
        place = said.find(opening)
        if place >= 0:
            return said[place + len(opening) + 1 :]
    return None
