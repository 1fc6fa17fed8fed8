"""The report page as a browser shows it, with hard things in it: nothing is cut, and the keyboard reaches everything.

Needs Chromium or Chrome (Debian: `apt install chromium`; CHROME names another one). axe-core, which looks for what
shuts people out, is taken from node_modules in this repository (`npm install --no-save axe-core`), or from the file
that AXE names. What is not installed is skipped.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from effkit.plots import describe, figure, save_png
from effkit.report import Table
from effkit.reproduce.machines import compare_machines
from effkit.reproduce.page import render_html
from effkit.rows import Row, Tolerance
from effkit.testing import pages
from effkit.testing.browser import Browser
from effkit.testing.pages import MEASURE, axe_faults, axe_source

browser = pages.browser

WIDTHS = (320, 390, 639, 640, 800, 1000, 1400)
SEEN = "A line that rises from 1 to 2 in one step."
WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
PATH = "/srv/" + "a-very-long-folder-name/" * 12 + "weights.safetensors"
COMMAND = f"paper train model.pretrained={PATH} lengths=[{','.join(str(4000 * i) for i in range(1, 30))}]"
SCRIPTS = "高效的深度学习论文在这里逐一重现并与原文比较 कुशल गहन शिक्षण के शोधपत्र أوراق عن التعلم العميق الفعال"


def outcome(name: str, metric: str, ours: float | None, paper: float | None = 1.0, **more: Any) -> dict[str, Any]:
    fields = {"table": "1", "unit": "%", "source": "Table 1", "evidence": "printed", "command": "paper reproduce"}
    fields |= more
    row = Row(name=name, metric=metric, paper=paper, tolerance=Tolerance("exact"), compute=lambda: ours, **fields)
    return row.judge(ours, 0.1).to_dict()


def unmeasured(name: str, **more: Any) -> dict[str, Any]:
    return outcome(name, "top-1", None, **more) | {"verdict": "not measured here", "reason": f"needs {PATH}"}


def table(columns: int, title: str = "") -> Table:
    """Words, figures and sentences in turn."""
    cells: list[Any] = ["short", 1234567.25, f"{SCRIPTS} {WORD}", 0.125, PATH, "a sentence of the usual length"]
    names = ["method", "tokens read", WORD, "of all, %", "重现的数字", "what was seen in it"]
    rows = [[cells[(i + j) % 6] if i % 6 in (2, 4) else cells[i % 6] for i in range(columns)] for j in range(3)]
    return Table(title or f"{columns} columns", [names[i % 6] for i in range(columns)], rows, f"A note. {PATH}")


def paper(name: str, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": name, "title": f"A title with {WORD} and {SCRIPTS}", "reference": f"A. Author, 2021. {PATH}",
        "distribution": "fakes", "version": "1.5", "command": "paper reproduce", "status": "ok", "reason": "",
        "log": "", "outcomes": [], "claim": None, "claim_status": "none", "seconds": 12345.6,
        "date": "2026-07-31T08:05:00Z", "kept": True, "note": f"again: {PATH} is missing",
    }  # fmt: skip
    return fields | changes


def hard_document(pictures: list[str]) -> dict[str, Any]:
    """A run whose papers hold everything that has ever been too wide, too long or not there."""
    numbers = Table("20 columns", [f"at {i}k" for i in range(20)], [[12345678.5 + i for i in range(20)]] * 2)
    claim = {
        "outcomes": [
            outcome("ours", f"of {WORD}", 0.1, 1.0, table="claim", command=COMMAND),
            outcome(SCRIPTS, "the same", 1.0, 1.0, table="claim", source=PATH),
            outcome("beside it", "the same", 2.0, None, table="claim"),
        ],
        "figures": [*pictures, "gone.png"],
        "tables": [t.to_dict() for t in (*map(table, (2, 3, 5, 6, 8, 12)), numbers, Table("none", ["a", "b"], []))],
        "notes": [f"A note about {WORD}, {PATH} and {SCRIPTS}."],
        "form": "short", "kept_parts": ["a", WORD.lower()], "seconds": 99.5,
    }  # fmt: skip
    evidence = ("printed", "computed", "found", "measured", "unverified")
    mixed = [outcome(f"row of {e}", "params", 3.0, 3.0, evidence=e, table="2", command=COMMAND) for e in evidence]
    log = "\n".join(f"  File {PATH!r}, line {i}, in {WORD}" for i in range(200))
    papers = [
        paper("hard", outcomes=[*mixed, *(unmeasured(f"row {i}", table="3") for i in range(3))],
              claim=claim, claim_status="does not hold"),
        paper("crashed-" + "long-" * 15, status="crashed", reason=f"claim crashed: OSError: {PATH}", log=log,
              claim_status="crashed", outcomes=[outcome("a", "b", 1.0), unmeasured("c", command=COMMAND)]),
        paper("crashed-too", status="crashed", reason="ended early", log=log, claim_status="crashed"),
        paper("empty", title=""),
    ]  # fmt: skip
    return {
        "title": "effkit reproduce", "date": "2026-07-31T08:05:00Z", "effkit": "0.1.0", "commit": "abc",
        "claims": True, "full": True, "jobs": 2, "seconds": 1.0, "papers": papers,
        "environment": {"versions": {f"library-{i}": "1.2.3+local" for i in range(30)}, "path": PATH, "gpu": None},
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    with figure(width=7, height=3) as fig:
        fig.subplots().plot([1, 2])
        describe(fig, SEEN)
        pictures = [save_png(fig, folder / f"{i}.png").name for i in range(7)]
    file = folder / "index.html"
    file.write_text(render_html(hard_document(pictures), folder), encoding="utf-8")
    return file


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_in_its_place(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    assert browser.evaluate("innerWidth") == width
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert browser.evaluate(MEASURE) == []


def test_what_scrolls_is_reached_by_the_keyboard(browser: Browser, page: Path) -> None:
    """The logs, and at full width the one table that is wider than any screen."""
    found = "[...document.querySelectorAll('[tabindex]')].filter(e => e.checkVisibility()).map(e => e.ariaLabel)"
    browser.open(page, 1400)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    logs = [f"crashed-{'long-' * 15}: end of the log", "crashed-too: end of the log"]
    assert browser.evaluate(found) == [
        "hard: 12 columns, scrolls sideways",
        "hard: 20 columns, scrolls sideways",
        *logs,
    ]


def test_wide_tables_are_cards_on_a_phone(browser: Browser, page: Path) -> None:
    script = """[...document.querySelectorAll('table')].map(t => [t.ariaLabel, getComputedStyle(t.rows[1]).display])"""
    browser.open(page, 390)
    phone = dict(browser.evaluate(script))
    assert {phone[f"hard: {n} columns"] for n in (5, 6, 8, 12, 20)} == {"grid"}
    assert phone["hard: Table 2"] == phone["Papers"] == "grid"
    assert phone["Environment"] == "table-row"
    browser.open(page, 1400)
    assert set(dict(browser.evaluate(script)).values()) == {"table-row"}


BROKEN = {
    "beyond the page": "<p style='width: 3000px'>wide</p>",
    "wider than its box": f"<div class='box'><p>{WORD * 9}</p></div><style>.box p {{ overflow-wrap: normal }}</style>",
    "the keyboard cannot scroll": "<pre style='overflow: auto; height: 2rem'>a\nb\nc\nd</pre>",
    "scrolls without a name": "<div tabindex=0 style='overflow: auto; height: 2rem'>a<br>b<br>c</div>",
    "2 main landmarks": "<main></main>",
    'no sentence: alt="Learning curve"': "<img alt='Learning curve'>",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_measure_sees_faults(browser: Browser, page: Path, tmp_path: Path, fault: str) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("</main>", f"</main>{BROKEN[fault]}"), encoding="utf-8")
    browser.open(broken, 390)
    assert any(found.startswith(fault) for found in browser.evaluate(MEASURE))


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    source = axe_source()
    if source is None:
        pytest.skip("axe-core is not installed: npm install --no-save axe-core")
    return source


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_axe_finds_nothing(browser: Browser, page: Path, axe: str, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    checked, faults = axe_faults(browser, axe)
    assert checked > 15
    assert faults == []


def test_the_comparison_of_two_machines_is_in_its_place_too(browser: Browser, axe: str, tmp_path: Path) -> None:
    sides = []
    for name, speed in (("a", 1.0), ("b", 2.0)):
        shown = hard_document([])
        shown["papers"] = [p for p in shown["papers"] if p["name"] == "hard"]
        for number, o in enumerate(shown["papers"][0]["outcomes"]):
            o["ours"] = None if o["ours"] is None else speed + number
        shown["environment"] = {"cpu": name, "path": PATH, "versions": {"torch": name + "1" * 60}}
        sides.append(tmp_path / f"{name}.json")
        sides[-1].write_text(json.dumps(shown), encoding="utf-8")
    compare_machines(*map(str, sides), tmp_path / "out")
    for width, dark in itertools.product((390, 800, 1400), (False, True)):
        browser.open(tmp_path / "out" / "index.html", width, dark=dark)
        assert browser.evaluate(MEASURE) == []
    assert axe_faults(browser, axe)[1] == []
