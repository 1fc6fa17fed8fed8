"""What a user gets who installs a wheel: all modules, all configs, no tests, and requirements an index can resolve.

The classic accident is an unanchored ``data/`` in ``.gitignore``: it silently drops ``configs/data/`` from wheels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wheels(root, members, tmp_path_factory) -> dict[str, zipfile.Path]:
    """Build every wheel as a release does; return them by distribution name."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("building wheels needs uv, which is not installed here")
    folder = tmp_path_factory.mktemp("wheels")
    # Offline: the build backend is in uv's cache since it installed the workspace.
    argv = [uv, "build", "--offline", "--all-packages", "--wheel", "--no-sources", "--out-dir", str(folder)]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {path.name.split("-")[0]: zipfile.Path(path) for path in folder.glob("*.whl")}
    assert set(built) == {member.import_name for member in members}
    return {member.name: built[member.import_name] for member in members}


def contents(wheel: zipfile.Path) -> set[str]:
    """Return the names of the files in a wheel."""
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def test_wheel_holds_every_file_of_the_source_tree(member, wheels):
    base = member.source.parent
    files = (path for path in member.source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    expected = {path.relative_to(base).as_posix() for path in files}
    assert any(name.endswith(".py") for name in expected)
    assert expected - contents(wheels[member.name]) == set()


def test_wheel_holds_nothing_but_its_package(member, wheels):
    info = f"{member.import_name}-{member.project['version']}.dist-info"
    roots = {Path(name).parts[0] for name in contents(wheels[member.name])}
    # Hydra looks for launchers in a name space that its plugins share.
    shared = {"hydra_plugins"} & {path.name for path in member.source.parent.iterdir()}
    assert roots == {member.import_name, info} | shared
    plugins = {name for name in contents(wheels[member.name]) if name.startswith("hydra_plugins/")}
    assert plugins == ({"hydra_plugins/effkit_launchers.py"} if member.name == "effkit" else set())
    assert not [name for name in contents(wheels[member.name]) if "tests" in Path(name).parts]


def test_wheel_is_typed(member, wheels):
    assert f"{member.import_name}/py.typed" in contents(wheels[member.name])


def test_wheel_asks_for_members_by_version_only(member, members, wheels):
    version = member.project["version"]
    wheel = wheels[member.name]
    metadata = Parser().parsestr((wheel / f"{member.import_name}-{version}.dist-info" / "METADATA").read_text())
    requires = metadata.get_all("Requires-Dist", [])
    assert not [line for line in requires if "@" in line]
    for other in members:
        ours = [line for line in requires if line.split(";")[0].split("==")[0].split("[")[0].strip() == other.name]
        assert all(line.split(";")[0].strip().endswith(f"=={version}") for line in ours), ours


def test_wheel_installs_its_commands(member, wheels):
    info = wheels[member.name] / f"{member.import_name}-{member.project['version']}.dist-info"
    lines = (info / "entry_points.txt").read_text().splitlines()
    for script, target in member.scripts.items():
        assert f"{script} = {target}" in lines


def test_wheel_says_what_an_index_shows(member, wheels):
    """What `twine check --strict` asks for, and what an index refuses or leaves empty."""
    info = wheels[member.name] / f"{member.import_name}-{member.project['version']}.dist-info"
    metadata = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Name"] == member.name
    assert 20 < len(metadata["Summary"]) <= 512
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == member.project["requires-python"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().lstrip().startswith(f"# {member.name}\n")
