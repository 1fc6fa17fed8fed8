"""What the workspace's tests share: its members, read from their pyproject files, and the commands they install.

Nothing here knows a package by name, so that a new one is tested from its first day.
"""

from __future__ import annotations

import subprocess
import tomllib
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Member:
    """One distribution of the workspace."""

    folder: Path

    @cached_property
    def project(self) -> dict[str, Any]:
        """The ``[project]`` table of its pyproject.toml."""
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    @property
    def name(self) -> str:
        """The distribution's name, e.g. ``tnt-vit``."""
        return self.project["name"]

    @property
    def import_name(self) -> str:
        """The name it is imported by, e.g. ``tnt_vit``."""
        return self.name.replace("-", "_")

    @property
    def source(self) -> Path:
        """The folder of the importable package."""
        return self.folder / "src" / self.import_name

    @property
    def configs(self) -> Path:
        """The folder of its Hydra configs."""
        return self.source / "configs"

    @property
    def scripts(self) -> dict[str, str]:
        """Console scripts: name -> ``module:object``."""
        return self.project.get("scripts", {})

    def load(self, script: str) -> Any:
        """Return the object behind a console script, an ``effkit.cli.App``."""
        return EntryPoint(script, self.scripts[script], "console_scripts").load()

    def __str__(self) -> str:
        """Return the name, which is the test's id too."""
        return self.name


MEMBERS = [Member(path.parent) for path in sorted(ROOT.glob("packages/*/pyproject.toml"))]
MEMBERS.insert(0, Member(ROOT / "shared"))
SCRIPTS = [(member, script) for member in MEMBERS for script in member.scripts]


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the workspace."""
    return ROOT


@pytest.fixture(scope="session")
def members() -> list[Member]:
    """Return all distributions, the core first."""
    return MEMBERS


@pytest.fixture(scope="session", params=MEMBERS, ids=str)
def member(request: pytest.FixtureRequest) -> Member:
    """Return each distribution in turn."""
    return request.param


@pytest.fixture(scope="session", params=MEMBERS[1:], ids=str)
def package(request: pytest.FixtureRequest) -> Member:
    """Return each distribution but the core in turn."""
    return request.param


@pytest.fixture(scope="session", params=SCRIPTS, ids=lambda pair: pair[1])
def script(request: pytest.FixtureRequest) -> tuple[Member, str]:
    """Return each console script in turn, with the distribution it belongs to."""
    return request.param


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Return every file that is, or is about to be, in the repository, as paths relative to the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout, so nothing tells the repository's files from others")
    argv = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted(Path(name) for name in set(names) if name and (ROOT / name).is_file())
