"""Pictures: written, small, the same every time, nothing written over something else, mistakes named."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effkit.errors import UserError
from effkit.plots import read_description
from esa_attention import plots
from esa_attention.plots import canvas

LENGTHS = [8192 << i for i in range(6)]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def chosen(steps: int, start: int, num_initial: int, num_local: int, k: int) -> tuple[list[Any], list[int]]:
    """Random choices of a decoding run."""
    generator = np.random.default_rng(1)
    positions = [start + i for i in range(steps)]
    picks = [np.sort(generator.choice(np.arange(num_initial, p - num_local), k, replace=False)) for p in positions]
    return picks, positions


def needle(path: Path) -> Path:
    scores = {name: random(6, 6, seed=i) for i, name in enumerate(("esa", "full", "sinks_local", "key_pca", "exact"))}
    scores["full"][0, 0] = np.nan
    return plots.needle_heatmap(scores, [500 << i for i in range(6)], np.linspace(0, 1, 6), path, trained_context=512)


def fine_needle(path: Path) -> Path:
    grid = list(range(1000, 31_000, 1000))
    return plots.needle_heatmap({n: random(20, 30) for n in ("esa", "full")}, grid, np.linspace(0, 1, 20), path)


def one_cell(path: Path) -> Path:
    return plots.needle_heatmap({"esa": torch.ones(1, 1)}, [1000], [0.5], path)


def recall(path: Path) -> Path:
    values = {"closed_form": 0.9 + random(32) / 12, "sgd_paper": 0.8 + random(32) / 8, "key_pca": random(32, seed=1)}
    return plots.recall_curves(values, path, remark="Mistral-7B, 2,000 queries, top 2,048 of 23,000 keys, one by one")


def close_recall(path: Path) -> Path:
    """Curves that end in one point: their names must still be apart."""
    values = {"closed_form": [0.97, 0.96], "sgd_paper": [0.97, 0.96], "key_pca": [0.5, 0.96], "exact": [1.0, 1.0]}
    return plots.recall_curves(values, path)


def time(path: Path) -> Path:
    full, esa = 1e-6 * np.array(LENGTHS), 4e-3 + 6e-8 * np.array(LENGTHS)
    curves = {"sdpa": full, "esa": esa, "esa_int8": 0.8 * esa}
    bounds = {name: 0.6 * values for name, values in curves.items()}
    remark = "CPU, 2 threads, fp32, heads 32/8/128"
    spread = {"esa": (0.9 * esa, 1.2 * esa)}
    return plots.time_curves(LENGTHS, curves, path, bounds=bounds, spread=spread, baseline="sdpa", remark=remark)


def read(path: Path) -> Path:
    tokens = np.array(LENGTHS)
    curves = {"full": 4096 * tokens, "esa": 2.6e7 + 256 * tokens, "esa_int8": 2.6e7 + 132 * tokens}
    return plots.bytes_curves(LENGTHS, curves, path, bounds={"index alone": 256 * tokens}, baseline="full")


def perplexity(path: Path) -> Path:
    edges = [0, *(256 << i for i in range(7))]
    curves = {"stock": np.linspace(2, 7, 7), "esa": [1.8] * 7, "exact": [1.79] * 7, "sinks_local": [1.9] * 7}
    return plots.perplexity_curves(curves, edges, path, trained_context=256, remark="byte-level model")


def narrow_perplexity(path: Path) -> Path:
    """A last bucket of a few tokens, whose end stands beside the edge before."""
    edges = [0, 256, 512, 1024, 2048, 4096, 4100]
    return plots.perplexity_curves(
        {"stock": [2, 3, 4, 5, 6, np.nan], "esa": [2.0] * 6}, edges, path, trained_context=256
    )


def one_bucket(path: Path) -> Path:
    return plots.perplexity_curves({"stock": [2.0], "esa": [2.0]}, [0, 500], path, trained_context=500)


def one_length(path: Path) -> Path:
    return plots.time_curves([32_768], {"sdpa": [2e-3], "esa": [1e-3]}, path, baseline="sdpa")


def spectrum(path: Path) -> Path:
    values = np.exp(-np.arange(128)[None] / (8 + np.arange(6)[:, None]))
    return plots.spectrum_curves(values, [16, 24, 32, 32, 40, 48], path, remark="Llama-3-8B, Python's documentation")


def big_spectrum(path: Path) -> Path:
    """32 layers of 1,024: the largest picture there is."""
    return plots.spectrum_curves(np.exp(-np.arange(1024)[None] / (60 + 3 * np.arange(32)[:, None])), 128, path)


def selection(path: Path) -> Path:
    picks, positions = chosen(200, 4000, 64, 512, 128)
    return plots.selection_map(picks, positions, path, num_initial=64, num_local=512, remark="layer 1, k = 128")


def small_selection(path: Path) -> Path:
    picks, positions = chosen(40, 120, 4, 32, 12)
    return plots.selection_map(picks, positions, path, num_initial=4, num_local=32)


def overlap(path: Path) -> Path:
    return plots.overlap_curves({f"layer {i}": random(200, seed=i) for i in range(8)}, path, chance=0.03)


def short_overlap(path: Path) -> Path:
    return plots.overlap_curves({"layer 0": [1.0, 0.5, 0.25]}, path)


PICTURES: list[Callable[[Path], Path]] = [
    needle, fine_needle, one_cell, recall, close_recall, time, one_length, read, perplexity, narrow_perplexity,
    one_bucket, spectrum, big_spectrum, selection, small_selection, overlap, short_overlap,
]  # fmt: skip


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved, to be looked at before they are files."""
    seen: list[Any] = []
    write = canvas.save_png

    def keep(fig: Any, path: Any) -> Path:
        seen.append(fig)
        return write(fig, path)

    monkeypatch.setattr(canvas, "save_png", keep)
    return seen


@pytest.mark.parametrize("draw", PICTURES, ids=lambda f: f.__name__)
def test_picture(draw: Callable[[Path], Path], tmp_path: Path, figures: list[Any]) -> None:
    path = draw(tmp_path / "folder" / "picture.png")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 300 * 1024
    seen = read_description(path)
    assert re.match(r"(Map|Line chart|Two line charts) .*\d.*\.$", seen)
    assert "nan" not in seen
    (fig,) = figures
    texts = visible_texts(fig)
    assert len(texts) > 4
    clashes = [(a, b) for (a, box), (b, other) in combinations(texts, 2) if clash(box, other)]
    assert clashes == []
    width, height = fig.get_size_inches() * fig.dpi
    outside = [t for t, b in texts if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1]
    assert outside == []


def visible_texts(fig: Any) -> list[tuple[str, Any]]:
    from matplotlib.text import Text

    fig.draw_without_rendering()
    hidden = {id(t) for ax in fig.axes if not ax.get_visible() for t in ax.findobj(Text)}
    for ax in fig.axes:  # ticks outside the limits exist but are not drawn
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            outside = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
            hidden |= {id(t) for tick in outside for t in (tick.label1, tick.label2)}
    texts = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in hidden]
    # Of a name with a line to its curve only the name.
    return [(t.get_text(), Text.get_window_extent(t)) for t in texts]


def clash(a: Any, b: Any) -> bool:
    """Whether two boxes share more than a hair's breadth."""
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1


def test_the_same_plot_is_the_same_file(tmp_path: Path) -> None:
    assert time(tmp_path / "a.png").read_bytes() == time(tmp_path / "b.png").read_bytes()


def test_curves_show_what_they_are_given(tmp_path: Path, figures: list[Any]) -> None:
    time(tmp_path / "a.png")
    (ax,) = figures[0].axes
    lines = {line.get_color(): line for line in ax.lines if line.get_linestyle() == "-"}
    assert lines["#0072B2"].get_xdata().tolist() == LENGTHS
    assert lines["#0072B2"].get_ydata() == pytest.approx([4 + 6e-5 * n for n in LENGTHS])
    assert ax.get_ylabel() == "time, ms"
    ratio = 1e-6 * LENGTHS[-1] / (4e-3 + 6e-8 * LENGTHS[-1])
    assert f"ESA\n{ratio:.1f}× faster" in [t.get_text() for t in ax.texts]


def test_needle_cells_show_what_they_are_given(tmp_path: Path, figures: list[Any]) -> None:
    """Rows are depths, from the top; columns are lengths."""
    scores = np.array([[0.0, 0.25, 0.5], [0.75, 1.0, np.nan]])
    plots.needle_heatmap({"esa": scores}, [100, 200, 300], [0.0, 1.0], tmp_path / "a.png")
    # The same grid in another order is the same picture.
    plots.needle_heatmap({"esa": scores[::-1, [2, 0, 1]]}, [300, 100, 200], [1.0, 0.0], tmp_path / "b.png")
    for fig in figures:
        ax = fig.axes[0]
        cells = {(round(t.get_position()[0] - 0.5), round(t.get_position()[1] - 0.5)): t.get_text() for t in ax.texts}
        assert cells == {(0, 0): "0", (1, 0): "25", (2, 0): "50", (0, 1): "75", (1, 1): "100"}
        assert [t.get_text() for t in ax.get_yticklabels()] == ["0 %", "100 %"]
        assert ax.get_ylim() == (2, 0)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_selection_map_shows_the_chosen_tokens(tmp_path: Path, figures: list[Any]) -> None:
    picks, positions = chosen(5, 60, 4, 16, 6)
    plots.selection_map(picks, positions, tmp_path / "a.png", num_initial=4, num_local=16)
    (image,) = figures[0].axes[0].images
    shown = np.ma.getdata(image.get_array()) > 0
    assert shown.shape == (65, 5)
    assert [np.flatnonzero(shown[:, step]).tolist() for step in range(5)] == [p.tolist() for p in picks]


def test_spectrum_leaves_the_tail(tmp_path: Path, figures: list[Any]) -> None:
    plots.spectrum_curves([3.0, 2.0, 1.0], 2, tmp_path / "a.png")
    left, right = figures[0].axes
    assert left.lines[0].get_ydata() == pytest.approx([1, 2 / 3, 1 / 3])
    assert right.lines[0].get_ydata()[:2] == pytest.approx([100 * 5 / 14, 100 * 1 / 14])
    assert right.get_title("left") == "rank 2: 7.1 % left over"


def test_overlap_of_choices() -> None:
    assert plots.consecutive_overlap([[1, 2, 3, 4], [2, 3, 4, 5], torch.tensor([9, 8, 7, 6]), []]) == [0.75, 0.0, 1.0]
    with pytest.raises(UserError, match="at least 2 steps, got 1"):
        plots.consecutive_overlap([[1]])


def test_a_method_keeps_its_colour() -> None:
    assert canvas.colours(["full", "esa"])["esa"] == canvas.colours(["esa", "x", "y"])["esa"]
    assert canvas.colours(["stock model", "ESA, closed form"]) == {
        "stock model": "#000000",
        "ESA, closed form": "#0072B2",
    }
    many = canvas.colours(["esa", "closed_form", "full", "stock", "a", "b", "c", "d"])
    assert len(set(many.values())) == 8
    with pytest.raises(UserError, match="at most 8 curves apart, got 9"):
        canvas.colours([str(i) for i in range(9)])


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_spread_apart(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 8))
    wanted = np.sort(generator.uniform(0, 100, count)).tolist()
    gaps = generator.uniform(5, 12, count).tolist()
    placed = canvas.spread(wanted, gaps, 0, 100)
    for (y, gap), (above, next_gap) in pairwise(zip(placed, gaps, strict=True)):
        assert above - y >= (gap + next_gap) / 2 - 1e-9
    assert placed[0] - gaps[0] / 2 >= -1e-9
    assert placed[-1] + gaps[-1] / 2 <= 100 + 1e-9
    apart = all(b - a >= (g + h) / 2 for (a, g), (b, h) in pairwise(zip(wanted, gaps, strict=True)))
    if apart and wanted[0] >= gaps[0] / 2 and wanted[-1] <= 100 - gaps[-1] / 2:
        assert placed == pytest.approx(wanted)


def test_labels_without_room_are_centred() -> None:
    assert canvas.spread([5, 5, 5], [10, 10, 10], 0, 20) == pytest.approx([0, 10, 20])


@pytest.mark.parametrize(
    ("tokens", "text"),
    [(500, "500"), (4000, "4k"), (32_768, "32k"), (128_000, "128k"), (1 << 20, "1M"), (1030, "1,030")],
)
def test_lengths_in_short(tokens: int, text: str) -> None:
    assert canvas.short_length(tokens) == text


GRID = {"lengths": [10, 20], "depths": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: plots.needle_heatmap({}, [1], [0], p), "scores must hold at least one method"),
        (
            lambda p: plots.needle_heatmap({"a": [[1, 1]]}, **GRID, path=p),
            r"\(depths, lengths\) = \(2, 2\), got \(1, 2\)",
        ),
        (lambda p: plots.needle_heatmap({"a": [[1, 2], [0, 0]]}, **GRID, path=p), r"must be in 0\.\.1"),
        (lambda p: plots.needle_heatmap({"a": [[1]]}, [10], [2.0], p), r"depths must be in 0\.\.1, got 2"),
        (lambda p: plots.needle_heatmap({"a": [[1, 1]]}, [10, 10], [0], p), "lengths must be numbers that rise"),
        (lambda p: plots.recall_curves({}, p), "recalls must hold at least one curve"),
        (lambda p: plots.recall_curves({"a": [1.2]}, p), r"recalls\['a'\] must be in 0\.\.1, got 1.2"),
        (lambda p: plots.recall_curves({"a": [1], "b": [1, 1]}, p), r"recalls\['b'\] must hold 1 values, got 2"),
        (lambda p: plots.recall_curves({"a": [1]}, p, threshold=90), r"threshold must be in 0\.\.1, got 90"),
        (lambda p: plots.recall_curves({"a": ["x"]}, p), r"recalls\['a'\] must be numbers"),
        (lambda p: plots.time_curves([1, 2], {"a": [1, 0]}, p), r"seconds\['a'\] must be positive, got 0"),
        (lambda p: plots.time_curves([1, 2], {"a": [1, 2]}, p, baseline="b"), "baseline='b' is not known"),
        (lambda p: plots.time_curves([1, 2], {"a": [1, 2]}, p, bounds={"a": [1]}), r"bounds\['a'\] must hold 2 values"),
        (lambda p: plots.bytes_curves([0, 2], {"a": [1, 2]}, p), "lengths must be numbers that rise from at least 1"),
        (lambda p: plots.bytes_curves([1, 2], {"a": [1, np.inf]}, p), r"read\['a'\] must hold finite values"),
        (lambda p: plots.perplexity_curves({"a": [1]}, [0], p), "edges must be at least 2"),
        (lambda p: plots.perplexity_curves({"a": [1]}, [0, 1, 2], p), r"nats\['a'\] must hold 2 values, got 1"),
        (lambda p: plots.perplexity_curves({"a": [-1]}, [0, 1], p), r"nats\['a'\] must be at least 0, got -1"),
        (lambda p: plots.spectrum_curves([1.0, 2.0], 1, p), "spectra must be finite, at least 0 and falling"),
        (lambda p: plots.spectrum_curves([0.0, 0.0], 1, p), "spectra must begin with a positive value"),
        (lambda p: plots.spectrum_curves([2.0, 1.0], 3, p), r"rank must be a whole number in 1\.\.2, got 3"),
        (
            lambda p: plots.spectrum_curves([2.0, 1.0], [1, 1], p),
            r"rank must be one number or one a layer \(1\), got 2",
        ),
        (lambda p: plots.spectrum_curves([[2.0, 1.0], [1.0]], 1, p), r"spectra must be as long for every layer"),
        (lambda p: plots.spectrum_curves([], 1, p), "spectra must hold at least one layer"),
        (
            lambda p: plots.selection_map([[2]], [20], p, num_initial=4, num_local=8),
            r"selections\[0\] must be middle tokens in 4\.\.11, got 2\.\.2",
        ),
        (
            lambda p: plots.selection_map([[5]], [20, 21], p, num_initial=4, num_local=8),
            "selections must be one a position",
        ),
        (lambda p: plots.selection_map([[5]] * 2, [20, 19], p, num_initial=4, num_local=8), "positions must rise"),
        (lambda p: plots.overlap_curves({"a": [2.0]}, p), r"overlaps\['a'\] must be in 0\.\.1, got 2"),
        (lambda p: plots.overlap_curves({"a": [1.0]}, p, chance=-1), r"chance must be in 0\.\.1, got -1"),
    ],
)
def test_mistakes_are_named(call: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        call(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
