"""The surveyed backbones, read from one file: names, families, constructors, weights, and what is printed of them."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments, input_file
from effkit.errors import UserError, choose

__all__ = ["FOUND_SOURCE", "PUBLISHED_SOURCE", "SOURCES", "SUITES", "Backbone", "read_registry", "select"]

SOURCES = ("timm", "transformers", "tnt_vit", "python", "none")
SUITES = ("small", "table2", "discussed", "all")
PUBLISHED_SOURCE = "A Survey on Vision Transformer (arXiv 2012.12556v5), Table 2"
FOUND_SOURCE = "timm's results files (RTX 4090, amp; results-imagenet.csv)"
_SHIPPED = Path(__file__).with_name("backbones.toml")
_FIGURES = {"published": ("params_m", "flops_g", "v100", "top1"), "found": ("rtx4090", "rtx4090_compiled", "timm_top1")}


@dataclass(frozen=True)
class Backbone:
    """One network of the registry.

    Attributes:
        name: How the tool calls it.
        source: Whose it is: timm, transformers, tnt_vit, python (``package.module:function``) or none.
        model: The library's name of it.
        tag: Of the weights, trained on ImageNet-1k alone unless ``note`` says otherwise.
        size: Side of a picture in pixels.
        row: In the survey's Table 2; empty if it has none.
        group: CNN, pure transformer, convolution + transformer, no attention.
        families: Tags of the survey's taxonomy.
        suites: That it belongs to, besides ``all`` and, with a row, ``table2``.
        blocks: Regular expression of the names of its blocks; empty if there are none to look into.
        args: Further arguments of the constructor.
        note: What a reader must know.
        absent: Why there is no constructor (source ``none``).
        published: As the survey prints it: ``params_m``, ``flops_g``, ``v100``, ``top1``.
        found: In timm's results: ``rtx4090``, ``rtx4090_compiled``, ``timm_top1``.
    """

    name: str
    source: str = "timm"
    model: str = ""
    tag: str = ""
    size: int = 224
    row: str = ""
    group: str = ""
    families: Sequence[str] = ()
    suites: Sequence[str] = ()
    blocks: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    absent: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, float] = field(default_factory=dict)

    @property
    def weights(self) -> str:
        """Name of its weights, empty if none are known."""
        return f"{self.model}.{self.tag}" if self.tag else ""


def _backbone(entry: Any, where: str) -> Backbone:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise UserError(f"{where}: every [[backbone]] needs a name")
    at = f"{where}, backbone {entry['name']!r}: "
    known = [f.name for f in fields(Backbone)]
    for key in entry:
        if key not in known:
            choose(f"{at}key", key, known)
    check_arguments(Backbone, entry, at)
    found = Backbone(**entry)
    choose(f"{at}source", found.source, SOURCES)
    for group, keys in _FIGURES.items():
        for key, value in getattr(found, group).items():
            choose(f"{at}{group}", key, keys)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise UserError(f"{at}{group}.{key}={value!r} must be a positive number")
    if (found.source == "none") == (not found.absent):
        raise UserError(f"{at}source = 'none' and absent, the reason, belong together")
    if found.source != "none" and not found.model:
        raise UserError(f"{at}model= is empty: give the name that {found.source} has for it")
    if found.size < 1:
        raise UserError(f"{at}size={found.size} must be at least 1")
    for suite in found.suites:
        choose(f"{at}suites", suite, SUITES)
    try:
        re.compile(found.blocks)
    except re.error as error:
        raise UserError(f"{at}blocks={found.blocks!r} is no regular expression: {error}") from None
    return found


def _read(path: Path, where: str) -> dict[str, Backbone]:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("backbone")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is no TOML file: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where} has no [[backbone]]")
    found: dict[str, Backbone] = {}
    for entry in entries:
        backbone = _backbone(entry, where)
        if backbone.name in found:
            raise UserError(f"{where}: two backbones are called {backbone.name!r}")
        found[backbone.name] = backbone
    return found


@cache
def _shipped() -> dict[str, Backbone]:
    return _read(_SHIPPED, _SHIPPED.name)


def read_registry(path: Any = None) -> dict[str, Backbone]:
    """The backbones that are known.

    Args:
        path: A file of the user's in the same form; its backbones come after ours, or replace those of the same name.

    Raises:
        UserError: If the file cannot be read, or an entry is not what it should be; names file, entry and key.
    """
    shipped = dict(_shipped())
    return shipped if path is None else shipped | _read(Path(input_file("registry", path)), f"registry={path}")


def select(registry: Mapping[str, Backbone], suite: str, models: Iterable[str] | None = None) -> list[Backbone]:
    """The backbones that are asked for, in the order of the registry.

    Args:
        registry: See :func:`read_registry`.
        suite: ``small``, ``table2`` (the survey's rows), ``discussed`` or ``all``.
        models: Names instead of the suite; ``timm:PATTERN`` takes all of timm's names that fit, e.g.
            ``timm:vit_small_*``.

    Raises:
        UserError: If a name or the suite is unknown, or nothing is left.
    """
    choose("suite", suite, SUITES)
    if models is None:
        return [b for b in registry.values() if suite in ("all", *b.suites) or (suite == "table2" and b.row)]
    chosen: dict[str, Backbone] = {}
    for name in models:
        if name.startswith("timm:"):
            chosen |= {b.name: b for b in _of_timm(name.removeprefix("timm:"))}
        else:
            chosen[name] = registry[choose("models", name, list(registry))]
    if not chosen:
        raise UserError("models is an empty list: name some backbones, or leave models= out for the suite")
    return list(chosen.values())


def _of_timm(pattern: str) -> list[Backbone]:
    import timm

    names = fnmatch.filter(timm.list_models(), pattern)
    if not names:
        raise UserError(f"models=timm:{pattern} fits no name of timm's")
    sizes = {name: timm.get_pretrained_cfg(name) for name in names}
    return [Backbone(n, model=n, size=int(cfg.input_size[-1]) if cfg else 224) for n, cfg in sizes.items()]
