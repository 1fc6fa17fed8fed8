"""The tables that come with the package."""

from __future__ import annotations

from pathlib import Path

from ws_nas.meters.tables.benchmark import TabularBenchmark

__all__ = ["digits_table"]


def digits_table() -> TabularBenchmark:
    """All 81 networks of ``digits_chain``, three seeds each, trained on scikit-learn's digits (``ws-nas build-table``).

    Its first line says with which configuration, on which machine and at which commit.
    """
    return TabularBenchmark(Path(__file__).with_name("digits_chain.csv"), "digits_chain")
