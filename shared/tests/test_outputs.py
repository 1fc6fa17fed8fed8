"""A name that cannot be written to is refused before the work, and trying it leaves nothing behind."""

import os
from pathlib import Path

import pytest

from effkit.atomic import atomic
from effkit.errors import UserError
from effkit.outputs import check_output_file, check_output_folder

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with what may stand in the way."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    Path("folder.onnx").mkdir()
    os.symlink("file", "link")
    os.symlink("gone/x.onnx", "dangling.onnx")
    os.symlink("loop", "loop")
    return tmp_path


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "out= is empty: give a file, or leave out= out"),
        (None, "out= is empty"),
        (5, "out=5 must be a path"),
        (["a"], "out=['a'] must be a path"),
        ("x.txt", "out='x.txt' must end in .onnx"),
        ("folder.onnx", "out='folder.onnx' is a folder"),
        ("file/x.onnx", "is no folder"),
        ("n" * 300 + ".onnx", "File name too long"),
        ("n" * 300 + "/x.onnx", "File name too long"),
        ("a\0b.onnx", "zero bytes"),
    ],
    ids=repr,
)
def test_what_cannot_be_written_is_one_line(here, value, said):
    before = sorted(p.name for p in here.rglob("*"))
    with pytest.raises(UserError) as error:
        check_output_file("out", value, (".onnx",))
    assert said in str(error.value)
    assert sorted(p.name for p in here.rglob("*")) == before


def test_several_suffixes_are_listed(here):
    with pytest.raises(UserError, match=r"must end in one of \.pth, \.pt"):
        check_output_file("dst", "x.bin", (".pth", ".pt"))


def test_folders_and_devices_are_no_files(here):
    with pytest.raises(UserError, match="'folder/' is a folder"):
        check_output_file("csv", "folder/")
    with pytest.raises(UserError, match="no regular file"):
        check_output_file("csv", os.devnull)
    with pytest.raises(UserError, match=r"loop.*Too many levels"):
        check_output_file("csv", "loop")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("name", ["/proc/x.onnx", "/proc/a/b/x.onnx"])
def test_a_folder_that_takes_no_files_is_named(name):
    with pytest.raises(UserError, match=r"out='/proc/.*no file can be made in '/proc'"):
        check_output_file("out", name)


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_permissions_are_asked_for(here):
    (here / "file").chmod(0o444)
    with pytest.raises(UserError, match="write-protected"):
        check_output_file("out", "file")
    (here / "folder.onnx").chmod(0o555)
    with pytest.raises(UserError, match="Permission denied"):
        check_output_file("out", "folder.onnx/x")


def test_what_can_be_written_passes_and_leaves_nothing(here):
    before = sorted(p.name for p in here.rglob("*"))
    for name in ("new.onnx", "a/b/new.onnx", "dangling.onnx", here / "new.onnx"):
        assert check_output_file("out", name, (".onnx",)) == Path(name)
    assert check_output_file("csv", "link", appends=True) == Path("link")
    assert check_output_folder("output", "a/b") == Path("a/b")
    assert sorted(p.name for p in here.rglob("*")) == before


def test_folders(here):
    for value, said in (("", "is empty"), ("file", "is a file"), ("file/x", "is no folder"), (3, "must be a path")):
        with pytest.raises(UserError, match=said):
            check_output_folder("output", value)


def test_links_are_followed_and_devices_left_alone(here):
    with atomic("link") as temporary:
        temporary.write_text("new")
    assert Path("link").is_symlink()
    assert Path("file").read_text() == "new"
    with atomic("dangling.onnx") as temporary:
        temporary.write_text("new")
    assert Path("gone/x.onnx").read_text() == "new"
    fifo = here / "pipe"
    os.mkfifo(fifo)
    with pytest.raises(FileExistsError, match="Not a regular file"), atomic(fifo):
        pass
    assert fifo.is_fifo()
    with pytest.raises(OSError, match="Too many levels"), atomic("loop"):
        pass
