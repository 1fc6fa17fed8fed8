"""From the words after a command to its printed report: flags, config, one job or a sweep, output, exit code."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hydra.types import RunMode

from effkit.cli import help
from effkit.cli.again import AUTO, may_be_started_again
from effkit.cli.explain import one_line
from effkit.cli.job import Job, Outcome
from effkit.cli.place import check_folder, check_sweep
from effkit.cli.process import stdout_to_stderr
from effkit.cli.quoting import gather_positional, quote, refuse_unread
from effkit.cli.session import Session, flags_for_ranks, parse_flags, session
from effkit.cli.sweeps import JobRow, rows_of, shown, sweep_table, told_if_ended
from effkit.cli.workers import jobs_settled
from effkit.errors import UserError
from effkit.ranks import RankReport, is_main_rank, process_number, report_failure, started_with_others
from effkit.stopping import current

if TYPE_CHECKING:
    from effkit.cli.command import Command, Program

PATIENCE = 3.0
"""Seconds that the first rank may need longer than another to make the same mistake."""


def launch(app: Program, command: Command, words: Sequence[str], ends_process: bool) -> int:
    """Run a command.

    Args:
        app: The program.
        command: One of its commands.
        words: What follows the command's name.
        ends_process: Whether the process belongs to this command line (and ends with it).

    Returns:
        The exit code.
    """
    flags = parse_flags(f"{app.prog} {command.name}", words)
    flags.overrides = gather_positional(flags.overrides, command.positional)
    with session(app.prog, command.name, app.config_module, command.config_name, flags) as hydra:
        refuse_unread(hydra.program, flags.overrides, command.unread)
        if flags.help:
            print(help.command(app, command, hydra))
            return 0
        if hydra.shows(flags):
            return 0
        main = sys.modules["__main__"].__spec__ if ends_process else None
        job = Job(
            program=app.prog,
            package=app.package,
            command=command.name,
            task=command.task,
            script=_script(app.prog, ends_process),
            module=main.name if main is not None else None,
            flags=flags_for_ranks(flags),
            positional=command.positional,
            unread=command.unread,
        )
        return _run(app, job, hydra, flags.multirun, ends_process)


def _run(app: Program, job: Job, hydra: Session, multirun: bool, ends_process: bool) -> int:
    config = hydra.peek()
    extra: list[str] = []
    document: TextIO | None = None
    with contextlib.ExitStack() as stack:
        if config is not None:  # otherwise composing it again below says what is wrong
            multirun = multirun or config.hydra.mode == RunMode.MULTIRUN
            if config.get("format") == "json":
                document = stack.enter_context(stdout_to_stderr(restore=not ends_process))
            job.keeps_folder = config.hydra.output_subdir is not None or hydra.keeps_folder()
            if job.keeps_folder:
                _check_one_folder(hydra.overrides, multirun)
                if multirun:
                    check_sweep(config)
                elif is_main_rank() and config.get("resume") != AUTO and not may_be_started_again(in_worker=False):
                    check_folder(config.hydra.run.dir, config)
            elif multirun:
                # A command that only reports keeps no folder, but Hydra writes the sweep's config into one, and SLURM
                # its jobs' answers: nodes see the folder that the command is started in, but no temporary one.
                place = "." if "lurm" in str(config.hydra.launcher.get("_target_")) else None
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f".{app.prog}-", dir=place))
                extra.append(f"hydra.sweep.dir={quote(folder)}")
        if multirun and job.keeps_folder and config is not None:  # told once: it holds the time
            extra.append(f"hydra.sweep.dir={quote(str(config.hydra.sweep.dir))}")
            if is_main_rank():
                stack.enter_context(told_if_ended(Path(config.hydra.sweep.dir), None if document else sys.stdout))
            stack.enter_context(jobs_settled(Path(config.hydra.sweep.dir), current()))
        outcomes: list[Outcome] = hydra.launch(job, multirun, extra)
        if not is_main_rank():
            return _code_of_rank(app, outcomes)
        for number, outcome in enumerate(outcomes):
            if outcome.error:
                app.complain(
                    f"job {number} ({' '.join(outcome.overrides)}): {outcome.error}" if multirun else outcome.error
                )
                for line in outcome.tail.splitlines():
                    print(f"    {line}", file=sys.stderr)
            elif outcome.trace:
                print(outcome.trace, end="", file=sys.stderr)
        if document is not None:
            _print_json(job.command, outcomes, multirun, document)
        else:
            _print_tables(outcomes, multirun)
    return max((outcome.exit_code for outcome in outcomes), default=0)


def _check_one_folder(overrides: Sequence[str], multirun: bool) -> None:
    """Processes started side by side would each name a folder after their own time."""
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    launcher = started_with_others()
    if launcher and not any(override.startswith(f"{key}=") for override in overrides):
        raise UserError(f"{launcher} started several processes: give all one folder with {key}=..., got none")


def _code_of_rank(app: Program, outcomes: Sequence[Outcome]) -> int:
    """A rank other than the first fails only if it could not go on: the whole job fails for it.

    What the report's checks say is for the first rank to tell, and what went wrong too, where it hears of it.
    """
    failed = [outcome for outcome in outcomes if outcome.error or outcome.trace]
    for outcome in failed:
        line = outcome.error or _exception_of(outcome.trace)
        if report_failure(RankReport(line, outcome.trace, outcome.lost)) or outcome.lost:
            continue
        if outcome.trace:
            print(outcome.trace, end="", file=sys.stderr)
        elif not _first_rank_says(outcome):
            print(f"{app.prog}: error: rank {process_number()} on {platform.node()}: {line}", file=sys.stderr)
    return max((outcome.exit_code for outcome in failed), default=0)


def _exception_of(trace: str) -> str:
    """The exception at the end of a traceback in one line, its message of several lines included."""
    lines = trace.strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(" ")]
    return one_line("\n".join(lines[frames[-1] + 1 if frames else 0 :]))


def _first_rank_says(outcome: Outcome) -> bool:
    """Whether the first rank has made the same mistake, which it then has told; it may be a little behind."""
    deadline = time.monotonic() + PATIENCE
    while outcome.run_dir and time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            said = json.loads((Path(outcome.run_dir) / "status.json").read_text(encoding="utf-8"))
            if said.get("status") == "failed" and said.get("error") == outcome.error:
                return True
        time.sleep(0.1)
    return False


def _print_tables(outcomes: Sequence[Outcome], multirun: bool) -> None:
    for number, outcome in enumerate(outcomes):
        if multirun:
            print(f"job {number}: {' '.join(outcome.overrides)}")
        if outcome.report is not None:
            outcome.report.print()
            sys.stdout.flush()
        if outcome.run_dir and not outcome.error and not outcome.trace:
            print(f"run folder: {shown(outcome.run_dir)}", file=sys.stderr)
    if multirun:
        sweep_table(rows_of(outcomes)).print()
        sys.stdout.flush()


def _print_json(command: str, outcomes: Sequence[Outcome], multirun: bool, document: TextIO) -> None:
    """One document: the report, or for a sweep ``{"title": ..., "jobs": [...]}``; nothing if a single job failed."""
    if not multirun and (outcomes[0].error or outcomes[0].trace):
        return
    value: dict[str, Any]
    if multirun:
        rows = zip(outcomes, rows_of(outcomes), strict=True)
        value = {"title": command, "jobs": [_job_json(command, outcome, row) for outcome, row in rows]}
    else:
        value = _report_json(command, outcomes[0])
    document.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    document.flush()


def _job_json(command: str, outcome: Outcome, row: JobRow) -> dict[str, Any]:
    failed = outcome.error or outcome.trace.strip().rpartition("\n")[2]
    return {
        "overrides": outcome.overrides,
        "status": row.status,
        "metric": row.metric or None,
        "value": row.value,
        "run_dir": outcome.run_dir or None,
        "exit_code": outcome.exit_code,
        "error": failed or None,
        "report": None if failed else _report_json(command, outcome),
    }


def _report_json(command: str, outcome: Outcome) -> dict[str, Any]:
    from effkit.report import Report

    return (outcome.report or Report(title=command)).to_json()


def _script(program: str, ends_process: bool) -> str:
    if ends_process:
        return os.path.abspath(sys.argv[0])
    return str(
        Path(sys.executable).with_name(program)
    )  # called from Python: the installed script beside the interpreter
