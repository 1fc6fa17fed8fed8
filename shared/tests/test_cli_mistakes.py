"""effkit.cli: every mistake of the user is one line with the value received and what would do; crashes keep traces."""

import errno
import json
import os
import re

import pytest

from effkit.cli.explain import explain
from effkit.errors import UserError

MISTAKES = {
    "unknown command": (["trian"], ["unknown command 'trian'", "train, show-all, noisy", "did you mean 'train'?"]),
    "override first": (["lr=1"], ["the command comes first", "'lr=1'"]),
    "flag first": (["-x", "train"], ["the command comes first", "'-x'"]),
    "unknown option": (["train", "model=smal"], ["model='smal'", "large, small", "did you mean 'small'?"]),
    "unknown option number": (["train", "model=5"], ["model=5", "large, small"]),
    "unknown experiment": (["train", "experiment=bigg"], ["experiment='bigg'", "did you mean 'big'?"]),
    "unknown option in a folder": (
        ["train", "experiment=paper/table2"],
        ["experiment='paper/table2'", "big, paper/table1", "did you mean 'paper/table1'?"],
    ),
    "unknown option of a group added": (["noisy", "+model=lrge"], ["model='lrge'", "did you mean 'large'?"]),
    "mistyped key": (
        ["train", "trainer.max_epoch=2"],
        ["'trainer.max_epoch'", "trainer.limits, trainer.max_epochs", "did you mean 'trainer.max_epochs'?"],
    ),
    "key deep down": (["train", "trainer.limits.train_batch=2"], ["did you mean 'trainer.limits.train_batches'?"]),
    "mistyped node": (["train", "trainr.max_epochs=2"], ["'trainr.max_epochs'", "did you mean 'trainer.max_epochs'?"]),
    "key without its path": (["train", "max_epochs=2"], ["'max_epochs'", "did you mean 'trainer.max_epochs'?"]),
    "mistyped group": (["train", "modle=small"], ["'modle'", "did you mean 'model'?"]),
    "key of a number": (["train", "seed.x=1"], ["'seed.x'"]),
    "unused group": (["noisy", "model=small"], ["'model'", "+model=... adds it"]),
    "group added twice": (["train", "+model=large"], ["'model'", "write model=... without +"]),
    "deleting what is not there": (["train", "~trainer.max_epoch"], ["did you mean 'trainer.max_epochs'?"]),
    "two mistakes": (["train", "seeed=1", "modle=2"], ["'seeed'"]),
    "word": (["train", "fast"], ["'fast' is not understood", "key=value"]),
    "syntax": (["train", "seed==1"], ["'seed==1' cannot be read"]),
    "open bracket": (["train", "fail=[1"], ["'fail=[1' cannot be read"]),
    "sweep without multirun": (["train", "seed=1,2"], ["'seed=1,2'", "--multirun"]),
    "range without multirun": (["train", "seed=range(3)"], ["'seed=range(3)'", "--multirun"]),
    "unknown flag": (["train", "--multrun"], ["--multrun", "did you mean '--multirun'?"]),
    "flag without value": (["train", "--config-dir"], ["--config-dir", "expected one argument"]),
    "flags that exclude each other": (["train", "--cfg", "job", "-m"], ["--multirun and --cfg exclude each other"]),
    "package of nothing": (["train", "--package", "model"], ["--package goes with --cfg only, got --package model"]),
    "deleted key deep down": (
        ["train", "~trainer.max_epochs"],
        ["~trainer.max_epochs takes away what demo train needs: leave it out"],
    ),
    "deleted key": (["train", "~solver.lr"], ["~solver.lr takes away what demo train needs: leave it out"]),
    "nothing to resume": (["train", "resume="], ["resume= is empty: give a run folder", "leave resume= out"]),
    "unknown config folder": (["train", "--config-dir", "nowhere"], ["--config-dir 'nowhere' is no folder"]),
    "unknown config name": (["train", "--config-name", "trian"], ["'trian'", "did you mean 'train'?"]),
    "unknown launcher": (["train", "-m", "hydra/launcher=jobli"], ["did you mean 'joblib'?", "effkit[launchers]"]),
    "format": (["train", "format=xml"], ["format='xml'", "table, json"]),
    "precision": (["train", "precision=fp99"], ["precision='fp99'", "auto, fp32, bf16, fp16"]),
    "missing value": (["show-all"], ["images must be given: demo show-all images=..."]),
    "missing option": (["strict", "name=x"], ["model must be given, choose one of large, small: model=..."]),
    "interpolation": (["train", "fail=${nowhere}"], ["'nowhere' not found"]),
    "completion for a shell": (["--completion", "bsh"], ["'bsh'", "did you mean 'bash'?"]),
    "sweep over one mistake": (["train", "-m", "model=small,lrge"], ["model='lrge'", "did you mean 'large'?"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_exit_code_2(demo, error_line, capfd, name):
    words, expected = MISTAKES[name]
    assert demo(words) == 2
    line = error_line() if "-m" not in words else capfd.readouterr().err
    for fragment in expected:
        assert fragment in line


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        ("value", "epochs must be at least 1, got 3"),
        ("choice", "data.name='digit' is not known, choose one of digits, cifar10; did you mean 'digits'?"),
    ],
)
def test_a_value_error_of_ours_is_one_line(demo, error_line, tmp_path, fail, line):
    assert demo(["train", f"fail={fail}", "hydra/job_logging=disabled"]) == 2
    assert error_line() == line
    (status,) = tmp_path.glob("runs/train/*/status.json")
    assert json.loads(status.read_text())["status"] == "failed"
    assert json.loads(status.read_text())["error"] == line


def test_a_missing_file_is_one_line(demo, error_line):
    assert demo(["train", "fail=file", "hydra/job_logging=disabled"]) == 2
    assert re.fullmatch(r"No such file or directory: '.*/missing\.pt'", error_line())


@pytest.mark.parametrize("folder", ["taken", "taken/run"])
def test_a_run_folder_that_cannot_be_made_is_one_line(demo, error_line, tmp_path, folder):
    (tmp_path / "taken").write_text("a file")
    assert demo(["train", f"hydra.run.dir={folder}"]) == 2
    what = "is a file, give a folder" if folder == "taken" else "cannot be written: '.*taken' is no folder"
    assert re.fullmatch(rf"hydra\.run\.dir='{folder}' {what}", error_line())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not stop this user")
def test_a_run_folder_without_permission_is_one_line(demo, error_line, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert demo(["train", "hydra.run.dir=locked/run"]) == 2
    assert error_line() == "Permission denied: 'locked/run'"


def test_a_config_that_is_no_yaml_is_one_line(demo, error_line, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "broken.yaml").write_text("width: [1\n")
    assert demo(["train", "--config-dir", "mine", "model=broken"]) == 2
    line = error_line()
    assert "no valid YAML" in line
    assert "broken.yaml" in line


@pytest.mark.parametrize(("fail", "kind"), [("bug", "ValueError: invalid literal"), ("library", "JSONDecodeError")])
def test_a_crash_keeps_its_traceback(demo, capfd, tmp_path, fail, kind):
    assert demo(["train", f"fail={fail}"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback (most recent call last)" in err
    assert kind in err
    (log,) = tmp_path.glob("runs/train/*/train.log")
    assert kind in log.read_text()


def test_debugging_raises(demo, monkeypatch):
    monkeypatch.setenv("EFFKIT_DEBUG", "1")
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        demo(["train", "fail=value"])
    with pytest.raises(Exception, match="Could not override 'modle'"):
        demo(["train", "modle=small"])
    with pytest.raises(UserError, match="unknown command"):
        demo(["trian"])


def test_a_task_may_exit_by_itself(demo, tmp_path):
    assert demo(["train", "fail=exit"]) == 5
    (status,) = tmp_path.glob("runs/train/*/status.json")
    assert json.loads(status.read_text())["status"] == "failed"


@pytest.mark.parametrize(("group", "option"), [("experiment", "mine"), ("experiment", "paper/mine"), ("debug", "mine")])
def test_an_experiment_that_would_change_nothing_is_one_line(demo, error_line, tmp_path, group, option):
    file = tmp_path / "sent" / group / f"{option}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("seed: 7\nsolver: {lr: 0.5}\n")
    word = f"{group}={option}" if group == "experiment" else f"+{group}={option}"
    assert demo(["train", "--config-dir", "sent", word]) == 2
    line = error_line()
    assert line.startswith(f"{group}={option}: its file does not begin with the line '# @package _global_'")
    assert "add the line" in line
    file.write_text(f"# @package _global_\n{file.read_text()}")
    assert demo.compose("train", ["--config-dir", "sent", word]).solver.lr == 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("EFBIG", "'big.bin'; the file system or `ulimit -f` allows no larger file"),
        ("EMFILE", "'big.bin'; `ulimit -n` says how many a process may open: raise it, or use fewer workers"),
        *((name, "'big.bin'") for name in ("ENFILE", "EDQUOT", "EROFS", "ENAMETOOLONG", "ENOSPC", "EIO", "ESTALE")),
    ],
)
def test_what_the_system_says_of_files_and_disks_is_one_line(name, said):
    number = getattr(errno, name)
    assert explain(OSError(number, os.strerror(number), "big.bin"), ()) == f"{os.strerror(number)}: {said}"


def test_other_errors_of_the_system_keep_their_traceback():
    assert explain(OSError(errno.EPIPE + 10_000, "unheard of"), ()) is None
