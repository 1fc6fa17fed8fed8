"""Of many pictures the readable ones go on; the others are named at the end."""

import pytest
from PIL import Image

from effkit.data import Unreadable, load_picture
from effkit.data.pictures import UnreadablePicture


@pytest.fixture
def files(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    for number in range(5):
        (tmp_path / f"cut{number}.png").write_bytes(whole[:45])
    return {p.stem: str(p) for p in sorted(tmp_path.iterdir())}


def test_the_others_go_on(files):
    unreadable = Unreadable()
    found = unreadable.read([files["cut0"], "china", files["good"]], load_picture)
    assert [name for name, _ in found] == ["china", files["good"]]
    assert list(unreadable.reasons) == [files["cut0"]]
    assert unreadable.exit_code == 1
    unreadable.check()
    (line,) = unreadable.lines()
    assert line.startswith("1 of 3 pictures cannot be read: ")
    assert files["cut0"] in line


def test_nothing_is_said_where_all_can_be_read(files):
    unreadable = Unreadable()
    assert len(unreadable.read([files["good"]], load_picture)) == 1
    unreadable.check()
    assert (unreadable.exit_code, unreadable.lines()) == (0, [])


def test_many_reasons_are_counted_and_none_readable_is_refused(files):
    unreadable = Unreadable()
    bad = [files[f"cut{n}"] for n in range(5)]
    for name in bad:  # in batches of one
        assert unreadable.read([name], load_picture) == []
    assert unreadable.lines()[0].endswith("; and 2 more")
    with pytest.raises(UnreadablePicture, match=r"cut0\.png.*none of the 5 pictures can be read"):
        unreadable.check()
