"""Search over a space with any scorer: random, regularised evolution, constrained evolution."""

from ws_nas.search.constrained import ConstrainedEvolution
from ws_nas.search.ledger import SearchResult, Trial
from ws_nas.search.limits import Limit
from ws_nas.search.random_search import RandomSearch
from ws_nas.search.regularized import RegularizedEvolution

__all__ = ["ConstrainedEvolution", "Limit", "RandomSearch", "RegularizedEvolution", "SearchResult", "Trial"]
