"""Plots: readable files below the limit whose drawn values are those of the analysis."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from effkit.plots import read_description
from kd_autoaug.analysis.bootstrap import Estimate
from kd_autoaug.analysis.calibration import Reliability
from kd_autoaug.analysis.result import CLEAN, POLICY, AnalysisResult, Cell, Worst
from kd_autoaug.analysis.suggest import suggest
from kd_autoaug.plots import accuracy, gallery
from kd_autoaug.plots import analysis as plots

CLASSES = 6
NAMES = ["a class with a long name", "b", "c", "d", "e", "f"]


def cell(name: str, m: float | None, rate: float, seed: int) -> Cell:
    rng = torch.Generator().manual_seed(seed)
    mass = torch.rand(CLASSES, generator=rng).sort(descending=True).values
    picture, view = (torch.randint(256, (3, 12, 12), generator=rng, dtype=torch.uint8) for _ in range(2))
    values = {"outlier_rate": rate, "information_probe": 2.5 - rate, "confidence_drop": rate / 2 - 0.1}
    return Cell(
        name,
        m,
        {k: Estimate(v, v - 0.05, v + 0.05) for k, v in values.items()},
        {k: [v, 0.1, 0.2, math.nan, 0.4, 0.3] for k, v in values.items()},
        (mass.cumsum(0) / mass.sum()).tolist(),
        reliability=Reliability([0, 40, 60], [0.0, 0.5, 0.9], [0.0, 0.4, 0.7], 0.16),
        worst=[Worst(picture, view, 0, 0, 1, [(0, 0.8), (1, 0.1), (2, 0.1)])] if m is not None else [],
    )


@pytest.fixture
def result() -> AnalysisResult:
    grid = [
        (o, m, (i + 1) * (j + 1) / 10)
        for i, o in enumerate(["rotate", "shear_x", POLICY])
        for j, m in enumerate([1, 2.5, 4])
    ]
    cells = [cell(o, m, rate, seed) for seed, (o, m, rate) in enumerate(grid)]
    return AnalysisResult(cells, cell(CLEAN, None, 0.0, 99), NAMES, 2.58, {"space": "linear"})


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    kept = []

    def keep(module):
        save = module.save_png
        monkeypatch.setattr(module, "save_png", lambda fig, path, **k: (kept.append(fig), save(fig, path, **k))[1])

    keep(plots)
    keep(accuracy)
    keep(gallery)
    return kept


def readable(path) -> None:
    assert path.stat().st_size < 300 * 1024
    assert "nan" not in read_description(path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 150
    assert pixels.std() > 10


def texts(fig) -> list[str]:
    """Texts drawn inside axes."""
    return [t.get_text() for ax in fig.axes for t in ax.texts]


def inside(fig) -> None:
    """Nothing may be cut off at the edge of the picture."""
    fig.canvas.draw()
    box = fig.get_tightbbox()
    width, height = fig.get_size_inches()
    assert (box.x0 >= -0.02, box.y0 >= -0.02, box.x1 <= width + 0.02, box.y1 <= height + 0.02) == (True,) * 4, box


def test_heat_map_writes_every_figure_into_its_field(result, drawn, tmp_path) -> None:
    readable(plots.plot_heat(result, "outlier_rate", tmp_path / "heat.png"))
    (fig,) = drawn
    assert texts(fig) == [f"{10.0 * i * j:.1f}" for i in (1, 2, 3) for j in (1, 2, 3)]
    labels = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert labels == ["rotate", "shear x", "policy"]
    inside(fig)
    readable(plots.plot_heat(result, "information_probe", tmp_path / "bits.png"))
    assert texts(drawn[1])[0] == "2.40"
    seen = [read_description(tmp_path / name) for name in ("heat.png", "bits.png")]
    assert "most harmed is policy at M=4 with 90.0 %; without" in seen[0]
    assert "most harmed is policy at M=4 with 1.60 bit; without" in seen[1]
    assert "adapted probe" in drawn[1].get_supxlabel()
    assert "frozen teacher" in drawn[0].get_supxlabel()
    with pytest.raises(ValueError, match=r"statistic='view_kl'"):
        plots.plot_heat(result, "view_kl", tmp_path / "no.png")


def test_dark_means_harm_in_every_heat_map(result, drawn, tmp_path) -> None:
    for statistic in ("outlier_rate", "information_probe"):
        plots.plot_heat(result, statistic, tmp_path / "heat.png")
        image = drawn[-1].axes[0].images[0]
        mild, harsh = (sum(image.cmap(image.norm(image.get_array()[i]))[:3]) for i in ((0, 0), (2, 2)))
        assert harsh < mild


def test_class_bars_are_sorted_by_harm(result, drawn, tmp_path) -> None:
    readable(plots.plot_classes(result, result.cell("rotate", 1), "outlier_rate", tmp_path / "classes.png"))
    ax = drawn[0].axes[0]
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == pytest.approx([40, 30, 20, 10, 10])  # the class without pictures has no bar
    assert "first: e 40, f 30, c 20 and 2 more; all classes" in read_description(tmp_path / "classes.png")
    assert ax.get_xticklabels()[0].get_text() == "e"
    inside(drawn[0])


def test_of_many_classes_the_worst_are_shown(result, drawn, tmp_path) -> None:
    many = result.cell("rotate", 1)
    many.per_class["outlier_rate"] = [i / 100 for i in range(100)]
    result.class_names = [f"class {i}" for i in range(100)]
    readable(plots.plot_classes(result, many, "outlier_rate", tmp_path / "classes.png"))
    ax = drawn[0].axes[0]
    assert len(ax.patches) == 40
    assert ax.get_xticklabels()[0].get_text() == "class 99"
    assert "of 100" in ax.get_xlabel()
    inside(drawn[0])


def test_k_curve_holds_k(result, drawn, tmp_path) -> None:
    advice = suggest(result)
    readable(plots.plot_k(advice, tmp_path / "k.png"))
    lines = {line.get_label(): line.get_ydata() for line in drawn[0].axes[0].lines}
    assert list(lines["whole policy"]) == list(advice.k[0].k.values())
    inside(drawn[0])


def test_reliability_leaves_empty_bins_out(result, drawn, tmp_path) -> None:
    readable(plots.plot_reliability(result, tmp_path / "r.png"))
    diagonal, clean, *others = drawn[0].axes[0].lines
    assert list(diagonal.get_xdata()) == [0, 1]
    assert list(clean.get_xdata()) == [0.5, 0.9]
    assert list(clean.get_ydata()) == [0.4, 0.7]
    assert len(others) == 3
    inside(drawn[0])


def test_accuracy_curves_hold_means_and_intervals(drawn, tmp_path) -> None:
    curves = {"CE": ([98.3, 95.6, 92.9], [0.4, 0.8, 0.9]), "CE + KD": ([98.4, math.nan, 97.0], [0.3, math.nan, 1.1])}
    readable(accuracy.plot_accuracy(tmp_path / "a.png", [0.3, 1, 2], curves))
    (ax,) = drawn[0].axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.3", "1", "2"]
    lines = [c.lines[0].get_ydata() for c in ax.containers]
    assert [list(y) for y in lines] == [[98.3, 95.6, 92.9], [98.4, 97.0]]
    bars = ax.containers[0].lines[2][0].get_segments()
    assert bars[2][:, 1].tolist() == pytest.approx([92.0, 93.8])
    inside(drawn[0])
    seen = read_description(tmp_path / "a.png")
    assert "CE from 98.3 at M=0.3 to 92.9 at M=2 and CE + KD from 98.4 at M=0.3 to 97.0 at M=2." in seen
    with pytest.raises(ValueError, match=r"curves\['CE'\]"):
        accuracy.plot_accuracy(tmp_path / "a.png", [1, 2], {"CE": ([1.0], [1.0])})
    with pytest.raises(ValueError, match="curves is empty"):
        accuracy.plot_accuracy(tmp_path / "a.png", [1, 2], {})


def test_gallery_shows_the_worst_operators_first_and_names_the_answers(result, drawn, tmp_path) -> None:
    chosen = gallery.choose_worst(result)
    assert [c.name for c, _ in chosen] == ["policy at M=4", "shear_x at M=4", "rotate at M=4"]
    readable(gallery.plot_gallery(result, tmp_path / "g.png"))
    images = [image.get_array() for ax in drawn[0].findobj(match=lambda a: hasattr(a, "images")) for image in ax.images]
    assert any(np.array_equal(i, chosen[0][1].view.permute(1, 2, 0).numpy()) for i in images)
    titles = [ax.get_title() for ax in drawn[0].findobj(match=lambda a: hasattr(a, "get_title"))]
    assert "policy, M=4" in titles
    assert "b" in titles  # the label's name
    said = [t.get_text() for ax in drawn[0].findobj(match=lambda a: hasattr(a, "texts")) for t in ax.texts]
    assert "b  10 %" in said
    assert "a class with a …  80 %" in said
    assert len(gallery.choose_worst(result, 2)) == 2
    for c in result.cells:
        c.worst = []
    with pytest.raises(ValueError, match="kept no views"):
        gallery.plot_gallery(result, tmp_path / "g.png")
    with pytest.raises(ValueError, match="limit=0"):
        gallery.choose_worst(result, 0)
