"""Lazy names load what they say; registrations happen in either order of imports. Each case in a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, cwd: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=True
    ).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "library.py").write_text("NAMES = []\n")
    folder = tmp_path / "paper"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from effkit.lazy import after_import, attach\n"
        "__getattr__, __dir__, __all__ = attach(__name__, {'build': 'paper.zoo'})\n"
        "after_import('library', 'paper.zoo')\n"
    )
    (folder / "zoo.py").write_text("import library\nlibrary.NAMES.append('model')\ndef build():\n    return 'built'\n")
    return tmp_path


@pytest.mark.parametrize("order", ["import library, paper", "import paper, library"])
def test_registration_in_either_order_and_once(package, order):
    assert run(f"{order}; print(library.NAMES, paper.build(), library.NAMES)", package) == "['model'] built ['model']"


def test_nothing_is_loaded_before_it_is_asked_for(package):
    code = (
        "import sys, paper\n"
        "print('library' in sys.modules, 'paper.zoo' in sys.modules, 'build' in dir(paper), paper.__all__)"
    )
    assert run(code, package) == "False False True ['build']"


def test_unknown_names_are_attribute_errors(package):
    assert run("import paper; print(hasattr(paper, 'missing'))", package) == "False"


def test_core_stays_light():
    code = "import sys, effkit, effkit.cli; print(sorted({'torch', 'hydra', 'timm', 'lightning'} & set(sys.modules)))"
    assert run(code, Path(__file__).parent) == "[]"


def test_a_module_that_imports_the_library_itself(package):
    (package / "paper" / "model.py").write_text("import library\nclass Net: pass\n")
    assert run("import paper.model, library; print(library.NAMES)", package) == "['model']"
