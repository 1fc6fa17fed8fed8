"""Every picture that a package writes goes through `effkit.plots.save_png`, which refuses one that says nothing."""

from __future__ import annotations

import ast
from pathlib import Path

WRITERS = {"savefig", "imsave", "print_png", "print_figure"}
ONE_DOOR = "shared/src/effkit/plots/png.py"


def writes_a_picture(call: ast.Call) -> bool:
    """Whether it is matplotlib's or Pillow's way to write a picture file."""
    if not isinstance(call.func, ast.Attribute):
        return False
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    kind = named.get("format")
    png = isinstance(kind, ast.Constant) and str(kind.value).lower() == "png"
    to_png = any(isinstance(a, ast.Constant) and str(a.value).endswith(".png") for a in ast.walk(call) if a is not call)
    return call.func.attr in WRITERS or (call.func.attr == "save" and (png or to_png))


def calls(file: Path) -> list[ast.Call]:
    """All calls in a Python file."""
    return [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def test_pictures_are_written_in_one_place(root: Path, members) -> None:
    files = [
        file for member in members for file in (member.folder / "src").rglob("*.py") if "testing" not in file.parts
    ]
    found = {str(f.relative_to(root)) for f in files if any(map(writes_a_picture, calls(f)))}
    assert found == {ONE_DOOR}
