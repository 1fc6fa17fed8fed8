"""Configs of a package are parsed once, and read again when somebody edits them."""

import os
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

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


def test_a_file_that_hides_one_of_the_core_is_seen(package: Path) -> None:
    (package / "train.yaml").write_text("defaults:\n  - compute\n  - _self_\n")
    assert composed().seed == 0
    (package / "compute.yaml").write_text("seed: 7\n")
    assert composed().seed == 7
    (package / "compute.yaml").unlink()
    assert composed().seed == 0


def test_a_config_that_is_registered_later_is_seen(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", {**store.repo})
    (package / "train.yaml").write_text("defaults:\n  - optional part: late\n  - _self_\nnumber: 1\n")
    assert "part" not in composed()
    store.store(name="late", node={"name": "late"}, group="part")
    assert composed().part.name == "late"


def test_the_time_is_told_anew(package: Path) -> None:
    """OmegaConf keeps what `now` gave with the config that was asked."""
    (package / "train.yaml").write_text("when: ${now:%S%f}\nflag: ${when}\n")
    assert composed("when=x").when == "x"  # looks up what it was
    first, second = composed(), composed()
    assert first.when == first.when != second.when == second.flag


def test_what_a_word_draws_is_drawn_anew(package: Path) -> None:
    word = f"+drawn=shuffle({list(range(60))})"
    one, two = composed(word).drawn, composed(word).drawn
    assert sorted(one) == sorted(two) == list(range(60))
    assert one != two


def test_an_option_may_follow_another(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpolations in lists of defaults: of other choices, and of what may change meanwhile."""
    (package / "part" / "b.yaml").write_text("name: b\n")
    (package / "like").mkdir()
    for name in "ab":
        (package / "like" / f"{name}.yaml").write_text(f"after: {name}\n")
    (package / "train.yaml").write_text("defaults:\n  - part: a\n  - like: ${part}\n  - _self_\n")
    for words, name in (((), "a"), (("part=b",), "b"), (("part=b", "like=a"), "a"), ((), "a")):
        assert composed(*words).like.after == name
    (package / "train.yaml").write_text("defaults:\n  - part: ${oc.env:PART_OF_TEST}\n  - _self_\n")
    for name in "aba":
        monkeypatch.setenv("PART_OF_TEST", name)
        assert composed().part.name == name
