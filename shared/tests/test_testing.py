"""The helpers that other tests rely on must themselves be able to fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from effkit.errors import UserError
from effkit.rows import Row
from effkit.testing import (
    assert_close_to_reference,
    assert_one_line_mistake,
    assert_rows_are_complete,
    compose_command,
    composed_commands,
    in_process,
    run_cli,
    tiny_images,
    write_image_folder,
)


def test_twice_the_error_of_torch_passes_and_more_fails():
    reference = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torchs = torch.tensor([1.0, -2.01], dtype=torch.float32)
    assert_close_to_reference(torch.tensor([1.019, -2.0]), torchs, reference)
    with pytest.raises(AssertionError, match=r"error 3\.000e-02 against the reference exceeds 2 x 1\.0"):
        assert_close_to_reference(torch.tensor([1.03, -2.0]), torchs, reference)


def test_slack_is_one_rounding_step_of_the_dtype():
    reference = torch.tensor([4.0])
    exact = reference.bfloat16()
    step = torch.finfo(torch.bfloat16).eps * 4
    assert_close_to_reference(exact + step, exact, reference)
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close_to_reference(exact + 2 * step, exact, reference)
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close_to_reference(exact + step, exact, reference, eps=0.0)


@pytest.mark.parametrize(
    ("fast", "message"),
    [
        (torch.tensor([1.0, float("nan")]), "not finite in other places"),
        (torch.tensor([float("inf"), 2.0]), "not finite in other places"),
        (torch.tensor([1.0, 2.0, 3.0]), "shapes"),
        (torch.tensor([1.0, 2.0]).half(), "dtype"),
    ],
)
def test_strange_results_fail(fast, message):
    good = torch.tensor([1.0, 2.0])
    with pytest.raises(AssertionError, match=message):
        assert_close_to_reference(fast, good, good.double())


def test_infinities_must_agree_in_sign_and_place():
    masked = torch.tensor([float("-inf"), 1.0])
    assert_close_to_reference(masked, masked, masked.double())
    with pytest.raises(AssertionError, match="other infinities"):
        assert_close_to_reference(-masked.abs() * torch.tensor([-1.0, -1.0]), masked, masked.double())
    with pytest.raises(AssertionError, match="overflows here"):
        assert_close_to_reference(torch.ones(2), masked, torch.ones(2).double())


def test_nests_are_walked_and_named():
    good = {"out": torch.ones(2), "grads": (torch.ones(1), torch.zeros(0))}
    assert_close_to_reference(good, good, good)
    bad = {"out": torch.ones(2), "grads": (torch.full((1,), 2.0), torch.zeros(0))}
    with pytest.raises(AssertionError, match=r"result\['grads'\]\[0\]"):
        assert_close_to_reference(bad, good, good)
    with pytest.raises(AssertionError, match="keys"):
        assert_close_to_reference({"out": torch.ones(2)}, good, good)


def test_tiny_images_depend_on_their_arguments_only():
    first = tiny_images(2, 3, 8, seed=1)
    torch.rand(5)
    assert torch.equal(first, tiny_images(2, 3, 8, seed=1))
    assert not torch.equal(first, tiny_images(2, 3, 8, seed=2))
    assert tiny_images(1, 1, 4, dtype=torch.float64).dtype == torch.float64


def test_image_folder_has_the_promised_files(tmp_path):
    root = write_image_folder(tmp_path, splits=("train",), classes=("a", "b", "c"), count=2, suffix="jpg")
    assert sorted(p.relative_to(root).as_posix() for p in root.rglob("*.jpg")) == [
        f"train/{c}/{i}.jpg" for c in "abc" for i in range(2)
    ]


def test_run_cli_returns_code_and_both_streams(tmp_path):
    script = "import os, sys; print(os.getcwd()); print(os.environ['MINE'], file=sys.stderr); sys.exit(3)"
    code, out, err = run_cli([sys.executable, "-c", script], cwd=tmp_path, env={"MINE": "yes"})
    assert (code, out.strip(), err.strip()) == (3, str(tmp_path), "yes")
    assert run_cli([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]).code == -9


def test_run_cli_finds_commands_beside_the_interpreter():
    code, out, _ = run_cli(["pytest", "--version"])
    assert code == 0
    assert out.startswith("pytest ")
    code, out, _ = run_cli(["this", "unused"])  # no such command: the module of that name
    assert code == 0
    assert "Zen of Python" in out


def test_run_cli_stops_what_hangs_and_shows_its_output():
    with pytest.raises(AssertionError, match=r"took longer than 1 s; it had printed .*before"):
        run_cli([sys.executable, "-c", "import time; print('before', flush=True); time.sleep(60)"], timeout=1)


class _Mistaken:
    """Stands for a program; answers as it is told."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text

    def __call__(self, words: list[str]) -> int:
        print(self.text.format(*words), file=sys.stderr)
        return self.code


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        (0, "demo: error: lr=-1", "exit code 0"),
        (2, "demo: error: lr=-1\ndemo: error: again", "expected one line"),
        (2, "other: error: lr=-1", "expected one line"),
        (2, "Traceback (most recent call last):\ndemo: error: lr=-1", "Traceback"),
        (2, "demo: error: lr is wrong", "does not say -1"),
    ],
)
def test_a_mistake_answered_otherwise_is_noticed(code, text, message, tmp_path, monkeypatch, capfd):
    run = in_process(_Mistaken(code, text), tmp_path, monkeypatch, capfd)
    with pytest.raises(AssertionError, match=message):
        assert_one_line_mistake("demo", run("train"), ["-1"])


def test_a_mistake_answered_well_passes(tmp_path, monkeypatch, capfd):
    run = in_process(_Mistaken(2, "demo: error: {0}=-1 must be positive"), tmp_path, monkeypatch, capfd)
    result = run("lr")
    assert_one_line_mistake("demo", result, ["lr", "-1"])
    assert (result.code, result.stdout, result.stderr) == (2, "", "demo: error: lr=-1 must be positive\n")
    assert Path.cwd() == tmp_path


def _row(table: str = "1", name: str = "A", paper: float | None = 1.0, command: str = "", why: str = "x" * 31) -> Row:
    return Row(table, name, "m", paper, "", "Table 1", "printed", not_measured=why, command=command)


def test_rows_twice_out_of_order_or_without_a_reason_are_noticed():
    assert_rows_are_complete([_row(), _row(name="B"), _row("2")], ["1", "2"])
    assert_rows_are_complete([_row(), _row(paper=2.0)], ["1"], alike=["1"])
    for rows in ([_row("2"), _row()], [_row(), _row(paper=2.0)], [_row(why="too short")], [_row()]):
        with pytest.raises(AssertionError):
            assert_rows_are_complete(rows, ["1", "2"] if len(rows) == 1 else ["1"])


def test_commands_of_rows_are_composed_once_for_all_that_differ_in_figures(demo):
    rows = [_row(command=f"demo train seed={n} solver.lr=0.{n}") for n in (1, 2)]
    found = [(command, cfg.seed) for command, cfg in composed_commands(demo, rows)]
    assert found == [("demo train seed=1 solver.lr=0.1", 1)]
    assert compose_command(demo, "demo train seed=2").seed == 2
    with pytest.raises(UserError, match="sed"):
        list(composed_commands(demo, [_row(command="demo train sed=1")]))
    with pytest.raises(AssertionError, match="none of demo"):
        compose_command(demo, "tnt-vit train")
