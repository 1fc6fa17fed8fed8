"""What the documents print is true: commands exist, with these options; Python runs; links lead somewhere.

Commands are composed here and not run: a renamed command, group, option or key fails within milliseconds.
test_blocks.py runs them, with ``--slow``.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from effkit.testing.documents import blocks, without_uv_run

INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PRINTED = re.compile(r"^print\(.*\)  # (?P<output>.+)$", re.MULTILINE)
# A config group and some of its options: `loss` (ce, hinton).
GROUP = re.compile(r"`(?P<group>[a-z_]+)`\s\((?P<options>[a-z0-9_]+(?:,\s[^)]*)?)\)")
LINK = re.compile(r"\]\((?P<target>[^)\s#]+)[^)]*\)")
# Programs of others that a document may call; what comes after their names is theirs.
PROGRAMS = {"cd", "export", "git", "jupyter", "mkdocs", "pip", "python", "python3", "sbatch", "torchrun", "uv", "uvx"}
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "shared/README.md", "packages/*/README.md", "docs/*.md", "docs/*/*.md"]


def documents(root: Path) -> list[Path]:
    """Return all READMEs, CONTRIBUTING.md, and the pages that only the site has."""
    return [path for pattern in DOCUMENTS for path in sorted(root.glob(pattern))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test once for each document."""
    if "document" in metafunc.fixturenames:
        root = Path(__file__).resolve().parents[1]
        found = documents(root)
        metafunc.parametrize("document", found, ids=[str(path.relative_to(root)) for path in found])


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every shell command in the fenced blocks of a document."""
    for block in blocks(text):
        yield from block.commands()


def is_placeholder(word: str) -> bool:
    """Return whether a word stands for something the reader fills in: ``...``, ``<file>``, ``key=...``."""
    return "..." in word or "<" in word


def first_of_sweep(word: str) -> str:
    """Return an override of one job of the sweep that an override asks for."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return word
    return f"{override.key_or_group}={next(override.sweep_string_iterator())}"


def check_ours(app: Any, words: list[str]) -> None:
    """Compose a command line of ours; raises if the command, or an option of it, does not exist."""
    assert words, f"{app.prog} needs a command"
    if words[0].startswith("-"):
        assert words[0] in {"--help", "--version", "--completion"}
        return
    name, rest = words[0], [word for word in words[1:] if not is_placeholder(word)]
    command = app.find(name)
    multirun = {"--multirun", "-m"} & set(rest)
    with_value = {"--config-dir", "--cfg", "-p"}  # flags whose value is the next word
    overrides = []
    for number, word in enumerate(rest):
        if word in {"--help", *with_value, *multirun} or (number and rest[number - 1] in with_value):
            continue
        if "=" in word or word.startswith(("+", "~")):
            overrides.append(first_of_sweep(word) if multirun else word)
        else:
            assert command.positional is not None, f"{word!r}: {app.prog} {name} takes no words without ="
    app.compose(name, overrides)


@pytest.fixture(scope="session")
def apps(members) -> dict[str, Any]:
    """All console scripts by name."""
    return {name: member.load(name) for member in members for name in member.scripts}


def test_commands_exist(document, root, apps):
    text = document.read_text(encoding="utf-8")
    for words in commands(text):
        program, *rest = without_uv_run(words)
        if program in apps:
            check_ours(apps[program], rest)
        elif "/" in program:
            assert (root / program).is_file(), program
        else:
            assert program in PROGRAMS or Path(sys.executable).with_name(program).is_file(), program


def test_commands_in_the_text_exist(document, apps):
    for span in INLINE.findall(document.read_text(encoding="utf-8")):
        words = span.split()
        if words[:2] == ["uv", "run"]:
            words = without_uv_run(words)
        if len(words) > 1 and words[0] in apps and not words[1].isupper():
            check_ours(apps[words[0]], shlex.split(" ".join(words[1:])))


def test_options_of_groups_exist(package, root):
    """What a README lists behind a group's name can be chosen; words between the options are left alone."""
    text = (package.folder / "README.md").read_text(encoding="utf-8")
    shipped = [package.configs, root / "shared" / "src" / "effkit" / "configs"]
    for match in GROUP.finditer(text):
        found = {path.stem for folder in shipped for path in (folder / match["group"]).glob("*.yaml")}
        names = re.findall(r"\w*_\w*|\w+(?=,|$)", match["options"])
        if found:
            assert [name for name in names if name not in found] == [], match[0]


def test_files_named_in_commands_exist(document, root):
    for words in commands(document.read_text(encoding="utf-8")):
        for word in words:
            path = word.partition("[")[0]
            if re.match(r"(\./)?(packages|shared|tests|scripts|\.ci|\.github)(/|$)", path) and not is_placeholder(path):
                assert (root / path).exists(), word


def test_links_lead_somewhere(document, root):
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), target


def test_python_runs_and_prints_what_it_says(document, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = document.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(text):
        if block.language != "python":
            continue
        code = compile("\n" * block.line + block.body, str(document), "exec")
        if not block.marker:
            exec(code, names)  # one namespace for a document: a reader goes on where the last block ended
            printed = capsys.readouterr().out.splitlines()
            said = [match["output"] for match in PRINTED.finditer(block.body)]
            assert [line for line in said if line not in printed] == []


def test_root_readme_starts_with_the_two_commands(root):
    first = blocks((root / "README.md").read_text(encoding="utf-8"))[0].body
    assert "pip install -q uv && uv run effkit reproduce" in first
    assert "pip install -q uv && uv run pytest" in first


def test_root_readme_lists_every_member(root, members):
    text = (root / "README.md").read_text(encoding="utf-8")
    for member in members:
        assert f"| [{member.name}]({member.folder.relative_to(root)}) |" in text


def test_readme_of_the_core_names_every_module(root):
    text = (root / "shared" / "README.md").read_text(encoding="utf-8")
    core = root / "shared" / "src" / "effkit"
    modules = {path.stem for path in core.glob("[a-z]*.py")} | {path.parent.name for path in core.glob("*/__init__.py")}
    # The script `effkit` and the YAML files are no modules to import.
    assert modules - {"configs", "main"} == set(re.findall(r"`effkit\.(\w+)`", text[: text.index("Imports go")]))


def test_ci_runs_the_command_of_the_readme(root):
    assert "uv run pytest" in (root / ".ci" / "run").read_text(encoding="utf-8")
