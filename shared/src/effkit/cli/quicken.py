"""Three functions of OmegaConf and Hydra, replaced by quicker ones that give the same: all of it stands here.

Hydra makes six deep copies of a config around each job, each interpolation is parsed again whenever somebody looks at
it, and the list of configs of a command is worked out again for each word on the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import omegaconf.base
from hydra._internal import config_loader_impl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra.core.override_parser.types import Override

from effkit.cli.copying import quicken_copies
from effkit.cli.shipped import Known

__all__ = ["quicken"]


@lru_cache(maxsize=1)
def quicken() -> None:
    """Replace them, once a process."""
    quicken_copies()
    omegaconf.base.parse = lru_cache(maxsize=1024)(omegaconf.base.parse)  # what it gives is only walked through
    config_loader_impl.create_defaults_list = _defaults_list


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
