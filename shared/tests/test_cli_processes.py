"""effkit.cli in processes of its own: exit codes, signals, standard output, launchers, distributed sweeps, shells."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effkit.testing import run_cli

APPS = Path(__file__).parent / "apps"
ENV = {"PYTHONPATH": str(APPS)}
POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and shells")


def demo(*words, cwd, timeout=120.0):
    return run_cli(["demo", *words], cwd=cwd, env=ENV, timeout=timeout)


def start(*words, cwd):
    """Start the program without waiting for it."""
    command = [sys.executable, "-m", "demo", *words]
    environment = {**os.environ, **ENV}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(folder, pattern):
    deadline = time.monotonic() + 120
    while not (found := list(folder.glob(pattern))):
        assert time.monotonic() < deadline, f"{pattern} never appeared in {folder}"
        time.sleep(0.05)
    return found[0]


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_help_and_command_completion_import_neither_torch_nor_hydra(tmp_path):
    code = (
        "import sys; from demo.cli import main; "
        "assert main(['--help']) == 0 and main(['-sc', 'query=bash']) == 0; "
        "print(sorted({'torch', 'hydra', 'omegaconf', 'rich', 'numpy'} & set(sys.modules)))"
    )
    _, out, _ = run_cli([sys.executable, "-c", code], cwd=tmp_path, env={**ENV, "COMP_LINE": "demo tr"})
    assert out.splitlines()[-2:] == ["train", "[]"]


def test_a_command_imports_torch_only_if_it_needs_it(tmp_path):
    code = (
        "import sys; from demo.cli import main; "
        "assert main(['train']) == 0; print({'torch', 'lightning'} & set(sys.modules))"
    )
    _, out, _ = run_cli([sys.executable, "-c", code], cwd=tmp_path, env=ENV)
    assert out.splitlines()[-1] == "set()"


def test_the_process_ends_with_the_exit_code(tmp_path):
    assert demo("train", cwd=tmp_path).code == 0
    assert demo("train", "exit_code=1", cwd=tmp_path).code == 1
    code, out, err = demo("trian", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        "demo: error: unknown command 'trian', choose one of train, show-all, noisy, strict, build, fit; "
        "did you mean 'train'?\n"
    )


def test_json_stays_alone_on_stdout_even_at_the_end_of_the_process(tmp_path):
    code = "import atexit; atexit.register(print, 'printed at exit'); from demo.cli import main; main()"
    command = [sys.executable, "-c", code, "noisy", "format=json"]
    code, out, err = run_cli(command, cwd=tmp_path, env=ENV)
    assert code == 0
    assert json.loads(out)["title"] == "noisy"
    for text in ("noise from Python", "noise from a child", "noise from C", "noise from logging", "printed at exit"):
        assert f"{text}\n" in err


@POSIX
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_leaves_the_run_folder_in_order(tmp_path, name, code):
    process = start("train", "sleep=60", "format=json", cwd=tmp_path)
    folder = wait_for(tmp_path, "runs/train/*/sleeping").parent
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    assert err == "training with lr 1.0\ndemo: interrupted\n"
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "interrupted"
    assert "ended" in status
    assert "training with lr 1.0" in (folder / "train.log").read_text()


@POSIX
def test_a_killed_run_says_running_with_its_process_number(tmp_path):
    process = start("train", "sleep=60", cwd=tmp_path)
    folder = wait_for(tmp_path, "runs/train/*/sleeping").parent
    process.kill()
    process.communicate(timeout=30)
    status = json.loads((folder / "status.json").read_text())
    assert (status["status"], status["pid"]) == ("running", process.pid)


@POSIX
def test_a_folder_is_held_by_a_run_that_lives_and_taken_over_from_one_that_was_killed(tmp_path):
    process = start("train", "sleep=60", "hydra.run.dir=mine", cwd=tmp_path)
    wait_for(tmp_path, "mine/sleeping")
    for words in (["hydra.run.dir=mine"], ["resume=mine"]):
        code, out, err = demo("train", *words, "hydra/job_logging=disabled", cwd=tmp_path)
        assert (code, out) == (2, "")
        assert "is in use by another run since" in err
        assert f"(process {process.pid} on " in err
    status = json.loads((tmp_path / "mine" / "status.json").read_text())
    assert (status["status"], status["pid"]) == ("running", process.pid)
    process.kill()
    process.communicate(timeout=30)
    code, out, err = demo("train", "hydra.run.dir=mine", cwd=tmp_path)
    assert code == 0
    assert f"the run that held it, process {process.pid}, is gone" in err
    assert not (tmp_path / "mine" / "lock").exists()


@POSIX
def test_a_reader_that_stops_early_is_no_error(tmp_path):
    process = start("train", "--help", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert process.returncode == 141
    assert err == ""


@POSIX
@pytest.mark.parametrize("output", ["table", "json"])
def test_a_closed_standard_output_is_no_error(tmp_path, output):
    command = f"exec {sys.executable} -m demo show-all a format={output} >&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env={**os.environ, **ENV}, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@POSIX
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    command = f"exec {sys.executable} -m demo show-all a > /dev/full"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env={**os.environ, **ENV}, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "demo: error: [Errno 28] No space left on device\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_through_the_command(tmp_path):
    program = tmp_path / "demo"
    program.write_text(f"#!{sys.executable}\nfrom demo.cli import main\nmain()\n")
    program.chmod(0o755)
    script = """
        eval "$(demo --completion bash)"
        complete -p demo
        try() {
            COMP_LINE="$1"; COMP_WORDS=($1); COMP_CWORD=$2; COMPREPLY=()
            hydra_bash_completion
            echo "${COMPREPLY[@]}"
        }
        try "demo tr" 1
        try "demo train model=l" 2
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, **ENV, "PATH": path}, capture_output=True, text=True, check=True
    )
    installed, command, option = done.stdout.splitlines()
    assert installed.endswith("-F hydra_bash_completion demo")
    assert command == "train"
    assert option == "model=large"


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_on_workers(tmp_path, launcher):
    words = ["train", "--multirun", "fail=null,value", "solver.lr=1.5", f"hydra/launcher={launcher}", "format=json"]
    code, out, err = demo(*words, cwd=tmp_path)
    assert code == 2, err
    good, bad = json.loads(out)["jobs"]
    assert (good["exit_code"], good["report"]["data"]) == (0, {"lr": 1.5})
    assert (bad["exit_code"], bad["report"], bad["error"]) == (2, None, "epochs must be at least 1, got 3")
    folder = Path(good["run_dir"])
    assert folder.parent.parent == tmp_path / "runs" / "train"
    assert (folder / "weights.txt").read_text() == "1.5"
    statuses = [json.loads((Path(job["run_dir"]) / "status.json").read_text())["status"] for job in (good, bad)]
    assert statuses == ["finished", "failed"]


@POSIX
def test_a_sweep_whose_worker_was_killed(tmp_path):
    """What joblib does then is to give up the sweep; the table says what had become of its jobs."""
    words = ["train", "-m", "fail=killed", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=s"]
    code, out, err = demo(*words, cwd=tmp_path)
    assert code == 2, err
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert lines[0] == ["1", "job", "that", "had", "begun", "when", "the", "sweep", "was", "ended"]
    assert lines[3] == ["0", "fail=killed", "failed", "s/0"]
    assert err.splitlines()[-1].startswith("demo: error: hydra/launcher: A worker process managed by the executor was")


@pytest.mark.slow
def test_a_sweep_of_distributed_jobs(tmp_path):
    """Two jobs on two processes each: every rank trains in its own job's folder, and the second job has ranks too."""
    code, out, err = demo("fit", "--multirun", "lr=0.01,0.02", "format=json", cwd=tmp_path, timeout=400)
    assert code == 1, err  # the report's own exit code, not that of a rank
    jobs = json.loads(out)["jobs"]
    assert [job["report"]["data"] for job in jobs] == [
        {"lr": lr, "rank": 0, "world": 2, "steps": 2} for lr in (0.01, 0.02)
    ]
    for job, lr in zip(jobs, (0.01, 0.02), strict=True):
        ranks = [json.loads((Path(job["run_dir"]) / f"rank{rank}.json").read_text()) for rank in (0, 1)]
        assert ranks == [{"lr": lr, "rank": rank, "world": 2, "steps": 2} for rank in (0, 1)]
        assert json.loads((Path(job["run_dir"]) / "status.json").read_text())["status"] == "finished"
    assert len(list((tmp_path / "runs" / "fit").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end the ranks")
@pytest.mark.parametrize(("name", "code", "status"), [("SIGINT", 130, "interrupted"), ("SIGKILL", -9, "running")])
def test_the_end_of_the_first_rank_is_the_end_of_all(tmp_path, name, code, status):
    environment = {**os.environ, **ENV, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "demo", "fit", "epochs=1000000"]
    with (tmp_path / "err.txt").open("w") as err:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=err, stderr=err, start_new_session=True
        )
        folder = wait_for(tmp_path, "runs/fit/*/rank1.started").parent
        if name == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches every rank
        else:
            process.kill()
        assert process.wait(timeout=120) == code
    if name == "SIGINT":
        assert (tmp_path / "err.txt").read_text().endswith("demo: interrupted\n")
    assert json.loads((folder / "status.json").read_text())["status"] == status
    deadline = time.monotonic() + 30
    while group_lives(process.pid):
        assert time.monotonic() < deadline, "a rank outlived the first"
        time.sleep(0.1)


def begin(*words, cwd, err):
    """Start the program in a group of its own, as ``timeout`` and ``srun`` do, with standard error in a file."""
    environment = {**os.environ, **ENV, "OMP_NUM_THREADS": "1"}
    with err.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "demo", *words],
            cwd=cwd,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def assert_group_ends(group):
    deadline = time.monotonic() + 30
    while group_lives(group):
        assert time.monotonic() < deadline, "a process outlived the job"
        time.sleep(0.1)


def status_of(folder):
    return json.loads((folder / "status.json").read_text())


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("how", ["killed", "broken"])
def test_a_rank_that_falls_ends_the_others_in_one_line(tmp_path, how):
    err = tmp_path / "err.txt"
    words = ["epochs=1000000"] + (["fail_rank=1"] if how == "broken" else [])
    process = begin("fit", *words, "hydra.run.dir=run", cwd=tmp_path, err=err)
    if how == "killed":
        os.kill(int(wait_for_text(tmp_path / "run" / "rank1.started")), signal.SIGKILL)
    assert process.wait(timeout=120) == 1
    why = {
        "killed": "was killed by SIGKILL (by hand, or because the memory was full)",
        "broken": "failed: RuntimeError: this rank is broken",
    }
    line = f"rank 1 {why[how]}; its first epoch had not ended"
    assert err.read_text() == f"demo: error: {line}\n"
    found = status_of(tmp_path / "run")
    assert (found["status"], found["error"]) == ("failed", line)
    assert ("this rank\nis broken" in (tmp_path / "run" / "fit.log").read_text()) == (how == "broken")
    assert_group_ends(process.pid)


def wait_for_text(file):
    wait_for(file.parent, file.name)
    while not (text := file.read_text()):
        time.sleep(0.05)
    return text


@pytest.mark.slow
@POSIX
def test_a_signal_to_all_while_the_ranks_start_is_an_interruption(tmp_path):
    process = begin("fit", "sleep=60", "hydra.run.dir=run", cwd=tmp_path, err=tmp_path / "err.txt")
    wait_for(tmp_path, "run/starting")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert status_of(tmp_path / "run")["status"] == "interrupted"
    assert (tmp_path / "err.txt").read_text() == "demo: interrupted\n"
    assert_group_ends(process.pid)


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_no_job_of_a_sweep_says_that_it_runs_after_its_end(tmp_path, victim):
    words = ["--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sleep=60", "solver.lr=1,2,3"]
    process = begin("train", *words, "hydra.sweep.dir=sweep", cwd=tmp_path, err=tmp_path / "err.txt")
    folders = [wait_for(tmp_path, f"sweep/{job}/sleeping").parent for job in (0, 1)]
    if victim == "parent":
        process.terminate()
        assert process.wait(timeout=60) == 143
    else:
        os.kill(status_of(folders[0])["pid"], signal.SIGKILL)
        assert process.wait(timeout=60) == 2
        assert "a worker process" in (tmp_path / "err.txt").read_text().splitlines()[-1].lower()
    statuses = [status_of(folder)["status"] for folder in folders]
    assert statuses == (["interrupted"] * 2 if victim == "parent" else ["failed"] * 2)
    assert not (tmp_path / "sweep" / "2" / "status.json").exists()
    assert_group_ends(process.pid)
