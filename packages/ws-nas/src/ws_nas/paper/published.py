"""Where published tables are, if they are at hand; nothing here depends on them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from effkit.data.at_hand import data_at_hand
from ws_nas.meters.tables.benchmark import TabularBenchmark

__all__ = ["ABSENT", "column", "published_table", "tables_at_hand"]

ABSENT = "needs the published tables in EFFKIT_DATA/nas_bench_201, or shared/data/nas_bench_201 above the checkout"


def tables_at_hand() -> Path | None:
    """Their folder, see `effkit.data.at_hand.data_at_hand`; `None` if it is not there."""
    found = data_at_hand("nas_bench_201", "nas_bench_macro.csv")
    return found.parent if found is not None else None


@lru_cache(maxsize=4)
def published_table(file: str) -> TabularBenchmark:
    """A table by its file's name; there must be one."""
    folder = tables_at_hand()
    assert folder is not None
    return TabularBenchmark(folder / file, "nas_bench_macro" if "macro" in file else "nas_bench_201")


def column(file: str, name: str) -> np.ndarray:
    """A column, in the order of its space, so that columns of two files fit."""
    table = published_table(file)
    order = np.argsort([table.space.index(g) for g in table])
    return table.values(name)[order]
