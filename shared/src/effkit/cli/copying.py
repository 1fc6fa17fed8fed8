"""Copies of configs: composing and running one command makes thousands of OmegaConf's nodes, most of them copies.

OmegaConf copies a node's metadata as any dataclass is copied, which takes ten times as long as all the rest; of its
fields only two are changed in place, the others are keys and types. The copies made here equal OmegaConf's own.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from omegaconf import AnyNode, DictConfig, ListConfig, Node
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import BooleanNode, BytesNode, EnumNode, FloatNode, IntegerNode, PathNode, StringNode

__all__ = ["copied", "quicken_copies"]

Some = TypeVar("Some", bound=Node)

_TYPES_AND_KEYS = {"ref_type", "object_type", "optional", "key", "flags_root", "key_type", "element_type"}
_KNOWN = {field.name for field in fields(ContainerMetadata)} == _TYPES_AND_KEYS | {"flags", "resolver_cache"}
_PLAIN = (AnyNode, BooleanNode, BytesNode, EnumNode, FloatNode, IntegerNode, PathNode, StringNode)
_COPIED = frozenset((*_PLAIN, DictConfig, ListConfig))


def copied(node: Some, without: str | None = None) -> Some:
    """A deep copy of a config, as ``copy.deepcopy`` makes it; its parent is the same.

    Args:
        node: A config, or a node of one.
        without: A key that the copy of a mapping does not have.
    """
    if without is not None:
        rest = object.__new__(type(node))
        rest.__dict__.update(node.__dict__)
        rest.__dict__["_content"] = {k: v for k, v in node.__dict__["_content"].items() if k != without}
        return copied(rest)
    return _copied(node, node.__dict__["_parent"]) if _KNOWN else copy.deepcopy(node)


def _copied(node: Any, parent: Any) -> Any:
    kind = type(node)
    if kind not in _COPIED:
        other = copy.deepcopy(node)
        other._set_parent(parent)
        return other
    new = object.__new__(kind)
    state = new.__dict__
    state.update(node.__dict__)
    state["_metadata"] = _copied_metadata(state["_metadata"], {})
    state["_flags_cache"] = None
    state["_parent"] = parent
    content = state.get("_content")
    if type(content) is dict:
        state["_content"] = {key: _copied(child, new) for key, child in content.items()}
    elif type(content) is list:
        state["_content"] = [_copied(child, new) for child in content]
    return new


def _copied_metadata(metadata: Metadata, memo: dict[int, Any]) -> Metadata:
    new = object.__new__(type(metadata))
    state = new.__dict__
    state.update(metadata.__dict__)
    state["flags"] = None if metadata.flags is None else dict(metadata.flags)
    cache = metadata.resolver_cache
    state["resolver_cache"] = copy.deepcopy(cache, memo) if cache else defaultdict(dict)
    return new


def quicken_copies() -> None:
    """Let ``copy.deepcopy`` of any config do the same."""
    if not _KNOWN or hasattr(Metadata, "__deepcopy__"):
        return
    Metadata.__deepcopy__ = _copied_metadata  # type: ignore[attr-defined]
    kinds: tuple[Any, ...] = (DictConfig, ListConfig)
    for kind in kinds:
        kind.__deepcopy__ = _quick(kind, kind.__deepcopy__)


def _quick(kind: type, slow: Callable[[Any, dict[int, Any]], Any]) -> Callable[[Any, dict[int, Any]], Any]:
    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        return _copied(self, self.__dict__["_parent"]) if type(self) is kind else slow(self, memo)

    return deepcopy
