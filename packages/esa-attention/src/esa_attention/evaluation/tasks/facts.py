"""What a task hides and asks for, in whatever vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Fact"]


@dataclass(frozen=True, eq=False)
class Fact:
    """One thing to remember.

    Attributes:
        statement: Ids that go into the haystack.
        question: Ids that ask for it.
        answers: Acceptable answers, each a list of ids.
        text: The answer as text, or empty where the vocabulary has no text.
    """

    statement: Tensor
    question: Tensor
    answers: list[list[int]]
    text: str = ""

    @property
    def room(self) -> int:
        """Tokens an answer may take; in text some more than the answer itself, for a phrase in front of it."""
        return max(map(len, self.answers)) + (8 if self.text else 0)
