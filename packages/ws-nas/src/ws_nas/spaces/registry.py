"""Spaces by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from effkit.arguments import check_arguments
from effkit.errors import choose
from ws_nas.spaces.cell_201 import nas_bench_201, nb201_tiny
from ws_nas.spaces.chain import digits_chain, fairnas_chain, nas_bench_macro
from ws_nas.spaces.darts import darts, darts_tiny
from ws_nas.spaces.elastic import ofa, ofa_tiny
from ws_nas.spaces.space import Space

__all__ = ["SPACES", "get_space"]

SPACES: dict[str, Callable[..., Space]] = {
    "nas_bench_201": nas_bench_201,
    "nb201_tiny": nb201_tiny,
    "nas_bench_macro": nas_bench_macro,
    "fairnas_chain": fairnas_chain,
    "digits_chain": digits_chain,
    "darts": darts,
    "darts_tiny": darts_tiny,
    "ofa": ofa,
    "ofa_tiny": ofa_tiny,
}


def get_space(name: str, **sizes: Any) -> Space:
    """A search space by name.

    Args:
        name: One of :data:`SPACES`.
        sizes: Sizes that differ from the space's own; each space says which it has.

    Raises:
        UserError: If the name or a size is not known, or a size does not fit.
    """
    make = SPACES[choose("space", name, list(SPACES))]
    known = [key for key in inspect.signature(make).parameters if key != "name"]
    for key in sizes:
        choose(f"size of space={name}", key, known)
    check_arguments(make, sizes, "space.")
    return make(**sizes)
