"""Configs that ship with packages: looked for, parsed and put together once a process, and again once one changed.

A command composes several times: to see where it may write, to run, to tell what a mistake meant. All that differs
between these is what the command line says of single keys. Files that somebody brings along (``--config-dir``,
``hydra.searchpath``) are not kept.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import Container, DictConfig, OmegaConf
from yaml import YAMLError

from effkit.cli.copying import copied
from effkit.cli.reading import read_yaml

__all__ = ["Known", "Repository", "known"]

MOST = 32
"""Configs that are kept composed, of each search path; one takes about half a megabyte."""

Value = TypeVar("Value")
_State = tuple[int, int]
_parsed: dict[tuple[str, Path], tuple[_State, ConfigResult]] = {}
_known: dict[tuple[str, ...], Known] = {}


class Repository(ConfigRepository):
    """Hydra's repository of configs, whose packages' files are parsed once, and again when they have changed."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a config with its defaults list; the caller's own, since composing changes it."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or (file := _file(source, config_path)) is None:
            return super().load_config(config_path)
        facts = file.stat()
        state = (facts.st_mtime_ns, facts.st_size)
        kept = _parsed.get(key := (source.provider, file))
        if kept is None or kept[0] != state:
            kept = _parsed[key] = (state, self._read(source, config_path, file))
        result = kept[1]
        own = copy.deepcopy(result.defaults_list)
        return replace(result, config=copied(result.config), header=dict(result.header), defaults_list=own)

    def _read(self, source: ConfigSource, config_path: str, file: Path) -> ConfigResult:
        """What Hydra reads, by a quicker parser; it words what is wrong with a file."""
        text = file.read_text(encoding="utf-8")
        with contextlib.suppress(YAMLError):
            values = read_yaml(text)
            if isinstance(values, dict | None):
                header = ConfigSource._get_header_dict(text[:512])
                config = OmegaConf.create(values or {})
                defaults = self._create_defaults_list(config_path, self._extract_defaults_list(config_path, config))
                return ConfigResult(source.provider, f"{source.scheme()}://{source.path}", config, header, defaults)
        result = super().load_config(config_path)
        assert result is not None, "the source said it has it"
        return result


def _resolves(default: Any) -> bool:
    """Whether an entry of a list of defaults calls a resolver (``${oc.env:WHICH}``)."""
    text = f"{getattr(default, 'path', '')} {getattr(default, 'value', '')}"
    return "${" in text and ":" in text


def _file(source: ConfigSource, config_path: str) -> Path | None:
    """The file a config is read from; None unless it lies in an installed package's folder."""
    if source.scheme() != "pkg":
        return None
    file = resources.files(source.path).joinpath(source._normalize_file_name(config_path))
    return file if isinstance(file, Path) and file.is_file() else None


class Known(IConfigRepository):
    """What is known of the packages on a search path, as long as they stay as they are.

    What `load_config` returns is shared: to be read, as Hydra does where it makes the list of all configs.

    Args:
        repository: Looks and reads.
        state: Of files and folders, see `_state`.
        stored: Hydra's own registered configs.
    """

    def __init__(self, repository: Repository, state: list[Any], stored: list[Any]) -> None:
        self.repository, self.state, self.stored = repository, state, stored
        self._found: dict[tuple[Any, ...], Any] = {}
        self._lists: dict[tuple[Any, ...], Any] = {}
        self._resolves = False  # whether a list of defaults depends on more than files and words
        self._composed: dict[tuple[Any, ...], DictConfig] = {}

    def composed(self, key: tuple[Any, ...], compose: Callable[[], DictConfig]) -> DictConfig:
        """What was made of several configs: not to be changed.

        Args:
            key: What it is made of, which says all about it.
            compose: Makes it.
        """
        if (config := self._composed.get(key)) is None:
            config = compose()
            while len(self._composed) >= MOST:
                self._composed.pop(next(iter(self._composed)), None)
            self._composed[key] = config
        return config

    def listed(self, key: tuple[Any, ...], make: Callable[[], Value]) -> Value:
        """The list of configs that words choose.

        Args:
            key: The words.
            make: Works it out; only that knows the list if it asks for a variable of the shell, or draws.
        """
        found: Value
        if key in self._lists:
            found = self._lists[key]
            return found
        found = make()
        if not self._resolves and not any("(" in str(word) for word in key):
            if len(self._lists) >= 8 * MOST:
                self._lists.clear()
            self._lists[key] = found
        return found

    def part(self, key: tuple[Any, ...], load: Callable[[], Container]) -> Container:
        """One config, put where it belongs: not to be changed."""
        return self._once(("part", *key), load)

    def _once(self, what: tuple[Any, ...], look: Callable[[], Value]) -> Value:
        if what not in self._found:
            self._found[what] = look()
        found: Value = self._found[what]
        return found

    def get_schema_source(self) -> ConfigSource:
        """Hydra's registered configs."""
        return self.repository.get_schema_source()

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A config with its defaults list."""

        def load() -> ConfigResult | None:
            result = self.repository.load_config(config_path)
            if result is not None:
                self._resolves |= any(map(_resolves, result.defaults_list or ()))
            return result

        return self._once(("config", config_path), load)

    def group_exists(self, config_path: str) -> bool:
        """Whether there is such a folder."""
        return self._once(("group", config_path), lambda: self.repository.group_exists(config_path))

    def config_exists(self, config_path: str) -> bool:
        """Whether there is such a file."""
        return self._once(("exists", config_path), lambda: self.repository.config_exists(config_path))

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        """Files or folders in a folder."""
        what = ("options", group_name, results_filter)
        return list(self._once(what, lambda: self.repository.get_group_options(group_name, results_filter)))

    def get_sources(self) -> list[ConfigSource]:
        """Where configs are looked for."""
        return self.repository.get_sources()

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Look elsewhere: not in what others share."""
        raise AssertionError("what is known of one search path says nothing of another")


def known(repository: Repository) -> Known | None:
    """What is known of a repository's packages; `None` if it has configs that are in no installed package's folder.

    Args:
        repository: Of any command; those with the same sources share what is known.
    """
    sources = repository.get_sources()
    state: list[Any] = []
    for source in sources:
        if source.scheme() == "pkg":
            try:
                folder = resources.files(source.path)
            except (ModuleNotFoundError, TypeError, ValueError):  # Hydra goes past it
                return None
            if not isinstance(folder, Path):
                return None
            state.extend(_state(str(folder)))
        elif source.full_path() != "structured://":
            return None
    stored = list(_stored(ConfigStore.instance().repo))
    key = tuple(str(source) for source in sources)
    found = _known.get(key)
    if found is None or found.state != state or [id(node) for node in found.stored] != [id(node) for node in stored]:
        found = _known[key] = Known(repository, state, stored)
    return found


def _state(folder: str) -> Iterator[tuple[str, int, int]]:
    """Name, time and size of all that lies in a folder, at any depth: another file there may be found first."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("__"):
                continue
            facts = entry.stat()
            yield entry.path, facts.st_mtime_ns, facts.st_size
            if entry.is_dir():
                yield from _state(entry.path)


def _stored(folder: dict[str, Any]) -> Iterator[Any]:
    for child in folder.values():
        if isinstance(child, dict):
            yield from _stored(child)
        else:
            yield child
