"""What must not be on a page of ours, as a browser finds it: cut text, unreachable boxes, pictures without words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from effkit.testing.browser import Browser, find_chromium

__all__ = ["MEASURE", "axe_faults", "axe_source", "browser"]

# Everything that may not be: told as a list of sentences.
MEASURE = r"""
(() => {
  const faults = [], wide = innerWidth;
  const name = e => `${e.tagName.toLowerCase()}.${e.className} "${e.textContent.trim().slice(0, 40)}"`;
  document.querySelectorAll('details').forEach(d => d.open = true);
  const whole = document.documentElement.scrollWidth;
  if (whole > wide) faults.push(`the page is ${whole} wide`);
  const regions = new Set();
  for (const e of document.body.querySelectorAll('*')) {
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    const scrolls = ['auto', 'scroll'].includes(style.overflowX) || ['auto', 'scroll'].includes(style.overflowY);
    const inner = e.parentElement.closest('.scroll');
    if (!inner && (box.right > wide + 1 || box.left < -1)) faults.push(`beyond the page: ${name(e)}`);
    if (style.display != 'inline' && e.scrollWidth > e.clientWidth + 1 && e.clientWidth && !scrolls)
      faults.push(`wider than its box, ${e.scrollWidth} > ${e.clientWidth}: ${name(e)}`);
    if (!inner && !scrolls && box.right > e.parentElement.getBoundingClientRect().right + 1)
      faults.push(`beyond its parent: ${name(e)}`);
    if (scrolls && (e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight)) {
      const label = e.getAttribute('aria-label');
      if (e.tabIndex < 0) faults.push(`the keyboard cannot scroll ${name(e)}`);
      if (!label || e.getAttribute('role') != 'region') faults.push(`scrolls without a name: ${name(e)}`);
      if (regions.has(label)) faults.push(`two regions are called ${label}`);
      regions.add(label);
    }
  }
  const mains = document.querySelectorAll('main, [role=main]').length;
  if (mains != 1) faults.push(`${mains} main landmarks`);
  for (const e of document.querySelectorAll('img')) {
    if (!/^\S+( \S+){4,}\.$/.test(e.alt)) faults.push(`no sentence: alt="${e.alt}"`);
    if (!e.complete || !e.naturalWidth) faults.push(`not shown: ${e.alt}`);
  }
  return faults;
})()
"""


def axe_source() -> str | None:
    """The source of axe-core, which looks for what shuts people out; `None` if it is not installed.

    It is the file that AXE names, or in ``node_modules`` of the repository (``npm install --no-save axe-core``).
    """
    named = os.environ.get("AXE", "")
    root = Path(__file__).resolve().parents[4]
    file = Path(named) if named else root / "node_modules" / "axe-core" / "axe.min.js"
    return file.read_text(encoding="utf-8") if named or file.exists() else None


def axe_faults(browser: Browser, axe: str) -> tuple[int, list[tuple[str, str, list[str]]]]:
    """Run axe-core on the page that is open.

    Args:
        browser: It.
        axe: The source of axe-core.

    Returns:
        How many rules passed, and what was found: the rule, what it says, and some of the elements.
    """
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.evaluate(f"{axe}; 0")
    found = browser.evaluate("axe.run().then(r => ({checked: r.passes.length, faults: r.violations}))")
    faults = [(f["id"], f["help"], [n["html"][:200] for n in f["nodes"]][:3]) for f in found["faults"]]
    return found["checked"], faults


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for the tests of a file that say ``browser = pages.browser``; skipped where none is installed."""
    command = find_chromium()
    if command is None:
        pytest.skip("no Chromium is installed")
    with Browser(command, tmp_path_factory.mktemp("profile")) as opened:
        yield opened
