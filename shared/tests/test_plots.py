"""Pictures: captions of any length stay inside of the canvas, and every file says what is seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effkit.plots import describe, figure, fit_captions, joined, read_description, save_png
from effkit.report import write_bytes

SEEN = "A line that rises from 1 to 3, café and 精度 included."
PATH = "runs/of/somebody/" + "a_folder_with_a_name/" * 8 + "picture.png"
LONG = f"a caption that goes on about what was drawn, of what, with which weights, from {PATH}, and then some more"


def cut(fig: Any) -> list[str]:
    """The edges of the canvas that something drawn is beyond."""
    fig.draw_without_rendering()
    canvas, drawn = fig.bbox_inches, fig.get_tightbbox()
    beyond = {
        "left": canvas.x0 - drawn.x0,
        "bottom": canvas.y0 - drawn.y0,
        "right": drawn.x1 - canvas.x1,
        "top": drawn.y1 - canvas.y1,
    }
    return [edge for edge, inches in beyond.items() if inches > 0]


def title(fig: Any, ax: Any, words: str) -> Any:
    return fig.suptitle(words, x=0.01, ha="left")


def middle_title(fig: Any, ax: Any, words: str) -> Any:
    return fig.suptitle(words)


def caption(fig: Any, ax: Any, words: str) -> Any:
    return fig.supxlabel(words, x=0.01, ha="left", fontsize=8)


def left_title(fig: Any, ax: Any, words: str) -> Any:
    return ax.set_title(words, loc="left")


def axes_title(fig: Any, ax: Any, words: str) -> Any:
    return ax.set_title(words)


def axis_name(fig: Any, ax: Any, words: str) -> Any:
    return ax.set_xlabel(words)


def upright_name(fig: Any, ax: Any, words: str) -> Any:
    return ax.set_ylabel(words)


CAPTIONS = [title, middle_title, caption, left_title, axes_title, axis_name, upright_name]


@pytest.mark.parametrize("write", CAPTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("across", [1, 2])
def test_a_long_caption_is_wrapped_to_its_room(tmp_path: Path, write: Any, across: int) -> None:
    with figure(width=5, height=3) as fig:
        axes = fig.subplots(1, across, squeeze=False)[0]
        for ax in axes:
            ax.plot([1, 2, 3])
        text = write(fig, axes[0], LONG)
        describe(fig, SEEN)
        path = save_png(fig, tmp_path / "a.png")
        assert cut(fig) == []
        lines = text.get_text().split("\n")
        assert len(lines) > 1
        assert "".join(lines).replace(" ", "") == LONG.replace(" ", "")  # nothing is left out
        width, height = fig.get_size_inches()
        assert width == 5
        assert all(ax.get_position().height * height > 1.5 for ax in axes)  # lines do not eat the plot
        with Image.open(path) as picture:
            assert picture.size == (600, pytest.approx(120 * height, abs=1))
        if across == 2 and write in (left_title, axes_title, axis_name):
            assert text.get_window_extent().x1 < axes[1].get_window_extent().x0


def test_captions_of_parts_of_a_figure(tmp_path: Path) -> None:
    with figure(width=6, height=3) as fig:
        for part in fig.subfigures(1, 2):
            part.suptitle(LONG, fontsize=8)
            part.subplots().plot([1, 2, 3])
        fit_captions(fig)
        assert cut(fig) == []
        left, right = (part.texts[0].get_window_extent() for part in fig.subfigs)
        assert left.x1 < right.x0


def test_what_fits_is_left_alone(tmp_path: Path) -> None:
    with figure(width=4, height=3) as fig:
        ax = fig.subplots()
        ax.set(title="accuracy by epoch", xlabel="epoch", ylabel="accuracy, %")
        fig.suptitle("two\nlines")
        fit_captions(fig)
        assert fig.get_suptitle() == "two\nlines"
        assert ax.get_title() == "accuracy by epoch"
        assert fig.get_size_inches().tolist() == [4, 3]


def test_formulas_are_not_broken() -> None:
    formula = r"$\sum_{i > r} s_i^2$"
    with figure(width=2, height=2) as fig:
        ax = fig.subplots()
        ax.set_title(f"what is left over, {formula}, of all the energy there is", fontsize=9)
        fit_captions(fig)
        assert formula in ax.get_title()
        assert cut(fig) == []


def test_the_canvas_grows_for_what_sticks_out_of_it(tmp_path: Path) -> None:
    with figure(width=3, height=2) as fig:
        fig.text(0.9, 0.5, "beyond the edge", rotation=45)
        describe(fig, SEEN)
        with Image.open(save_png(fig, tmp_path / "a.png")) as picture:
            assert picture.width > 360
            pixels = np.asarray(picture.convert("L"))
        assert pixels.min() < 128
        assert all(edge.min() > 250 for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


@pytest.mark.parametrize("photos", [False, True])
def test_the_file_says_what_is_seen(tmp_path: Path, photos: bool) -> None:
    rng = np.random.default_rng(0)
    for name, drawn in (("small", rng.random((9, 9, 3))), ("reduced", rng.random((600, 600, 3)))):
        with figure(width=4, height=4) as fig:
            fig.subplots().imshow(drawn)
            describe(fig, SEEN.replace("and ", "and\n"))
            path = save_png(fig, tmp_path / f"{name}.png", photos=photos)
        assert path.stat().st_size < 300 * 1024
        assert read_description(path) == SEEN


def test_a_picture_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with figure(width=3, height=2) as fig:
        fig.subplots()
        with pytest.raises(ValueError, match="must say in a sentence what is seen"):
            save_png(fig, tmp_path / "a.png")
        for words in ("", "Accuracy", "accuracy by epoch.", "Accuracy rises from 3 to 5 %"):
            with pytest.raises(ValueError, match="must be a sentence"):
                describe(fig, words)
    assert not list(tmp_path.iterdir())


def test_a_picture_of_somebody_else(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert read_description(tmp_path / "a.png") == ""
    with pytest.raises(OSError, match=r"b\.png"):
        read_description(write_bytes(tmp_path / "b.png", b"no picture"))


def test_lists_are_joined_as_people_say_them() -> None:
    assert [joined([]), joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert joined([str(i) for i in range(9)]) == "0, 1, 2, 3, 4, 5 and 3 more"
