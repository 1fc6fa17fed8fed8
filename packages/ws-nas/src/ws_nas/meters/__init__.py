"""Five meters of the optimisation gap between a supernet and its sub-networks, and their report."""

from ws_nas.meters.ceiling import noise_ceiling, structural_baselines
from ws_nas.meters.deployment import DeploymentGap, deployment_gap
from ws_nas.meters.discretization import DiscretizationGap, discretization_gap
from ws_nas.meters.hypergradient import HypergradientError, exact_hypergradient, hypergradient_error
from ws_nas.meters.ranking import RankingGap, ranking_gap
from ws_nas.meters.report import GapReport
from ws_nas.meters.value import ValueGap, value_gap

__all__ = [
    "DeploymentGap", "DiscretizationGap", "GapReport", "HypergradientError", "RankingGap", "ValueGap",
    "deployment_gap", "discretization_gap", "exact_hypergradient", "hypergradient_error", "noise_ceiling",
    "ranking_gap", "structural_baselines", "value_gap",
]  # fmt: skip
