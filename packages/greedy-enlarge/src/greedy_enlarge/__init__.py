"""Greedy Network Enlarging: architectures, exact costs, uniform scaling, search, function-preserving growth.

Example:
    >>> import greedy_enlarge
    >>> b0 = greedy_enlarge.base("efficientnet_b0")
    >>> greedy_enlarge.macs(b0), greedy_enlarge.params(b0)
    (385814752, 5288548)
"""

from typing import TYPE_CHECKING

from effkit.lazy import after_import, attach

if TYPE_CHECKING:
    from greedy_enlarge.families.counting import count_many as count_many
    from greedy_enlarge.families.counting import explain as explain
    from greedy_enlarge.families.counting import macs as macs
    from greedy_enlarge.families.counting import params as params
    from greedy_enlarge.families.counting import stage_shares as stage_shares
    from greedy_enlarge.families.registry import base as base
    from greedy_enlarge.families.scaling import scale as scale
    from greedy_enlarge.families.scaling import scale_by_factor as scale_by_factor
    from greedy_enlarge.growth.grow import GrowthReport as GrowthReport
    from greedy_enlarge.growth.grow import grow as grow
    from greedy_enlarge.growth.grow import grow_optimizer as grow_optimizer
    from greedy_enlarge.networks.build import build as build
    from greedy_enlarge.search.greedy import Settings as Settings
    from greedy_enlarge.search.greedy import search as search
    from greedy_enlarge.search.journal import Journal as Journal
    from greedy_enlarge.search.moves import Moves as Moves
    from greedy_enlarge.search.propose import propose as propose
    from greedy_enlarge.spec import ArchSpec as ArchSpec

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ArchSpec": "greedy_enlarge.spec",
        "GrowthReport": "greedy_enlarge.growth.grow",
        "Journal": "greedy_enlarge.search.journal",
        "Moves": "greedy_enlarge.search.moves",
        "Settings": "greedy_enlarge.search.greedy",
        "base": "greedy_enlarge.families.registry",
        "build": "greedy_enlarge.networks.build",
        "count_many": "greedy_enlarge.families.counting",
        "explain": "greedy_enlarge.families.counting",
        "grow": "greedy_enlarge.growth.grow",
        "grow_optimizer": "greedy_enlarge.growth.grow",
        "macs": "greedy_enlarge.families.counting",
        "params": "greedy_enlarge.families.counting",
        "propose": "greedy_enlarge.search.propose",
        "scale": "greedy_enlarge.families.scaling",
        "scale_by_factor": "greedy_enlarge.families.scaling",
        "search": "greedy_enlarge.search.greedy",
        "stage_shares": "greedy_enlarge.families.counting",
    },
)
# Registers the networks; timm itself takes seconds to import, and --help should not.
after_import("timm", "greedy_enlarge.networks.zoo")
