"""YAML as OmegaConf reads it, by libyaml's parser: a command reads some thirty files before it does anything."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml

__all__ = ["read_yaml"]


def read_yaml(text: str) -> Any:
    """The values in a text, as ``OmegaConf.load`` takes them.

    Args:
        text: Of a config file.

    Raises:
        YAMLError: If it is no YAML; in the words of libyaml, where PyYAML has that.
    """
    return yaml.load(text, Loader=_loader())


@lru_cache(maxsize=1)
def _loader() -> Any:
    """OmegaConf's loader, which knows what a number is and refuses keys that stand twice, on another parser."""
    from omegaconf._utils import get_yaml_loader

    plain: Any = get_yaml_loader()
    try:
        from yaml.cyaml import CParser
    except ImportError:  # PyYAML was built without libyaml
        return plain

    class Loader(CParser, plain):  # type: ignore[misc, valid-type]
        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Loader
