"""Docstrings as mkdocs shows them: examples as code, references of Sphinx as plain names; sources stay as they are."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|obj):`(~?)([^`]+)`")
EXAMPLE = re.compile(r"(?m)^Example:$")


def readable(text: str) -> str:
    """A docstring whose example is a section of code, and whose roles are names in code type."""

    def name(match: re.Match[str]) -> str:
        return f"`{match[2].rsplit('.', 1)[-1] if match[1] else match[2]}`"

    return ROLE.sub(name, EXAMPLE.sub("Examples:", text))


class ReadableDocstrings(griffe.Extension):
    """Griffe's hook for every object it reads."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
