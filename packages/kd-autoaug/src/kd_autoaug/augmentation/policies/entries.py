"""Sub-policies as text: ``operator probability [level] | operator probability [level]``, one sub-policy a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from effkit.errors import UserError
from kd_autoaug.ops.operators import Op, operator

__all__ = ["Entry", "check_probability", "entry", "parse"]


class Entry(NamedTuple):
    """One slot of a policy.

    Attributes:
        op: The operator.
        prob: Probability with which it is applied.
        level: Level in the policy's space; without meaning for operators without magnitude.
    """

    op: Op
    prob: float
    level: float = 0.0


def check_probability(what: str, value: float) -> float:
    """The probability, if it is one.

    Raises:
        UserError: If it is no number of 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{what}={value!r} must be a probability from 0 to 1")
    return float(value)


def entry(what: str, given: Sequence[object]) -> Entry:
    """An entry of ``(operator, probability)`` or ``(operator, probability, level)``.

    Raises:
        UserError: If it has another form, or names no operator, or no probability.
    """
    parts = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if len(parts) not in (2, 3):
        raise UserError(f"{what}={given!r} must be (operator, probability) or (operator, probability, level)")
    op = parts[0] if isinstance(parts[0], Op) else operator(str(parts[0]))
    level = parts[2] if len(parts) == 3 and parts[2] is not None else 0.0
    if isinstance(level, bool) or not isinstance(level, int | float):
        raise UserError(f"{what}: level={level!r} must be a number")
    return Entry(op, check_probability(f"{what}: probability", parts[1]), float(level))  # type: ignore[arg-type]


def parse(text: str) -> tuple[tuple[Entry, ...], ...]:
    """Read sub-policies of the notation above; for the package's own tables.

    Args:
        text: Lines; empty ones are skipped.

    Returns:
        The sub-policies.
    """
    return tuple(tuple(_slots(line.split("|"))) for line in text.splitlines() if line.strip())


def _slots(parts: Iterable[str]) -> Iterable[Entry]:
    for part in parts:
        name, prob, *level = part.split()
        yield Entry(Op[name.upper()], float(prob), float(level[0]) if level else 0.0)
