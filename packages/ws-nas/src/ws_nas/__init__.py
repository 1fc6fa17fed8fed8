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
    from ws_nas.families.base import Family as Family
    from ws_nas.families.registry import FAMILIES as FAMILIES
    from ws_nas.families.registry import get_family as get_family
    from ws_nas.families.registry import make_family as make_family
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
        "FAMILIES": "ws_nas.families.registry",
        "SPACES": "ws_nas.spaces.registry",
        "Cost": "ws_nas.spaces.space",
        "Family": "ws_nas.families.base",
        "Genotype": "ws_nas.spaces.space",
        "Space": "ws_nas.spaces.space",
        "Supernet": "ws_nas.supernets.supernet",
        "get_family": "ws_nas.families.registry",
        "get_space": "ws_nas.spaces.registry",
        "make_family": "ws_nas.families.registry",
    },
)
