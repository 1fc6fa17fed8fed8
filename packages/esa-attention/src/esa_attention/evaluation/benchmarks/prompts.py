"""Prompt templates, from the benchmark's own files: JSON, or a Python file of plain dictionaries (never executed)."""

from __future__ import annotations

import ast
import json
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effkit.errors import UserError, choose

__all__ = ["PLAIN", "Template", "find_file", "load_templates"]

PLAIN = "plain"  # a bare template of ours instead of the benchmark's


@dataclass(frozen=True)
class Template:
    """A template as text and names in turn, as ``str.format`` has it, but with plain names only.

    Args:
        parts: What stands before a name, and the name; ``None`` at the end.
    """

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str, names: Collection[str], where: str) -> Template:
        """Read a template.

        Args:
            text: The template.
            names: What it may name; it must name ``context``.
            where: For messages.

        Raises:
            UserError: If it names something else, or no context.
        """
        try:
            parts = [(before, name, spec, conversion) for before, name, spec, conversion in _FORMATTER.parse(text)]
        except ValueError as error:
            raise UserError(f"{where} is no template: {error}") from error
        for _, name, spec, conversion in parts:
            if name is not None and (name not in names or spec or conversion):
                named = "{" + name + (f":{spec}" if spec else "") + "}"
                raise UserError(f"{where} names {named}, it may name {', '.join(sorted(names))}")
        if "context" not in (name for _, name, *_ in parts):
            raise UserError(f"{where} must name {{context}}, got {text[:60]!r}")
        return cls(tuple((before, name) for before, name, *_ in parts))

    def fill(self, values: Mapping[str, str]) -> tuple[str, str]:
        """The prompt, and its end behind the context."""
        pieces, after = [], 0
        for before, name in self.parts:
            pieces += [before, "" if name is None else values[name]]
            if name == "context":
                after = len(pieces)
        return "".join(pieces), "".join(pieces[after:])


_FORMATTER = string.Formatter()


def find_file(folder: Path, places: Collection[str]) -> Path | None:
    """The first of some files in a folder that is there."""
    return next((folder / place for place in places if (folder / place).is_file()), None)


def load_templates(path: Path, chosen: str | None = None) -> dict[str, str]:
    """Templates by name of the data set.

    Args:
        path: A ``.json`` file with one object, or a ``.py`` file in which dictionaries of texts are assigned.
        chosen: Which dictionary of a Python file.

    Raises:
        UserError: If the file cannot be read or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    try:
        found = _python(text, path, chosen) if path.suffix == ".py" else json.loads(text)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no {'Python' if path.suffix == '.py' else 'JSON'}: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UserError(f"{path} must hold templates by name, texts only")
    return found


def _python(text: str, path: Path, chosen: str | None) -> dict[str, str]:
    """The dictionary of a name in a source text: literals and sums of literals."""
    tables = {
        target.id: node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if not tables:
        raise UserError(f"{path} assigns no dictionary of templates")
    table = tables[str(choose("task.options.prompt_set", chosen, tables))]
    return {_literal(key, path): _literal(value, path) for key, value in zip(table.keys, table.values, strict=True)}


def _literal(node: Any, path: Path) -> str:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _literal(node.left, path) + _literal(node.right, path)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise UserError(f"{path}, line {getattr(node, 'lineno', 1)}: a template must be plain text")
