"""Configs of a package are parsed once, and read again when somebody edits them."""

import os
import sys
from pathlib import Path

import pytest

from effkit.cli import compose, shipped

MAIN = "defaults:\n  - part: a\n  - _self_\nnumber: 1\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of configs."""
    folder = tmp_path / "shipped_for_a_test"
    (folder / "configs" / "part").mkdir(parents=True)
    for place in (folder, folder / "configs"):
        (place / "__init__.py").touch()
    (folder / "configs" / "train.yaml").write_text(MAIN)
    (folder / "configs" / "part" / "a.yaml").write_text("name: a\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shipped_for_a_test", "shipped_for_a_test.configs"):  # of the test before, in another place
        sys.modules.pop(name, None)
    return folder / "configs"


def composed(*words: str):
    return compose("shipped", "shipped_for_a_test.configs", "train", list(words))


def test_files_are_parsed_once(package: Path) -> None:
    composed()
    before = dict(shipped._parsed)
    assert composed("number=2").number == 2
    assert composed("part.name=b").part.name == "b"
    assert (composed().number, composed().part.name) == (1, "a")  # nobody changed what is kept
    assert shipped._parsed == before
    mine = [file.name for _, file in before if package in file.parents]
    assert sorted(mine) == ["a.yaml", "train.yaml"]


def test_a_file_that_was_edited_is_read_again(package: Path) -> None:
    assert composed().number == 1
    file = package / "train.yaml"
    file.write_text(MAIN.replace("1", "7"))  # of the same size
    os.utime(file, ns=(1, 1))
    assert composed().number == 7


def test_a_file_that_appears_or_goes_is_seen(package: Path) -> None:
    composed()
    (package / "part" / "b.yaml").write_text("name: b\n")
    assert composed("part=b").part.name == "b"
    (package / "part" / "b.yaml").unlink()
    with pytest.raises(ValueError, match="part='b'"):
        composed("part=b")
