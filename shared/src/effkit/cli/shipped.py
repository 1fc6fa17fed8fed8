"""Configs that ship with a package are parsed once a process: composing reads about twenty files each time."""

from __future__ import annotations

import copy
from importlib import resources
from pathlib import Path

from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource

__all__ = ["Repository"]

_State = tuple[int, int]
_parsed: dict[tuple[str, Path], tuple[_State, ConfigResult]] = {}


class Repository(ConfigRepository):
    """Hydra's repository of configs, whose packages' files are parsed once, and again when they have changed."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a config with its defaults list; the caller's own, since composing changes it."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or (file := _file(source, config_path)) is None:
            return super().load_config(config_path)
        facts = file.stat()
        state = (facts.st_mtime_ns, facts.st_size)
        known = _parsed.get(key := (source.provider, file))
        if known is None or known[0] != state:
            result = super().load_config(config_path)
            assert result is not None, "the source said it has it"
            known = _parsed[key] = (state, result)
        return copy.deepcopy(known[1])


def _file(source: ConfigSource, config_path: str) -> Path | None:
    """The file a config is read from; None unless it lies in an installed package's folder."""
    if source.scheme() != "pkg":
        return None
    file = resources.files(source.path).joinpath(source._normalize_file_name(config_path))
    return file if isinstance(file, Path) and file.is_file() else None
