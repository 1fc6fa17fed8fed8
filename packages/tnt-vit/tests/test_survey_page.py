"""The survey's page in a browser: needs Chromium, and axe-core for the second half, see effkit.testing.pages."""

import dataclasses
import itertools

import pytest

from effkit.report import Table
from effkit.testing import pages
from effkit.testing.pages import MEASURE, axe_faults, axe_source
from tnt_vit.plots.survey import draw_slopes
from tnt_vit.survey.page import render_html, render_markdown
from tnt_vit.survey.registry import read_registry, select
from tnt_vit.survey.tables import all_tables, listing

browser = pages.browser


def row(backbone):
    """As a run writes it, with figures that a page must find room for."""
    case = {"batch": 1, "seconds": 0.0123456, "interval": [0.01, 0.02], "p90": 0.02, "ratio": {"median": 1.0}}
    case |= {"images_per_second": 81.2, "noisy": True, "peak_bytes": 123456789}
    counts = {"params": 123456789, "macs": 98765432109, "weight_bytes": 4 * 123456789}
    counts |= {"trainable": 123456789, "activations": 23456789, "traffic": {"weights": 10**8, "picture": 10**8}}
    counts["macs_by"] = {"convolutions": 9e9, "linear layers": 8e10, "elsewhere": 9765432109}
    block = {"cosine": 0.5, "relative_residual": 0.25, "effective_rank": 12.5}
    found = {
        "name": backbone.name,
        "status": "measured",
        "reason": "",
        "notes": ["batch 8: out of memory, " + 90 * "x"],
    }
    found |= {"counts": counts, "sweep": [case], "latency": case, "throughput": 81.2, "best_batch": 1, "anchor": "a"}
    found |= {
        "peak_bytes": 1,
        "floor": {"flops_per_second": 1e12, "bytes_per_second": 2e11},
        "diversity": [block] * 12,
        "weights": "random",
    }
    spread = {"entropy": 4.123456, "uniform": 5.28, "distance": 0.345678}
    found |= {"attention": [] if backbone.group == "CNN" else [spread] * 12, "energy": {"joules_per_image": 0.0123456}}
    found |= {"train": {"batch": 2, "seconds": 1.0, "peak_bytes": 10**9, "memory_meaning": "of the process"}}
    found |= {"backbone": dataclasses.asdict(backbone), "stamp": {"machine": "a machine", "torch": "2.0"}}
    return found | {"settings": {"threads": 2, "precision": "fp32", "pictures": ["a.jpg"]}}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    backbones = select(read_registry(), "table2")
    rows = [row(b) for b in backbones if b.source != "none"]
    bare = {"status": "skipped", "counts": {}, "notes": []}
    rows += [bare | {"name": b.name, "reason": b.absent, "backbone": dataclasses.asdict(b)} for b in backbones
             if b.source == "none"]  # fmt: skip
    tables = [*all_tables(rows), listing(backbones), Table("Empty", ["a"])]
    picture = draw_slopes({"a": (1.0, 2.0), "b": (3.0, 2.0)}, folder / "p.png", left="V100", right="here", title="Two")
    assert render_markdown("Title", ["One."], tables, [picture]).count("\n## ") == len(tables)
    environment = {"versions": {f"library-{i}": "1.2.3+local" for i in range(30)}, "gpu": ""}
    file = folder / "index.html"
    tiles = [(30, "measured", "good"), (7, "skipped", "quiet")]
    html = render_html("A title", ["A sentence."], tables, pictures=[picture], tiles=tiles, command="tnt-vit survey",
                       environment=environment)  # fmt: skip
    file.write_text(html, encoding="utf-8")
    return file


def test_everything_is_in_its_place(browser, page):
    for width, dark in itertools.product((390, 800, 1400), (False, True)):
        browser.open(page, width, dark=dark)
        assert browser.evaluate(MEASURE) == [], (width, dark)
    links = "[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.getAttribute('href')))"
    found = browser.evaluate(links)
    assert len(found) > 8
    assert all(found)


def test_axe_finds_nothing(browser, page):
    axe = axe_source()
    if axe is None:
        pytest.skip("axe-core is not installed: npm install --no-save axe-core")
    for width, dark in ((390, True), (1400, False)):
        browser.open(page, width, dark=dark)
        assert axe_faults(browser, axe)[1] == []
