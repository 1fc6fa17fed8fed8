"""Every console script and every command of it explains itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_help_lists_every_command_in_one_line(script):
    member, name = script
    argv = [str(Path(sys.executable).with_name(name)), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for command in member.load(name).commands.values():
        assert command.summary.endswith("."), command.name
        assert [line for line in lines if line.split(maxsplit=1) == [command.name, command.summary]], command.name
    assert max(map(len, lines)) <= 120


def test_version(script, capsys):
    member, name = script
    assert member.load(name)(["--version"]) == 0
    assert capsys.readouterr().out == f"{name} {member.project['version']}\n"


def test_help_of_every_command(script, capsys):
    member, name = script
    app = member.load(name)
    for command in app.commands.values():
        assert app([command.name, "--help"]) == 0, command.name
        text, errors = capsys.readouterr()
        assert errors == ""
        assert text.startswith(f"Usage: {name} {command.name} ")
        assert command.summary in text


@pytest.mark.parametrize("command", ["doctor", "reproduce"])
def test_every_script_has(script, command):
    member, name = script
    assert command in member.load(name).commands


def test_unknown_command_is_one_line(script, capsys):
    member, name = script
    assert member.load(name)(["reproduec"]) == 2
    text, errors = capsys.readouterr()
    assert text == ""
    assert errors.count("\n") == 1
    assert "did you mean 'reproduce'" in errors
