"""One version for every distribution, exact pins between them, and a root that knows them all.

uv checks none of this: a workspace source replaces a pin, whatever the pin says.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?\s*(?P<pin>[^;]*)")


def requirements(project: dict[str, Any]) -> list[str]:
    """Return all requirements of a distribution, those of its extras included."""
    extras = project.get("optional-dependencies", {}).values()
    return [*project["dependencies"], *(line for lines in extras for line in lines)]


def parsed(requirement: str) -> tuple[str, str]:
    """Return the name and the version specifier of a requirement."""
    match = REQUIREMENT.match(requirement)
    assert match is not None, requirement
    return match["name"], match["pin"].strip()


@pytest.fixture(scope="module")
def root_settings(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_members_share_one_version(members):
    versions = {member.name: member.project["version"] for member in members}
    assert len(set(versions.values())) == 1, versions


def test_members_share_one_range_of_python(members, root_settings):
    ranges = {member.name: member.project["requires-python"] for member in members}
    assert set(ranges.values()) == {root_settings["project"]["requires-python"]}, ranges


def test_member_pins_members_of_its_own_release(member, members):
    names = {other.name for other in members}
    pins = [(name, pin) for name, pin in map(parsed, requirements(member.project)) if name in names]
    assert pins == [(name, f"=={member.project['version']}") for name, _ in pins]


def test_package_depends_on_the_core(package, members):
    assert members[0].name in [parsed(line)[0] for line in package.project["dependencies"]]


def test_member_takes_members_from_the_workspace(member, members):
    names = {other.name for other in members}
    needed = {name for name, _ in map(parsed, requirements(member.project)) if name in names}
    settings = tomllib.loads((member.folder / "pyproject.toml").read_text(encoding="utf-8"))
    sources = settings.get("tool", {}).get("uv", {}).get("sources", {})
    assert sources == {name: {"workspace": True} for name in needed}


def test_root_knows_every_member(root_settings, members):
    names = {member.name for member in members}
    assert set(root_settings["project"]["dependencies"]) == names
    assert root_settings["tool"]["uv"]["sources"] == {name: {"workspace": True} for name in names}
    known = root_settings["tool"]["ruff"]["lint"]["isort"]["known-first-party"]
    assert set(known) == {member.import_name for member in members}


def test_lock_holds_the_members_at_this_version(root, members):
    lock = tomllib.loads((root / "uv.lock").read_text(encoding="utf-8"))
    locked = {package["name"]: package["version"] for package in lock["package"] if "editable" in package["source"]}
    assert locked == {member.name: member.project["version"] for member in members}


def test_citation_and_changelog_name_the_version(root, members):
    version = members[0].project["version"]
    assert yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f"\n## [{version}]" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture
def copied(root, members, tmp_path: Path) -> Path:
    """A copy of everything ``scripts/set_version.py`` reads."""
    files = ["scripts/set_version.py", "CITATION.cff", "CHANGELOG.md"]
    files += [str((member.folder / "pyproject.toml").relative_to(root)) for member in members]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, tmp_path / file)
    return tmp_path


def set_version(copied: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the copy's script."""
    script = copied / "scripts" / "set_version.py"
    return subprocess.run([sys.executable, str(script), *argv], capture_output=True, text=True)


def test_set_version_changes_versions_and_pins_and_nothing_else(copied, root, members):
    old, new = members[0].project["version"], "12.34.56"
    names = {member.name for member in members}
    assert set_version(copied, "--check", new).returncode == 1
    assert set_version(copied, new).returncode == 0
    assert set_version(copied, "--check", new).returncode == 0
    assert yaml.safe_load((copied / "CITATION.cff").read_text(encoding="utf-8"))["version"] == new
    for member in members:
        path = (member.folder / "pyproject.toml").relative_to(root)
        before, after = ((folder / path).read_text(encoding="utf-8") for folder in (root, copied))
        assert tomllib.loads(after)["project"]["version"] == new
        pins = [name for name, _ in map(parsed, requirements(member.project)) if name in names]
        assert after.count(new) == 1 + len(pins)
        assert after.replace(new, old) == before


def test_set_version_keeps_the_changelog(copied, root, members):
    changelog = copied / "CHANGELOG.md"
    old, before = members[0].project["version"], changelog.read_text(encoding="utf-8")
    assert set_version(copied, "--released", old).returncode == 1, "a version without a date is not released"
    assert set_version(copied, "12.34.56").returncode == 0
    assert changelog.read_text(encoding="utf-8") == before.replace("## [", "## [12.34.56] - Unreleased\n\n## [", 1)
    assert set_version(copied, "12.34.56", "--date", "2027-01-31").returncode == 0
    assert "## [12.34.56] - 2027-01-31\n\n## [" in changelog.read_text(encoding="utf-8")
    assert "12.34.56 has no text" in set_version(copied, "--released", "12.34.56").stdout
    changelog.write_text(
        changelog.read_text(encoding="utf-8").replace("-31\n", "-31\n\nA line.\n", 1), encoding="utf-8"
    )
    assert set_version(copied, "--released", "12.34.56").returncode == 0
    assert set_version(copied, "--notes", "12.34.56").stdout == "A line.\n"
    assert set_version(copied, "--notes", "99.0").returncode == 1


def test_set_version_refuses_what_is_no_version(copied):
    result = set_version(copied, "next")
    assert result.returncode == 2
    assert "got 'next'" in result.stderr
    result = set_version(copied, "1.0", "--date", "today")
    assert result.returncode == 2
    assert "got 'today'" in result.stderr
