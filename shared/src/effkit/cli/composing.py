"""A config put together from what ships: by Hydra's rules, from parts that are kept.

Hydra's own node comes first in every config, is most of it, and is the same for all commands that log in the same way
and start jobs in the same way. So it is put together once, and each command adds its own to a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from hydra.core.default_element import ResultDefault
from omegaconf import Container, DictConfig, OmegaConf, flag_override

from effkit.cli.copying import copied
from effkit.cli.shipped import Known

__all__ = ["put_together"]

# Hydra's mark of a typed config whose list of defaults stays in it until everything is merged.
_LISTED = "HYDRA_REMOVE_TOP_LEVEL_DEFAULTS"


def put_together(
    known: Known, defaults: Sequence[ResultDefault], load: Callable[[ResultDefault], Container]
) -> DictConfig:
    """The config before the words of the command line change it: what is kept, not to be changed.

    Args:
        known: Keeps it, and the parts.
        defaults: The list of configs that it is made of, in their order.
        load: Reads one of them, put where it belongs.

    Returns:
        The config; merged one after the other, as Hydra does.
    """
    own = next((n for n, part in enumerate(defaults) if not (part.config_path or "").startswith("hydra/")), None)
    hydras, rest = defaults[:own], [] if own is None else defaults[own:]

    def start() -> DictConfig:
        return _merged(OmegaConf.create(), hydras)

    def whole() -> DictConfig:
        config = _merged(copied(known.composed(("start", *map(_key, hydras)), start)), rest)
        _strip(config)
        return config

    def _merged(config: DictConfig, parts: Iterable[ResultDefault]) -> DictConfig:
        with flag_override(config, "no_deepcopy_set_nodes", True):
            for part in parts:
                config.merge_with(copied(known.part(_key(part), partial(load, part))))
        return config

    return known.composed(("whole", *map(_key, defaults)), whole)


def _key(part: ResultDefault) -> tuple[Any, ...]:
    return part.config_path, part.package, part.primary


def _strip(node: Any) -> None:
    """Take lists of defaults out of the marked nodes."""
    content = node.__dict__["_content"]
    if not isinstance(node, DictConfig) or not isinstance(content, dict):
        return
    if node._get_flag(_LISTED):
        node._set_flag(_LISTED, None)
        with flag_override(node, ["readonly", "struct"], False):
            node.pop("defaults", None)
    for child in list(content.values()):
        if isinstance(child, DictConfig):
            _strip(child)
