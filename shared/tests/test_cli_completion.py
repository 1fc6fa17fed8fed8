"""Tab completion: commands from the app, groups and keys from Hydra, the shells' scripts."""

import sys

import pytest


def candidates(demo, monkeypatch, capfd, line, shell="bash"):
    monkeypatch.setenv("COMP_LINE", line)
    assert demo(["-sc", f"query={shell}"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("demo ", ["train", "show-all", "noisy", "strict", "build", "fit"]),
        ("demo tr", ["train"]),
        ("demo --co", ["--completion"]),
        ("demo train model=", ["model=large", "model=small"]),
        ("demo train seed=1 solver=s", ["solver=sgd"]),
        ("demo train trainer.max", ["trainer.max_epochs="]),
        ("demo train experiment=b", ["experiment=big"]),
        ("demo nonsense ", []),
    ],
)
def test_completion_candidates(demo, monkeypatch, capfd, line, expected):
    assert candidates(demo, monkeypatch, capfd, line) == expected
    if " train" not in line:
        assert candidates(demo, monkeypatch, capfd, line, "fish") == expected


def test_completion_of_a_new_word_names_groups_and_keys(demo, monkeypatch, capfd):
    found = candidates(demo, monkeypatch, capfd, "demo train ")
    assert {"model=", "solver=", "seed=", "trainer."} <= set(found)


def test_completion_install_lines(demo, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/demo"])
    assert demo(["--completion", "bash"]) == 0
    assert capfd.readouterr().out == 'eval "$(demo -sc install=bash)"\n'
    assert demo(["--completion", "fish"]) == 0
    assert capfd.readouterr().out == "demo -sc install=fish | source\n"
    assert demo(["-sc", "install=bash"]) == 0
    script = capfd.readouterr().out
    assert "complete -o nospace -o default -F hydra_bash_completion demo" in script
    assert "$helper -sc query=bash" in script
