"""Every key of every command's config is read by the command: one that nothing reads would be accepted in silence."""

import pytest

from effkit.testing import in_process, unread_keys
from shiftghost_sr.cli import main

# Small runs of each command, together all that it can do with its keys.
LINES = {
    "reproduce": [["table=accuracy"]],
    "doctor": [[]],
}


@pytest.mark.parametrize("name", main.commands)
def test_every_key_is_read(name, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    assert unread_keys(main, name, run, *LINES[name]) == []
