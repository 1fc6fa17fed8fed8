"""Every package's README has the same sections in the same order: whoever has read one finds their way in all."""

from __future__ import annotations

import re

from effkit.testing.documents import blocks

ORDER = [
    "Install",
    "Ten lines",
    "Command line",
    "Results beside the paper's",
    "Speed",
    "What differs, and why",
    "Limits",
    "Citation",
]


def test_sections_stand_in_the_order_of_the_house(package):
    text = (package.folder / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (.+)$", text) == ORDER


def test_a_sentence_comes_first_and_then_a_picture_that_exists(package):
    text = (package.folder / "README.md").read_text(encoding="utf-8")
    head = text[: text.index("\n## Install")].split("\n\n")
    assert head[0].strip() == f"# {package.name}"
    assert re.match(r"[A-Z`*]", head[1]), "the first paragraph is a sentence"
    pictures = [re.match(r"!\[[^\]]+\]\(([^)]+)\)$", part) for part in head]
    found = [match[1] for match in pictures if match]
    assert len(found) == 1, found
    assert (package.folder / found[0]).is_file()


def test_ten_lines_are_python_and_the_commands_a_shell(package):
    text = (package.folder / "README.md").read_text(encoding="utf-8")
    parts = dict(zip(ORDER, re.split(r"(?m)^## .+$", text)[1:], strict=True))
    assert [block.language for block in blocks(parts["Ten lines"])] == ["python"]
    assert blocks(parts["Install"])[0].body == f"pip install ./shared ./packages/{package.folder.name}\n"
    assert blocks(parts["Command line"])[0].is_shell
    assert "<!-- table results/" in parts["Speed"]
    assert "CITATION.bib" in parts["Citation"]


def test_every_results_file_of_speed_is_shown_or_read(root, package):
    """A results file that nobody shows is a figure that nobody checks."""
    text = (package.folder / "README.md").read_text(encoding="utf-8")
    read = (root / "scripts" / "highlights.py").read_text(encoding="utf-8")
    files = [file.name for file in (package.folder / "results").glob("*.csv")]
    assert [name for name in files if f"results/{name}" not in text and f'"{name}"' not in read] == []
