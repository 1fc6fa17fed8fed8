"""Families by name."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from effkit.arguments import check_arguments
from effkit.errors import UserError, choose, nearest
from ws_nas.families.asng import ASNG
from ws_nas.families.base import Family
from ws_nas.families.darts import DARTS
from ws_nas.families.elastic import OFA, BigNAS
from ws_nas.families.enas import ENAS
from ws_nas.families.fair import FairNAS
from ws_nas.families.few_shot import FewShot
from ws_nas.families.individual import Individual
from ws_nas.families.partial import PCDARTS
from ws_nas.families.penalties import EntropyDARTS, FairDARTS
from ws_nas.families.progressive import PDARTS
from ws_nas.families.proxyless import ProxylessNAS
from ws_nas.families.sampled import GDAS, SNAS
from ws_nas.families.searching import SearchOptions
from ws_nas.families.stopping import RDARTS
from ws_nas.families.uniform import SPOS
from ws_nas.spaces.space import Space

__all__ = ["FAMILIES", "get_family", "make_family"]

FAMILIES: dict[str, type[Family]] = {
    family.name: family
    for family in (
        *(Individual, ENAS, ASNG, SPOS, FairNAS, FewShot),
        *(DARTS, GDAS, SNAS, ProxylessNAS, FairDARTS, EntropyDARTS, RDARTS, PCDARTS, PDARTS),
        *(OFA, BigNAS),
    )
}


def get_family(name: str) -> type[Family]:
    """A family's class by name.

    Raises:
        UserError: If the name is not known.
    """
    return FAMILIES[choose("family", name, list(FAMILIES))]


def options_of(family: type[Family]) -> dict[str, inspect.Parameter]:
    """What a family may be told, by name; those of its parents too."""
    found: dict[str, inspect.Parameter] = {}
    for parent in family.__mro__:
        if "__init__" not in parent.__dict__:
            continue
        parameters = inspect.signature(parent.__dict__["__init__"]).parameters
        for name, parameter in parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                found.setdefault(name, parameter)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            break
    return found


def make_family(name: str, space: Space, supernet: nn.Module, seed: int = 0, **options: Any) -> Family:
    """A family with its options.

    Args:
        name: One of :data:`FAMILIES`.
        space: The space.
        supernet: Its super-network.
        seed: Of all that is drawn.
        **options: Of the family; ``search`` may be a mapping.

    Raises:
        UserError: If the name or an option is not known, or a value does not fit.
    """
    family = get_family(name)
    known = options_of(family)
    for key in options:
        if key not in known:
            hint = nearest(key, known)
            raise UserError(
                f"family.{key} is no option of {name}, choose one of {', '.join(sorted(known))}"
                + (f"; did you mean {hint!r}?" if hint else "")
            )
    if isinstance(options.get("search"), dict):
        for key in options["search"]:
            choose("family.search", key, sorted(SearchOptions.__dataclass_fields__))
        check_arguments(SearchOptions, options["search"], "family.search.")
        options["search"] = SearchOptions(**options["search"])
    check_arguments(family, options, "family.")
    return family(space, supernet, seed, **options)
