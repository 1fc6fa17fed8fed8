"""The site as a browser shows it: every page, light and dark, on a phone, a tablet and a desk.

Slow, and skipped where something is not installed: uv and the site's libraries (`uv run --isolated --only-group docs
mkdocs build` brings them), Chromium or Chrome, and for the second half axe-core (see effkit.testing.pages).
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from effkit.testing import pages as browser_pages
from effkit.testing.browser import Browser
from effkit.testing.pages import axe_faults, axe_source

browser = browser_pages.browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[1]
# What a page may not have. Boxes that scroll sideways by themselves (code, tables) may hold what is wider.
MEASURE = r"""
(() => {
  const faults = [], wide = innerWidth;
  const name = e => `${e.localName}.${e.className} "${e.textContent.trim().slice(0, 40)}"`;
  const scrolls = e => e && (['auto', 'scroll'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const whole = document.documentElement.scrollWidth;
  if (whole > wide) faults.push(`the page is ${whole} wide`);
  for (const e of document.querySelectorAll('article *')) {
    const box = e.getBoundingClientRect();
    if (box.width && box.height && (box.right > wide + 1 || box.left < -1) && !scrolls(e.parentElement))
      faults.push(`beyond the page: ${name(e)}`);
  }
  for (const e of document.querySelectorAll('img')) {
    if (!/\S \S/.test(e.alt)) faults.push(`no words: alt="${e.alt}"`);
    if (!e.complete || !e.naturalWidth) faults.push(`not shown: ${e.getAttribute('src')}`);
  }
  return faults;
})()
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every page of the site, built as CI builds it: with warnings as errors."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("building the site needs uv, which is not installed here")
    site = tmp_path_factory.mktemp("site")
    mkdocs = [uv, "run", "--offline", "--locked", "--isolated", "--only-group", "docs", "mkdocs"]
    if subprocess.run([*mkdocs, "--version"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("the site's libraries are not in uv's cache: uv run --isolated --only-group docs mkdocs build")
    words = [*mkdocs, "build", "--strict", "--quiet", "--site-dir", str(site)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lost = site / "404.html"  # its addresses begin at the server's root, whatever was asked for
    lost.write_text(lost.read_text(encoding="utf-8").replace('="/', '="./'), encoding="utf-8")
    return sorted(site.rglob("*.html"))


def show(browser: Browser, page: Path, width: int, dark: bool) -> None:
    """Open a page and wait until the theme has changed it: it names, wraps and measures things after loading."""
    browser.open(page, width, dark=dark)
    browser.evaluate("new Promise(done => setTimeout(done, 200))")


def test_everything_is_in_its_place(browser, pages):
    assert len(pages) > 30
    for page, width, dark in itertools.product(pages, (390, 800, 1400), (False, True)):
        show(browser, page, width, dark)
        scheme = browser.evaluate("document.body.dataset.mdColorScheme")
        assert scheme == ("slate" if dark else "default"), page
        assert browser.evaluate(MEASURE) == [], (page, width, dark)


def test_axe_finds_nothing(browser, pages):
    axe = axe_source()
    if axe is None:
        pytest.skip("axe-core is not installed: npm install --no-save axe-core")
    found = {}
    for page, (width, dark) in itertools.product(pages, ((390, True), (1400, False))):
        show(browser, page, width, dark)
        checked, faults = axe_faults(browser, axe)
        assert checked > 15
        found |= {(f"{page.parent.name}/{page.name}", width, rule): elements for rule, _, elements in faults}
    assert found == {}


def test_the_measure_sees_faults(browser, pages):
    page = next(page for page in pages if page.name == "which.html")
    whole = page.read_text(encoding="utf-8")
    faults = {
        "the page is": "<div style='width: 3000px'>wide</div>",
        "beyond the page": "<p style='position: absolute; left: -90px'>cut</p>",
        "no words": "<img alt='picture' src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>",
        "not shown": "<img alt='A picture that is not there' src='gone.png'>",
    }
    broken = page.with_name("broken.html")
    for name, fault in faults.items():
        broken.write_text(whole.replace("</article>", f"{fault}</article>"), encoding="utf-8")
        show(browser, broken, 390, False)
        assert any(found.startswith(name) for found in browser.evaluate(MEASURE)), name
    broken.unlink()
