"""The import contracts: kept by the tree as it is, and able to refuse what they are there for."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

MOST_ENTRIES = 16  # of a package's top folder
MOST_LINES, MEDIAN_LINES = 450, 150

# What must not be, as one line appended to a module, and a word of the contract that refuses it.
PLANTED = {
    "the core imports a paper": ("effkit/errors.py", "import tnt_vit", "the core knows no paper"),
    "a package imports another": ("kd_autoaug/augmentation/augment.py", "import tnt_vit.model", "independent"),
    "a fast path imports the model": ("tnt_vit/ops/inner_torch.py", "import tnt_vit.model", "floors of tnt_vit"),
    "a command imports the evidence": (
        "esa_attention/commands/build.py",
        "def f():\n    from esa_attention.paper import rows",
        "floors of esa_attention",
    ),
    "a command imports the command line, for its types": (
        "tnt_vit/commands/build.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tnt_vit.cli import main",
        "floors of tnt_vit",
    ),
    "two neighbours import each other": (
        "effkit/report/files.py",
        "import effkit.report.report",
        "no circles",
    ),
    "a kernel imports Hydra": ("kd_autoaug/ops/layers.py", "import hydra", "ops"),
}


def lint(root: Path, home: Path | None = None) -> tuple[int, dict[str, str]]:
    """Run the contracts of the root's pyproject, on a copy of the sources if ``home`` has one.

    Returns:
        The exit code, and KEPT or BROKEN by the contract's name.
    """
    variables = dict(os.environ, PYTHONPATH=str(home) if home else "", COLUMNS="300")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", root / "pyproject.toml"],
        cwd=root, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = dict(re.findall(r"^(.+) (KEPT|BROKEN)\s*$", done.stdout, re.MULTILINE))
    assert found, done.stdout + done.stderr
    return done.returncode, found


def test_contracts_name_every_package_and_ignore_nothing(root, members):
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    names = {member.import_name for member in members}
    assert set(settings["root_packages"]) == names
    assert not settings.get("exclude_type_checking_imports", False)
    contracts = settings["contracts"]
    assert [c["name"] for c in contracts if "ignore_imports" in c] == []
    layered = {container for c in contracts if c["type"] == "layers" for container in c["containers"]}
    assert names <= layered
    assert all(c.get("exhaustive") for c in contracts if c["type"] == "layers" and set(c["containers"]) & names)
    acyclic = {ancestor for c in contracts if c["type"] == "acyclic_siblings" for ancestor in c["ancestors"]}
    assert acyclic == names


def test_contracts_are_kept(root):
    code, found = lint(root)
    assert [name for name, verdict in found.items() if verdict == "BROKEN"] == []
    assert code == 0


def test_planted_imports_are_refused(root, members, tmp_path):
    """All at once in one copy: a run takes seconds, and each must break the contract that is there for it."""
    for member in members:
        shutil.copytree(member.source, tmp_path / member.import_name, ignore=shutil.ignore_patterns("__pycache__"))
    for place, line, _ in PLANTED.values():
        with open(tmp_path / place, "a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    code, found = lint(root, tmp_path)
    assert code == 1
    broken = [name for name, verdict in found.items() if verdict == "BROKEN"]
    unnoticed = {what: word for what, (_, _, word) in PLANTED.items() if not any(word in name for name in broken)}
    assert unnoticed == {}


def test_a_package_is_readable_at_a_glance(package):
    entries = sorted(path.name for path in package.source.iterdir() if path.name != "__pycache__")
    assert len(entries) <= MOST_ENTRIES, entries


def test_modules_are_short(member):
    lines = {
        str(path.relative_to(member.source)): len(path.read_text(encoding="utf-8").splitlines())
        for path in member.source.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
    assert statistics.median(lines.values()) <= MEDIAN_LINES


@pytest.mark.parametrize("folder", ["paper", "commands", "ops", "configs"])
def test_every_package_has_the_same_floors(package, folder):
    assert (package.source / folder / "__init__.py").is_file()
