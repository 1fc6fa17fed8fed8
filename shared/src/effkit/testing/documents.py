"""Code blocks of Markdown documents, for tests that run what a reader is told to type.

A block can say on the line above it, in a comment that readers do not see, that it is long or why nobody can run it:

    <!-- slow -->
    <!-- not run: needs ImageNet -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Block", "blocks", "placeholder", "without_uv_run"]

_FENCE = re.compile(
    r"(?:^<!-- (?P<marker>slow|not run: [^\n]+?) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_SHELLS = {"bash", "sh", "shell", "console"}
_UV_RUN_FLAGS_WITH_VALUE = {"--package", "--extra", "--with", "--python", "--group", "--only-group", "--directory"}
_CAPITALS = re.compile(r"(?<![A-Za-z_-])(DIR|FILE|FOLDER|HOST|PATH|RUN|URL)(?![A-Za-z_])")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Args:
        language: As written behind the fence; empty if nothing is.
        body: What stands between the fences.
        line: Number of lines of the document before the body.
        marker: "slow", "not run: REASON" or "".
    """

    language: str
    body: str
    line: int
    marker: str

    @property
    def is_shell(self) -> bool:
        """Whether it holds commands."""
        return self.language in _SHELLS

    @property
    def is_run(self) -> bool:
        """Whether a test may run it."""
        return not self.marker.startswith("not run")

    def commands(self) -> Iterator[list[str]]:
        """Yield the words of every command, without comments and assignments of variables; nothing for no shell."""
        if not self.is_shell:
            return
        lines = self.body.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in lines:
            yield from _split(line)


def blocks(text: str) -> list[Block]:
    """Return all fenced blocks of a document that begin in its first column, in their order."""
    return [
        Block(found["language"], found["body"], text.count("\n", 0, found.start("body")), found["marker"] or "")
        for found in _FENCE.finditer(text)
    ]


def _split(line: str) -> Iterator[list[str]]:
    """Yield the commands of a line as lists of words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";&|"):
            if words:
                yield words
            words = []
        elif words or not re.fullmatch(r"[A-Z_]+=\S*", word):
            words.append(word)


def without_uv_run(words: list[str]) -> list[str]:
    """Return what ``uv run`` runs."""
    if words[:2] != ["uv", "run"]:
        return words
    rest = words[2:]
    while rest and rest[0].startswith("-"):
        rest = rest[2:] if rest[0] in _UV_RUN_FLAGS_WITH_VALUE else rest[1:]
    return rest


def placeholder(word: str) -> str:
    """Return what in a word stands for something the reader fills in (``RUN``, ``PATH``, ``...``), or ""."""
    if "..." in word or "<" in word:
        return "..."
    found = _CAPITALS.search(word)
    return found[1] if found else ""
