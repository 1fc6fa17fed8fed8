"""Functions of OmegaConf and Hydra, replaced by quicker ones that give the same: all of it stands here.

Hydra makes six deep copies of a config around each job, and OmegaConf parses an interpolation again whenever somebody
looks at it. The list of configs of a command is worked out again for each word on the command line, and for each config
in it all choices are written into another config, which is there for interpolations in lists of defaults only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import omegaconf.base
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra.core.default_element import InputDefault
from hydra.core.override_parser.types import Override

from effkit.cli.copying import quicken_copies
from effkit.cli.shipped import Known

__all__ = ["quicken"]

_choices_for_interpolations = defaults_list._create_interpolation_map


@lru_cache(maxsize=1)
def quicken() -> None:
    """Replace them, once a process."""
    quicken_copies()
    omegaconf.base.parse = lru_cache(maxsize=1024)(omegaconf.base.parse)  # what it gives is only walked through
    config_loader_impl.create_defaults_list = _defaults_list
    defaults_list._create_interpolation_map = _choices_if_asked


def _choices_if_asked(overrides: Overrides, defaults_list: list[InputDefault], self_added: bool) -> Any:
    """Hydra's choices so far, where an entry of a list of defaults may ask for one (``${model}``)."""
    if any("${" in f"{getattr(d, 'path', '')} {getattr(d, 'value', '')}" for d in defaults_list):
        return _choices_for_interpolations(overrides, defaults_list, self_added)
    return None


def _defaults_list(
    repo: IConfigRepository,
    config_name: str | None,
    overrides_list: Sequence[Override],
    prepend_hydra: bool,
    skip_missing: bool,
) -> DefaultsList:
    """Hydra's list of configs; of what ships, kept by the words that choose options."""
    if not isinstance(repo, Known):
        return create_defaults_list(repo, config_name, list(overrides_list), prepend_hydra, skip_missing)
    choosing: list[Override] = []
    others: list[Override] = []
    for word in overrides_list:
        if not word.is_sweep_override():
            chooses = not isinstance(word.value(), dict) and repo.group_exists(word.key_or_group)
            (choosing if chooses else others).append(word)

    def made() -> DefaultsList:
        return create_defaults_list(repo, config_name, choosing, prepend_hydra, skip_missing)

    key: Any = (config_name, prepend_hydra, skip_missing, *(word.input_line for word in choosing))
    return replace(repo.listed(key, made), config_overrides=others)
