"""Jobs of a sweep on SLURM: submitted by submitit as one array, each with an answer at the end."""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn

from effkit.cluster import check_slurm, library, outside_a_job, state_in_words, watch_queue
from effkit.errors import UserError
from effkit.launchers.sweep import Sweep

__all__ = ["launch"]

log = logging.getLogger(__name__)

_WHAT = "hydra/launcher=slurm"
# submitit's names for what every cluster has; everything else is SLURM's own.
_GENERAL = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name")
_COUNTS = {"timeout_min": 1, "nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1, "gpus_per_node": 0}
_FROM_TRAINER = ("tasks_per_node", "gpus_per_node")
_PATIENCE = 15.0  # seconds for a result to be seen here, on a slow disk, once its job is done
_LOOK = 1.0


def launch(sweep: Sweep, *, submitit_folder: str, max_num_timeout: int = 0, **options: Any) -> list[JobReturn]:
    """Run the jobs of a sweep.

    Args:
        sweep: The jobs.
        submitit_folder: For what submitit keeps, with the jobs' output; `%j` is the number of a job.
        max_num_timeout: How often a job whose time is up goes back into the queue.
        **options: The keys of ``hydra/launcher=slurm``.

    Returns:
        One answer a job.

    Raises:
        UserError: If submitit or SLURM is missing, or SLURM does not take the jobs as they are asked for.
    """
    submitit = library(_WHAT, "submitit", "launchers")
    plugin = library(_WHAT, "hydra_plugins.hydra_submitit_launcher.submitit_launcher", "launchers")
    check_slurm(_WHAT)
    parameters = _parameters(options)
    watcher = watch_queue()
    folder = sweep.begin()
    runner = plugin.SlurmLauncher()
    runner.setup(hydra_context=sweep.context, task_function=sweep.task, config=sweep.config)
    state = Singleton.get_state()
    words = [(list(job), "hydra.sweep.dir", sweep.number(i), "", state) for i, job in enumerate(sweep.jobs)]
    kept = Path(submitit_folder).absolute() if "%" in submitit_folder else Path(submitit_folder, "%j").absolute()
    with outside_a_job():
        executor = submitit.AutoExecutor(cluster="slurm", folder=str(kept), slurm_max_num_timeout=max_num_timeout)
        said = io.StringIO()  # submitit prints what `sbatch` said, and raises it too
        try:
            with contextlib.redirect_stderr(said):
                executor.update_parameters(**parameters)
                jobs = executor.map_array(runner, *zip(*words, strict=True))
            print(said.getvalue(), end="", file=sys.stderr)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, ValueError) as error:
            raise UserError(f"{_WHAT}: {_refusal(error)}") from error
    number = jobs[0].job_id.partition("_")[0]
    log.info(f"SLURM has the job {number}: {len(jobs)} runs into {sweep.config.hydra.sweep.dir}")
    for index in range(len(jobs)):
        log.info(f"\t#{sweep.number(index)} : {sweep.words(index)}")
    try:
        return _answers(sweep, jobs, watcher)
    except KeyboardInterrupt:
        if sweep.task.keeps_folder:
            log.warning(f"SLURM goes on with the job {number} into {folder}: scancel {number} ends it")
        else:  # what it would answer, nobody would read
            subprocess.run(["scancel", number], check=False, timeout=60)
        raise


def _parameters(options: Mapping[str, Any]) -> dict[str, Any]:
    """What submitit's executor takes, without what is left to the cluster."""
    for key, least in _COUNTS.items():
        value = options.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            hint = ": give the number of GPUs, SLURM starts a task for each" if key in _FROM_TRAINER else ""
            raise UserError(f"hydra.launcher.{key}={value!r} must be a whole number of at least {least}{hint}")
    memory = options.get("mem_gb")
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, (int, float)) or memory <= 0):
        raise UserError(f"hydra.launcher.mem_gb={memory!r} must be a number above 0")
    given = {k: v for k, v in options.items() if v is not None and v != {} and v != [] and (k != "gpus_per_node" or v)}
    if given.get("cpus_per_task") is not None:
        # Since SLURM 22.05 the tasks of a job do not take over what the job asks for.
        given["srun_args"] = [*given.get("srun_args", []), f"--cpus-per-task={given['cpus_per_task']}"]
    return {key if key in _GENERAL else f"slurm_{key}": value for key, value in given.items()}


def _refusal(error: Exception) -> str:
    """The last line that `sbatch` said, or what submitit said itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("sbatch: error:")] or lines
    return said[-1].removeprefix("sbatch: error:").strip() if said else type(error).__name__


def _answers(sweep: Sweep, jobs: list[Any], watcher: Any) -> list[JobReturn]:
    """Wait for all jobs."""
    answers: dict[int, JobReturn] = {}
    over: dict[int, float] = {}  # since when a job is done that has left no result
    told = ""
    while len(answers) < len(jobs):
        for index, job in enumerate(jobs):
            if index in answers:
                continue
            if all(path.exists() for path in _results(job)):
                answers[index] = _result(sweep, index, job)
            elif watcher.is_done(job.job_id) and _ago(over.setdefault(index, time.monotonic())) > _PATIENCE:
                answers[index] = _lost(sweep, index, job, watcher)
        told = _progress(jobs, answers, watcher, told)
        if len(answers) < len(jobs):
            time.sleep(_LOOK)
    return [answers[index] for index in range(len(jobs))]


def _ago(moment: float) -> float:
    return time.monotonic() - moment


def _progress(jobs: list[Any], answers: Mapping[int, JobReturn], watcher: Any, told: str) -> str:
    """Say how many are where, whenever that has changed."""
    states = [watcher.get_state(job.job_id, mode="cache") for i, job in enumerate(jobs) if i not in answers]
    running = sum(state.startswith(("RUNNING", "COMPLETING")) for state in states)
    line = f"{len(answers)} done, {running} running, {len(states) - running} waiting"
    if line != told and "UNKNOWN" not in states:
        log.info(f"SLURM: {line}")
        return line
    return told


def _results(job: Any) -> list[Path]:
    tasks = [job.task(i).paths for i in range(job.num_tasks)]
    for folder in {path.folder for path in tasks}:
        if folder.is_dir():
            list(folder.iterdir())  # lets a disk of the network look again
    return [path.result_pickle for path in tasks]


def _result(sweep: Sweep, index: int, job: Any) -> JobReturn:
    """What the first task returned; the others of a distributed job only took part."""
    from submitit.core.utils import pickle_load

    outcome, value = pickle_load(_results(job)[0])
    if outcome == "success":
        answer: JobReturn = value
        return answer
    last = value.strip().rpartition("\n")[2]
    return sweep.lost(index, f"job {job.job_id} of SLURM: {last}", value)


def _lost(sweep: Sweep, index: int, job: Any, watcher: Any) -> JobReturn:
    """A job that SLURM ended, with what it said last."""
    state = watcher.get_state(job.job_id, mode="cache")
    files = [job.task(i).paths.stderr for i in range(job.num_tasks)]
    tail = [f"{file.name}: {line}" for file in files for line in _tail(file)]
    line = f"job {job.job_id} of SLURM {state_in_words(state)}"
    if not any(file.exists() for file in files):
        line += f"; its output is not in {files[0].parent}: is that a folder that all nodes share?"
    return sweep.lost(index, line, "\n".join(tail), interrupted=state.startswith("CANCELLED"))


def _tail(file: Path, lines: int = 10) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]
