"""The example notebooks: one a package, kept without outputs, and each of their cells runs.

CI runs them in Jupyter's own kernel (`.github/workflows/docs.yml`); here their code runs in this process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook."""
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def test_every_package_has_a_notebook(members):
    assert [notebook.stem for notebook in NOTEBOOKS] == sorted(member.name for member in members[1:])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert content["cells"][0]["cell_type"] == "markdown"
    assert "".join(content["cells"][0]["source"]).startswith(f"# {notebook.stem}: ")
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    for cell in code:
        compile("".join(cell["source"]), str(notebook), "exec")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_within_a_minute(notebook, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(cells(notebook)):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{notebook.name}[{number}]", "exec"), names)
    finally:
        plt.close("all")
    assert list(tmp_path.iterdir()) == [], "a notebook leaves no files behind"
