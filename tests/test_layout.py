"""The rules of the house that a file's place or its imports can break.

Imports go one way (package -> core -> libraries), the library works without Hydra and Lightning, and nothing in the
repository depends on the machine it was written on.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

# A place on somebody's machine. The parentheses keep this line from matching itself.
MACHINE_PATH = re.compile(r"(?<![\w.:/}>-])/(home|root|Users|work|tmp)(/|\b)")
LARGEST = 300 * 1024
# What a distribution's source folder may hold. A new kind of file is added here on purpose, not by accident.
SOURCES = {".py", ".yaml", ".txt", ".csv", ".toml", ".c"}


def texts(root: Path, tracked: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield every tracked text file but the lock, with its contents."""
    for path in tracked:
        if path.name == "uv.lock":
            continue
        try:
            yield path, (root / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def imports(file: Path) -> set[str]:
    """Return the top-level names a Python file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("part", ["src", "tests"])
def test_imports_go_one_way(member, members, part):
    """No package imports another, and the core imports none."""
    foreign = {other.import_name for other in members[1:]} - {member.import_name}
    found = {
        str(file.relative_to(member.folder)): sorted(imports(file) & foreign)
        for file in (member.folder / part).rglob("*.py")
        if imports(file) & foreign
    }
    assert found == {}


def test_library_needs_neither_hydra_nor_lightning(package):
    code = f"import sys, {package.import_name}; print(*{{'hydra', 'lightning', 'omegaconf'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_member_is_complete(member):
    for name in ("README.md", "tests", f"src/{member.import_name}/__init__.py", f"src/{member.import_name}/py.typed"):
        assert (member.folder / name).exists(), name
    assert member.project["license"] == "Apache-2.0"
    assert f"# {member.name}\n" in (member.folder / "README.md").read_text(encoding="utf-8")


def test_package_is_a_paper(package):
    for name in ("CITATION.bib", "results", "tests/test_keys.py"):
        assert (package.folder / name).exists(), name
    assert package.name in package.project["scripts"]
    assert list(package.project["entry-points"]["effkit.papers"]) == [package.name]


def test_source_folders_hold_code_and_configs_only(root, tracked, member):
    source = member.source.relative_to(root)
    inside = [path for path in tracked if path.is_relative_to(source) and path.name != "py.typed"]
    assert inside
    assert [str(path) for path in inside if path.suffix not in SOURCES] == []


def test_every_member_is_in_the_ci_matrices(root, members):
    """A package that CI does not know is a package that is not tested."""
    names = {member.name: str(member.folder.relative_to(root)) for member in members}
    with_path = [("ci", "test"), ("ci", "lowest"), ("gpu", "test")]
    by_name = [("ci", "wheels", set(names)), ("reproduce", "reproduce", set(names) - {members[0].name})]
    jobs = {
        file: yaml.safe_load((root / ".github" / "workflows" / f"{file}.yml").read_text(encoding="utf-8"))["jobs"]
        for file in ("ci", "gpu", "reproduce")
    }
    for file, job in with_path:
        matrix = jobs[file][job]["strategy"]["matrix"]["package"]
        assert {entry["name"]: entry["path"] for entry in matrix} == names, f"{file}.yml, job {job}"
    for file, job, expected in by_name:
        assert set(jobs[file][job]["strategy"]["matrix"]["package"]) == expected, f"{file}.yml, job {job}"


def test_every_program_is_tried_from_its_wheel(root, members):
    """`.ci/run` installs the wheels into an empty environment and runs each program there; a package also does work."""
    lines = (root / ".ci" / "run").read_text(encoding="utf-8")
    smoke = lines[lines.index("wheels_alone() {") : lines.index('step "uv"')].splitlines()
    for name in [script for member in members for script in member.scripts]:
        mine = [line.split()[1] for line in smoke if line.split()[:1] == [name]]
        assert "--help" in mine, name
        assert name == members[0].name or set(mine) - {"--help", "doctor"}, f"{name} only says who it is"


def test_no_paths_of_a_machine(root, tracked):
    found = [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts(root, tracked)
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_no_registry_outside_the_lock(root, tracked):
    """The lock names the registry; everywhere else it is the user's choice."""
    lock = tomllib.loads((root / "uv.lock").read_text(encoding="utf-8"))
    files = (wheel["url"] for package in lock["package"] for wheel in package.get("wheels", []))
    registries = (package["source"].get("registry", "") for package in lock["package"])
    hosts = {address.split("/")[2] for address in [*files, *registries] if "://" in address}
    assert hosts
    found = [(str(path), host) for path, text in texts(root, tracked) for host in hosts if host in text]
    assert found == []


def test_no_large_files(root, tracked):
    sizes = {str(path): (root / path).stat().st_size for path in tracked if path.name != "uv.lock"}
    assert {path: size for path, size in sizes.items() if size > LARGEST} == {}


def test_no_compiled_or_binary_weights(tracked):
    suffixes = {".pt", ".pth", ".ckpt", ".safetensors", ".onnx", ".bin", ".so", ".pyc", ".whl", ".gz", ".zip", ".npz"}
    assert [str(path) for path in tracked if path.suffix in suffixes] == []
