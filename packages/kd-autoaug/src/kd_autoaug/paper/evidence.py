"""From the marks of the figures to the house's kinds of evidence."""

from __future__ import annotations

from effkit.errors import choose
from effkit.rows import Evidence

__all__ = ["EVIDENCE", "cite", "evidence"]

EVIDENCE: dict[str, Evidence] = {
    "A": "printed",
    "C": "found",
    "V": "found",
    "M": "computed",
    "S": "unverified",
    "R": "unverified",
    "?": "unverified",
}
"""Mark -> evidence: abstract; found in papers and READMEs, or in public code; counted; summary, re-implementation."""


def evidence(mark: str) -> Evidence:
    """The kind of evidence of a mark.

    Raises:
        UserError: If there is no such mark.
    """
    return EVIDENCE[choose("mark", mark, EVIDENCE)]


def cite(mark: str, source: str) -> str:
    """A source with its mark in front, as rows show it."""
    return f"[{mark}] {source}"
