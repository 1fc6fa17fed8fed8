"""What networks cost, in closed form: exact, for one network or for millions, without building any."""

from greedy_enlarge.families.counting import Shares, count_many, explain, macs, params, stage_shares
from greedy_enlarge.families.registry import BASES, FAMILIES, Family, base, family_of

__all__ = [
    "BASES",
    "FAMILIES",
    "Family",
    "Shares",
    "base",
    "count_many",
    "explain",
    "family_of",
    "macs",
    "params",
    "stage_shares",
]
