"""Greedy Network Enlarging: architectures, exact costs, uniform scaling, search, function-preserving growth.

Example:
    >>> import greedy_enlarge
    >>> b0 = greedy_enlarge.base("efficientnet_b0")
    >>> greedy_enlarge.macs(b0), greedy_enlarge.params(b0)
    (385814752, 5288548)
"""

from typing import TYPE_CHECKING

from effkit.lazy import attach

if TYPE_CHECKING:
    from greedy_enlarge.families.counting import count_many as count_many
    from greedy_enlarge.families.counting import explain as explain
    from greedy_enlarge.families.counting import macs as macs
    from greedy_enlarge.families.counting import params as params
    from greedy_enlarge.families.counting import stage_shares as stage_shares
    from greedy_enlarge.families.registry import base as base
    from greedy_enlarge.networks.build import build as build
    from greedy_enlarge.spec import ArchSpec as ArchSpec

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ArchSpec": "greedy_enlarge.spec",
        "base": "greedy_enlarge.families.registry",
        "build": "greedy_enlarge.networks.build",
        "count_many": "greedy_enlarge.families.counting",
        "explain": "greedy_enlarge.families.counting",
        "macs": "greedy_enlarge.families.counting",
        "params": "greedy_enlarge.families.counting",
        "stage_shares": "greedy_enlarge.families.counting",
    },
)
