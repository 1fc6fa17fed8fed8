"""Weight-sharing neural architecture search, with the optimisation gap as a measured figure.

Example:
    >>> import ws_nas
    >>> space = ws_nas.get_space("nas_bench_macro")
    >>> space.size(), space.cost(space.parse("11111111"))
    (6561, Cost(params=1588874, macs=53246464))
"""

from typing import TYPE_CHECKING

from effkit.lazy import attach

if TYPE_CHECKING:
    from ws_nas.evaluation.scoring import score as score
    from ws_nas.families.base import Family as Family
    from ws_nas.families.registry import FAMILIES as FAMILIES
    from ws_nas.families.registry import get_family as get_family
    from ws_nas.families.registry import make_family as make_family
    from ws_nas.meters.calibration import CalibratedRanking as CalibratedRanking
    from ws_nas.meters.calibration import calibrate_ranking as calibrate_ranking
    from ws_nas.meters.gap import gap as gap
    from ws_nas.meters.report import GapReport as GapReport
    from ws_nas.meters.tables.benchmark import TabularBenchmark as TabularBenchmark
    from ws_nas.meters.tables.latency import LatencyTable as LatencyTable
    from ws_nas.meters.tables.shipped import digits_table as digits_table
    from ws_nas.spaces.registry import SPACES as SPACES
    from ws_nas.spaces.registry import get_space as get_space
    from ws_nas.spaces.space import Cost as Cost
    from ws_nas.spaces.space import Genotype as Genotype
    from ws_nas.spaces.space import Space as Space
    from ws_nas.supernets.supernet import Supernet as Supernet

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "CalibratedRanking": "ws_nas.meters.calibration",
        "Cost": "ws_nas.spaces.space",
        "FAMILIES": "ws_nas.families.registry",
        "Family": "ws_nas.families.base",
        "GapReport": "ws_nas.meters.report",
        "Genotype": "ws_nas.spaces.space",
        "LatencyTable": "ws_nas.meters.tables.latency",
        "SPACES": "ws_nas.spaces.registry",
        "Space": "ws_nas.spaces.space",
        "Supernet": "ws_nas.supernets.supernet",
        "TabularBenchmark": "ws_nas.meters.tables.benchmark",
        "calibrate_ranking": "ws_nas.meters.calibration",
        "digits_table": "ws_nas.meters.tables.shipped",
        "gap": "ws_nas.meters.gap",
        "get_family": "ws_nas.families.registry",
        "get_space": "ws_nas.spaces.registry",
        "make_family": "ws_nas.families.registry",
        "score": "ws_nas.evaluation.scoring",
    },
)
