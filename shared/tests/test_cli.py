"""effkit.cli in this process: help, configs, run folders, reports, sweeps, ranks."""

import json
import os
import platform
import re
from pathlib import Path

import pytest

from effkit.cli import App, run_dir
from effkit.cli.process import ranks_released
from effkit.cli.quoting import gather_positional, quote
from effkit.errors import UserError
from effkit.ranks import RANK_VARIABLES, is_main_rank


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


# Help


def test_help_lists_the_commands_with_one_line_each(demo, capfd):
    assert demo(["--help"]) == 0
    out = capfd.readouterr().out
    assert "Usage: demo COMMAND" in out
    assert re.search(r"^  train +Pretend to train\.$", out, re.M)
    assert re.search(r"^  show-all +Show images\.$", out, re.M)


def test_without_a_command_help_goes_to_stderr(demo, capfd):
    assert demo([]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "Pretend to train." in err


@pytest.mark.parametrize("words", [["train", "--help"], ["help", "train"], ["train", "-h"]])
def test_help_of_a_command_lists_groups_options_and_config(demo, capfd, words):
    assert demo(words) == 0
    out = capfd.readouterr().out
    assert out.startswith("Usage: demo train [group=option ...]")
    assert "Writes one file into the run folder." in out
    assert re.search(r"^  model +large  \*small$", out, re.M)
    assert re.search(r"^  solver +\*adam  sgd$", out, re.M)
    assert re.search(r"^  experiment +big  paper/table1$", out, re.M)
    assert "  trainer:\n    max_epochs: 3\n" in out
    assert "hydra" not in out.split("Flags")[0].lower()


def test_help_shows_the_config_with_the_overrides_given(demo, capfd):
    assert demo(["train", "model=large", "--help"]) == 0
    out = capfd.readouterr().out
    assert "*large  small" in out
    assert "width: 2" in out


def test_help_does_not_need_the_values_a_run_needs(demo, capfd):
    assert demo(["strict", "--help"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"^  model +large  small$", out, re.M)
    assert "name: ???" in out


def test_help_names_groups_that_can_be_added(demo, capfd):
    assert demo(["strict", "--help"]) == 0
    assert re.search(r"^  \+solver +adam  sgd$", capfd.readouterr().out, re.M)


def test_help_of_a_command_without_groups(demo, capfd):
    assert demo(["show-all", "--help"]) == 0
    out = capfd.readouterr().out
    assert "show-all [IMAGES ...] [group=option ...]" in out
    assert "Groups" not in out


def test_version_of_a_program_that_no_distribution_brings(demo, capfd):
    assert demo(["--version"]) == 0
    assert capfd.readouterr().out == "demo (not installed)\n"


def test_cfg_prints_the_config_and_runs_nothing(demo, capfd, tmp_path):
    assert demo(["train", "--cfg", "job", "solver=sgd"]) == 0
    assert "lr: 2.0" in capfd.readouterr().out
    assert files(tmp_path) == []


# Run folders and reports


def test_a_run_leaves_config_log_status_and_files_in_its_folder(demo, capfd, tmp_path):
    assert demo(["train", "solver.lr=0.5", "trainer.max_epochs=2"]) == 0
    out, err = capfd.readouterr()
    assert "trained" in out
    assert "0.5" in out
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert f"run folder: {folder.relative_to(tmp_path)}" in err
    assert (folder / "weights.txt").read_text() == "0.5"
    assert "max_epochs: 2" in (folder / ".hydra" / "config.yaml").read_text()
    assert "training with lr 0.5" in (folder / "train.log").read_text()
    status = json.loads((folder / "status.json").read_text())
    assert (status["status"], status["command"], status["exit_code"]) == ("finished", "train", 0)
    assert status["pid"] == os.getpid()


def test_the_exit_code_is_the_reports(demo, tmp_path):
    assert demo(["train", "exit_code=1"]) == 1
    (status,) = tmp_path.glob("runs/train/*/status.json")
    assert json.loads(status.read_text())["exit_code"] == 1


def test_a_command_that_only_reports_leaves_nothing(demo, capfd, tmp_path):
    assert demo(["show-all", "images=[a]"]) == 0
    assert "1 images" in capfd.readouterr().out
    assert demo(["show-all", "--multirun", "images=[a],[b]"]) == 0
    assert files(tmp_path) == []


def test_run_dir_without_a_run():
    with pytest.raises(RuntimeError, match="no command is running"):
        run_dir()


def test_two_runs_at_once_do_not_share_a_folder(demo, tmp_path):
    for _ in range(3):
        assert demo(["train"]) == 0
    assert len(list((tmp_path / "runs" / "train").iterdir())) == 3


def test_json_is_one_document(demo, capfd):
    assert demo(["train", "format=json", "solver=sgd"]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert report["title"] == "trained"
    assert report["data"] == {"lr": 2.0}
    assert "training with lr 2.0" in err


def test_json_of_a_command_that_returns_nothing(demo, capfd):
    assert demo(["noisy", "format=json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["title"] == "noisy"
    for source in ("Python", "a child", "C", "logging"):
        assert f"noise from {source}\n" in err
    print("back again")
    assert capfd.readouterr().out == "back again\n"


def test_nothing_on_stdout_when_json_was_asked_of_a_run_that_fails(demo, capfd):
    assert demo(["train", "format=json", "fail=value"]) == 2
    assert capfd.readouterr().out == ""


def test_positional_words_become_a_list(demo, capfd):
    words = ["a b.jpg", "it's.png", r"back\slash'.png", "${x}.png", "comma,.png", "[1].png", "trailing\\"]
    assert demo(["show-all", *words, "format=json"]) == 0
    assert json.loads(capfd.readouterr().out)["data"]["images"] == words


def test_gather_positional_keeps_overrides():
    words = ["a.jpg", "x=1", "~y", "+z=2", "b.jpg"]
    assert gather_positional(words, "images") == ["x=1", "~y", "+z=2", "images=['a.jpg','b.jpg']"]
    assert gather_positional(words, None) == words
    assert gather_positional(["x=1"], "images") == ["x=1"]
    assert quote("it's") == r"'it\'s'"


def test_flags_may_stand_anywhere(demo, capfd, tmp_path):
    mine = tmp_path / "mine"
    (mine / "solver").mkdir(parents=True)
    (mine / "solver" / "own.yaml").write_text("lr: 7.0\n")
    assert demo(["train", "seed=3", "--config-dir", "mine", "solver=own", "format=json"]) == 0
    assert json.loads(capfd.readouterr().out)["data"] == {"lr": 7.0}


def test_a_finished_run_can_be_run_again(demo, capfd, tmp_path):
    assert demo(["train", "solver.lr=0.25"]) == 0
    (first,) = (tmp_path / "runs" / "train").iterdir()
    capfd.readouterr()
    assert demo(["train", "--config-path", f"{first.relative_to(tmp_path)}/.hydra", "--config-name", "config"]) == 0
    out, err = capfd.readouterr()
    assert "0.25" in out
    assert "training with lr" not in out
    assert "training with lr 0.25" in err
    assert len(list((tmp_path / "runs" / "train").iterdir())) == 2
    assert files(tmp_path / "runs")[0] == "train"


def test_compose_gives_the_config_of_a_command(demo):
    config = demo.compose("train", ["experiment=big", "seed=5"])
    assert config.model.width == 2
    assert config.seed == 5
    assert "hydra" not in config
    with pytest.raises(UserError, match="did you mean 'train'"):
        demo.compose("trian")
    with pytest.raises(UserError, match="did you mean 'small'"):
        demo.compose("train", ["model=smal"])


def test_composing_leaves_hydra_as_it_was(demo):
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    demo.compose("train")
    assert GlobalHydra.instance().hydra is before


def test_logging_is_left_as_it_was(demo):
    import logging

    before = logging.getLogger().handlers[:]
    assert demo(["train"]) == 0
    assert logging.getLogger().handlers == before


# Registering


def test_a_command_keeps_its_function_and_finds_its_config():
    app = App("demo", "demo.configs")

    @app.command("show-all")
    def task(cfg):
        """First line.

        More.
        """
        return cfg

    assert task("config") == "config"
    assert app.commands["show-all"].config_name == "show_all"
    assert app.commands["show-all"].summary == "First line."
    assert app.package == "demo"


# Sweeps


def test_a_sweep_prints_every_report(demo, capfd, tmp_path):
    assert demo(["train", "--multirun", "solver.lr=1.5,2.5"]) == 0
    out, err = capfd.readouterr()
    assert out.index("job 0: solver.lr=1.5") < out.index("job 1: solver.lr=2.5")
    assert "Launching 2 jobs" in err
    (sweep,) = (tmp_path / "runs" / "train").iterdir()
    assert [(sweep / n / "weights.txt").read_text() for n in "01"] == ["1.5", "2.5"]


def test_one_failing_job_hides_no_other(demo, capfd):
    words = ["train", "-m", "fail=value,null,bug", "format=json"]
    assert demo(words) == 2
    out, err = capfd.readouterr()
    jobs = json.loads(out)["jobs"]
    assert [job["exit_code"] for job in jobs] == [2, 0, 1]
    assert jobs[0]["error"] == "epochs must be at least 1, got 3"
    assert jobs[1]["report"]["title"] == "trained"
    assert jobs[2]["error"].startswith("ValueError: invalid literal")
    assert jobs[1]["overrides"][0] == "fail=null"
    assert "demo: error: job 0 (fail=value format=json): epochs must be at least 1, got 3\n" in err


def test_a_slurm_sweep_needs_slurm(demo, capfd, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert demo(["train", "-m", "seed=1,2", "hydra/launcher=submitit_slurm"]) == 2
    assert re.search(r"^demo: error: hydra/launcher: Could not detect .srun.", capfd.readouterr().err, re.M)


@pytest.mark.parametrize(
    "launcher", ["joblib", "submitit_local", "submitit_slurm", "slurm", "slurm_gpu", "ray_local", "ray_cluster"]
)
def test_launchers_compose(demo, capfd, launcher):
    assert demo(["train", "--cfg", "hydra", "-p", "hydra.launcher", f"hydra/launcher={launcher}"]) == 0
    assert "hydra_plugins." in capfd.readouterr().out


@pytest.mark.parametrize("launcher", [{"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, {"SLURM_STEP_NUM_TASKS": "2"}])
def test_processes_started_side_by_side_need_one_folder(demo, error_line, monkeypatch, tmp_path, launcher):
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert demo(["train"]) == 2
    assert "give all one folder with hydra.run.dir=..." in error_line()
    assert files(tmp_path) == []
    assert demo(["train", "hydra.run.dir=runs/mine"]) == 0
    assert demo(["show-all", "images=[]"]) == 0


LAUNCHERS = [
    ("RANK", {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}),
    ("GROUP_RANK", {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}),
    ("LOCAL_RANK", {"MASTER_ADDR": "localhost", "MASTER_PORT": "1234"}),
    ("NODE_RANK", {"MASTER_ADDR": "localhost", "MASTER_PORT": "1234"}),
    ("SLURM_PROCID", {"SLURM_NTASKS": "2"}),
]


@pytest.mark.parametrize(("name", "launcher"), LAUNCHERS)
def test_the_main_rank_is_zero_everywhere(monkeypatch, name, launcher):
    for variable in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "GROUP_RANK"):
        monkeypatch.setenv(variable, "0")
    for variable, value in launcher.items():
        monkeypatch.setenv(variable, value)
    assert is_main_rank()
    monkeypatch.setenv(name, "1")
    assert not is_main_rank()


@pytest.mark.parametrize("value", ["1", "abc"])
@pytest.mark.parametrize("name", [name for name, _ in LAUNCHERS])
def test_a_stale_rank_silences_nothing(demo, capfd, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert demo(["train", "hydra.run.dir=mine"]) == 0
    assert Path("mine/status.json").is_file()
    assert "trained" in capfd.readouterr().out
    assert os.environ[name] == value
    with ranks_released():
        assert name not in os.environ or name == "SLURM_PROCID"
    assert demo(["trian"]) == 2
    assert "unknown command" in capfd.readouterr().err


def test_variables_of_ranks_are_put_back(monkeypatch):
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", "1234")
    with ranks_released():
        for name in RANK_VARIABLES:
            os.environ[name] = "9"
    assert {name: os.environ.get(name) for name in RANK_VARIABLES} == {
        **dict.fromkeys(RANK_VARIABLES),
        "MASTER_PORT": "1234",
    }


def test_other_ranks_print_and_record_nothing(demo, capfd, monkeypatch, tmp_path):
    for name, value in {"LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1234"}.items():
        monkeypatch.setenv(name, value)
    words = ["hydra.run.dir=runs/mine", "hydra.output_subdir=null", "hydra.job.name=train_ddp_process_1"]
    # What the report's checks say is for the first rank to tell: a rank that ends with 1 makes Lightning kill the job.
    assert demo(["train", "exit_code=1", *words]) == 0
    assert capfd.readouterr() == ("", "")
    assert files(tmp_path / "runs" / "mine") == ["train_ddp_process_1.log", "weights.txt"]
    monkeypatch.setattr("effkit.cli.launch.PATIENCE", 0.1)
    assert demo(["train", "fail=value", *words]) == 2
    line = f"demo: error: rank 1 on {platform.node()}: epochs must be at least 1, got 3\n"
    assert capfd.readouterr() == ("", line)  # on this machine only, as far as the folder tells
    (tmp_path / "runs/mine/status.json").write_text(
        json.dumps({"status": "failed", "error": "epochs must be at least 1, got 3"})
    )
    assert demo(["train", "fail=value", *words]) == 2
    assert capfd.readouterr() == ("", "")


def test_a_sweep_without_hydras_folder_keeps_what_it_wrote(demo, capfd, tmp_path):
    """hydra.output_subdir=null leaves .hydra out, and nothing else."""
    assert demo(["train", "-m", "solver.lr=1.5,2.5", "hydra.output_subdir=null"]) == 0
    (sweep,) = (tmp_path / "runs" / "train").iterdir()
    assert [(sweep / n / "weights.txt").read_text() for n in "01"] == ["1.5", "2.5"]
    assert not (sweep / "0" / ".hydra").exists()
    assert json.loads((sweep / "1" / "status.json").read_text())["status"] == "finished"
    assert capfd.readouterr().err.count("run folder: ") == 2


def test_a_run_without_hydras_folder_has_its_status(demo, tmp_path):
    assert demo(["train", "hydra.output_subdir=null"]) == 0
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert files(folder) == ["status.json", "train.log", "weights.txt"]


# Words for booleans


@pytest.mark.parametrize(
    ("word", "value"), [("yes", True), ("no", False), ("on", True), ("off", False), ("No", False), ("OFF", False)]
)
def test_a_word_for_a_boolean_is_one_where_the_config_holds_one(demo, word, value):
    config = demo.compose("train", [f"trainer.deterministic={word}"])
    assert config.trainer.deterministic is value


def test_words_for_booleans_in_a_sweep_and_in_what_is_recorded(demo, tmp_path):
    assert demo(["train", "-m", "trainer.deterministic=no,yes"]) == 0
    saved = [p.read_text() for p in sorted(tmp_path.glob("runs/train/*/[01]/.hydra/config.yaml"))]
    assert ["deterministic: false" in saved[0], "deterministic: true" in saved[1]] == [True, True]


@pytest.mark.parametrize("word", ["fail=no", "+new=off"])
def test_a_word_for_a_boolean_is_refused_where_the_config_holds_nothing(demo, error_line, word):
    assert demo(["train", word]) == 2
    key, _, value = word.lstrip("+").partition("=")
    assert error_line() == f"{key}={value}: write {key}=false, or {key}=\"'{value}'\" if the word '{value}' is meant"


def test_a_quoted_word_is_text_and_a_text_may_be_such_a_word(demo):
    assert demo.compose("train", ["fail='no'"]).fail == "no"
    assert demo.compose("train", ["trainer.mode=off"]).trainer.mode == "off"
    with pytest.raises(UserError, match=r"did you mean 'trainer.deterministic'"):
        demo.compose("train", ["trainer.determinstic=no"])


# One run, one folder


def test_the_folder_of_a_finished_run_is_not_written_over(demo, capfd, error_line, tmp_path):
    words = ["train", "hydra.run.dir=runs/mine"]
    assert demo([*words, "solver.lr=0.5"]) == 0
    before = {p: p.read_bytes() for p in sorted((tmp_path / "runs" / "mine").rglob("*")) if p.is_file()}
    capfd.readouterr()
    assert demo([*words, "solver.lr=0.25"]) == 2
    assert error_line() == (
        "hydra.run.dir='runs/mine' holds a run already: resume=runs/mine goes on with it, overwrite=true writes over it"
    )
    assert {p: p.read_bytes() for p in sorted((tmp_path / "runs" / "mine").rglob("*")) if p.is_file()} == before
    assert demo([*words, "solver.lr=0.25", "resume=runs/mine"]) == 0
    assert demo([*words, "solver.lr=0.125", "overwrite=true"]) == 0
    assert (tmp_path / "runs" / "mine" / "weights.txt").read_text() == "0.125"


def test_the_folder_of_a_run_that_failed_at_once_may_be_used_again(demo):
    assert demo(["train", "hydra.run.dir=runs/mine", "fail=value"]) == 2
    assert demo(["train", "hydra.run.dir=runs/mine"]) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["hydra.run.dir="], "hydra.run.dir= is empty: give a folder, or leave hydra.run.dir= out"),
        (["-m", "hydra.sweep.dir="], "hydra.sweep.dir= is empty: give a folder, or leave hydra.sweep.dir= out"),
        (["-m", "seed=0,1", "hydra.sweep.subdir=one"], "hydra.sweep.subdir='one' is one folder for all jobs"),
    ],
)
def test_a_folder_that_is_none_or_everybodys_is_refused(demo, error_line, tmp_path, words, line):
    assert demo(["train", *words]) == 2
    assert error_line().startswith(line)
    assert files(tmp_path) == []


def test_two_jobs_of_a_sweep_do_not_share_a_folder(demo, capfd, tmp_path):
    assert demo(["train", "-m", "solver.lr=1.5,2.5", "hydra.sweep.subdir=${seed}"]) == 2
    (folder,) = tmp_path.glob("runs/train/*/0")
    assert (folder / "weights.txt").read_text() == "1.5"
    assert "job 1 (solver.lr=2.5): hydra.sweep.dir=" in capfd.readouterr().err


def test_a_folder_is_held_while_its_run_lives(demo, error_line, tmp_path):
    from effkit.lock import LOCK, locked

    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    with locked(folder, print):
        assert demo(["train", f"hydra.run.dir={folder}", "hydra/job_logging=disabled"]) == 2
        assert f"hydra.run.dir='{folder}' is in use by another run since" in (line := error_line())
        assert f"(process {os.getpid()} on " in line
        assert demo(["train", f"resume={folder}", "hydra/job_logging=disabled"]) == 2
        assert f"resume='{folder}' is in use by another run" in error_line()
        assert not (folder / "status.json").exists()
    assert demo(["train", f"hydra.run.dir={folder}"]) == 0
    assert not (folder / LOCK).exists()
