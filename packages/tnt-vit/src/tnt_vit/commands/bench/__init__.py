"""``tnt-vit bench``: speed beside the peers, the floor of the products, and where the time goes."""

from tnt_vit.commands.bench.providers import PROVIDERS, build_provider
from tnt_vit.commands.bench.report import bench_report, run

__all__ = ["PROVIDERS", "bench_report", "build_provider", "run"]
