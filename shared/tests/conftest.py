"""What the tests of `effkit.cli` share: the program in ``apps/demo``, run in this process."""

import importlib
import sys
from pathlib import Path

import pytest

APPS = Path(__file__).parent / "apps"


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """The program; its runs go to a folder of their own."""
    monkeypatch.syspath_prepend(APPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EFFKIT_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    yield importlib.import_module("demo.cli").app
    for name in [n for n in sys.modules if n.split(".")[0] == "demo"]:
        del sys.modules[name]


@pytest.fixture
def error_line(capfd):
    """Read the one line that a mistake of the user prints; nothing else may be on either stream."""

    def read():
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.startswith("demo: error: "), err
        return err.removeprefix("demo: error: ").rstrip("\n")

    return read
