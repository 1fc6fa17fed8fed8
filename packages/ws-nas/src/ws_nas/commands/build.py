"""From keys of a config to spaces and genotypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from effkit.arguments import renamed
from effkit.errors import UserError, written
from ws_nas.spaces.registry import get_space
from ws_nas.spaces.space import Genotype, Space

__all__ = ["make_space", "plain", "read_genotypes"]


def plain(cfg: Any) -> dict[str, Any]:
    """A config as plain values."""
    found: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
    return found


def make_space(options: Mapping[str, Any]) -> Space:
    """The group ``space`` of a config: a name, and sizes that differ from its own.

    Raises:
        UserError: If the name or a size is not known, or a size does not fit.
    """
    return get_space(options["name"], **{key: value for key, value in options.items() if key != "name"})


def read_genotypes(space: Space, value: Any, field: str = "genotypes") -> list[Genotype]:
    """Genotypes as a user writes them: a list of texts.

    Raises:
        UserError: If it is no list, or one of them is none of the space.
    """
    if not isinstance(value, list | tuple):
        raise UserError(f"{field}={written(value)} must be a list of genotypes")
    # A command line hands 1021 on as a number and 0121 as text; a number in YAML that began with 0 is shorter then, and
    # refused for its length.
    for one in value:
        if isinstance(one, bool) or not isinstance(one, str | int):
            raise UserError(f"{field}: {written(one)} must be text")
    with renamed({"genotype": field}):
        return [space.parse(str(one)) for one in value]
