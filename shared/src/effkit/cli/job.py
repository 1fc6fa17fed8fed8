"""One job of a command: what runs inside Hydra, in this process or in a worker of a launcher.

A `Job` never raises an exception of its task (except while debugging): it returns an `Outcome`, so that one failing job
of a sweep neither hides the others nor makes Hydra print its own message. All fields can be pickled.
"""

from __future__ import annotations

import contextlib
import os
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.cli.continued import Continued, continue_in
from effkit.cli.explain import debugging, explain, one_line
from effkit.cli.place import check_folder, held
from effkit.cli.process import is_main_rank, log_to_file, quiet_console, ranks_released, rerunnable_as
from effkit.cli.running import running
from effkit.errors import UserError, choose

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from effkit.report import Report

FORMATS = ("table", "json")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")  # effkit.device's, without torch


@dataclass
class Outcome:
    """What came of one job.

    Args:
        overrides: The words that made this job.
        run_dir: Its folder; empty for commands that keep none.
        report: What the task returned.
        error: One line, if the user made a mistake.
        trace: The traceback, if the task crashed.
        exit_code: 0 all is well, 1 a check did not hold or a crash, 2 a mistake of the user.
    """

    overrides: list[str]
    run_dir: str = ""
    report: Report | None = None
    error: str = ""
    trace: str = ""
    exit_code: int = 0


class Status:
    """``status.json`` of a run folder: running, finished, failed or interrupted. Always a whole file.

    A process that was killed leaves "running" and its process number behind. A run that goes on keeps its first
    ``started`` and says when it was ``resumed``.
    """

    def __init__(self, folder: Path, command: str, continued: Continued | None = None) -> None:
        self.path, self.continued = folder / "status.json", continued
        self.values: dict[str, Any] = {"command": command, "pid": os.getpid(), "started": _now()}
        if continued is not None:
            self.values |= {"started": continued.started or self.values["started"], "resumed": _now()}
        self.write("running")

    def write(self, status: str, **values: Any) -> None:
        """Replace the file."""
        from effkit.report import write_json

        write_json(self.path, {"status": status, **self.values, **values})

    def end(self, status: str, **values: Any) -> None:
        """Write the last state; a disk that is full by now must not hide how the job ended."""
        with contextlib.suppress(OSError):
            self.write(status, ended=_now(), **values)

    def refused(self, **values: Any) -> None:
        """The job failed by a mistake of the user; a run that it did not even begin to continue is as it was."""
        if self.continued is not None and self.continued.untouched():
            self.continued.put_status_back()
        else:
            self.end("failed", **values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Job:
    """Callable for Hydra: runs the task of a command for one composed config.

    Args:
        program: The program's name.
        package: Its package; together with effkit's, its ``raise ValueError`` are messages to the user.
        command: The command's name.
        task: The command's function.
        script: Absolute path of the console script.
        module: Module name instead, when the program was started as ``python -m module``.
        flags: Words that go before the overrides when another rank composes the same config.
        keeps_folder: Whether the job has a folder of its own; a command that only reports has none.
        unread: Groups that the task does not get.
    """

    program: str
    package: str
    command: str
    task: Callable[[Any], Any]
    script: str
    module: str | None = None
    flags: list[str] = field(default_factory=list)
    keeps_folder: bool = True
    unread: tuple[str, ...] = ()

    def __call__(self, cfg: DictConfig) -> Outcome:
        """Run the task; see the module's docstring."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode
        from omegaconf import OmegaConf, read_write

        hydra_cfg: Any = HydraConfig.get()
        # Unresolved: an override may itself hold ${...}.
        given: Any = OmegaConf.to_container(hydra_cfg.overrides, resolve=False)
        outcome = Outcome(overrides=given["task"])
        with contextlib.ExitStack() as stack:
            status = None
            own, resumed = str(hydra_cfg.runtime.output_dir), continue_in(cfg.get("resume"), hydra_cfg.runtime.cwd)
            if self.keeps_folder and is_main_rank():
                try:
                    if hydra_cfg.mode == RunMode.MULTIRUN:
                        check_folder(own, cfg, "hydra.sweep.dir")
                    stack.enter_context(held(Path(own), resumed))
                except UserError as error:  # before anything is written there: this is the folder of another run
                    outcome.run_dir = own
                    self._failed(outcome, error)
                    return outcome
            continued = None if resumed is None else _continued(resumed, cfg, hydra_cfg)
            folder = str(hydra_cfg.runtime.output_dir)
            with read_write(
                hydra_cfg
            ):  # in a sweep, and wherever the name holds the time: the ranks run this job, here
                hydra_cfg.run.dir = folder
            if self.keeps_folder:
                outcome.run_dir = folder
                if is_main_rank():
                    status = Status(Path(folder), self.command, continued)
            if not is_main_rank():
                quiet_console()
            searchpath = [o for o in given["hydra"] if o.startswith("hydra.searchpath=")]
            words = [self.command, *self.flags, *searchpath, *outcome.overrides]
            stack.enter_context(rerunnable_as(self.script, self.module, words))
            stack.enter_context(ranks_released())
            stack.enter_context(running(self.package))
            return self._watched(cfg, outcome, status)

    def _watched(self, cfg: DictConfig, outcome: Outcome, status: Status | None) -> Outcome:
        """Run the task and record how it ended."""
        try:
            outcome.report = self._run(cfg)
        except Exception as error:
            self._failed(outcome, error)
            if status is not None:
                end = status.refused if outcome.error else partial(status.end, "failed")
                end(exit_code=outcome.exit_code, error=outcome.error or one_line(repr(error)))
            if debugging():
                raise
            return outcome
        except BaseException as stop:  # Ctrl-C, SIGTERM, or sys.exit: Lightning answers the former by the latter
            if status is not None:
                status.end(_how_it_stopped(stop))
            raise
        outcome.exit_code = getattr(outcome.report, "exit_code", 0)
        if status is not None:
            status.end("finished", exit_code=outcome.exit_code)
        return outcome

    def _run(self, cfg: DictConfig) -> Report | None:
        from omegaconf import OmegaConf, open_dict

        choose("format", cfg.get("format", "table"), FORMATS)
        if cfg.get("precision") is not None:  # of every command, so that none takes a word it does not know
            choose("precision", cfg.precision, PRECISIONS)
        if cfg.get("resume") == "":
            raise UserError("resume= is empty: give a run folder or a .ckpt file, or leave resume= out")
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{', '.join(missing)} must be given: {self.program} {self.command} {missing[0]}=...")
        with open_dict(cfg):
            for group in self.unread:
                cfg.pop(group, None)
        return self.task(cfg)

    def _deleted(self, error: Exception, overrides: Sequence[str]) -> str | None:
        """The word that took away what the task then missed (``~trainer``), if it was one."""
        if isinstance(error, (AttributeError, KeyError, TypeError)):
            for word in overrides:
                key = word.removeprefix("~").partition("=")[0].partition("@")[0]
                if word.startswith("~") and re.search(rf"\b{re.escape(key.rpartition('.')[2])}\b", str(error)):
                    return f"{word} takes away what {self.program} {self.command} needs: leave it out"
        return None

    def _failed(self, outcome: Outcome, error: Exception) -> None:
        line = explain(error, ("effkit", self.package)) or self._deleted(error, outcome.overrides)
        outcome.exit_code = 1 if line is None else 2
        if line is None:
            outcome.trace = "".join(traceback.format_exception(error))
        else:
            outcome.error = line
        log_to_file(f"error: {line}" if line is not None else outcome.trace.rstrip())


def _continued(folder: Path, cfg: DictConfig, hydra_cfg: Any) -> Continued:
    """Make the folder of the run that ``resume=`` names the job's own."""
    from omegaconf import open_dict, read_write

    cwd = hydra_cfg.runtime.cwd
    continued = Continued(folder)
    continued.take_over(Path(hydra_cfg.runtime.output_dir), hydra_cfg.output_subdir, cwd)
    with read_write(hydra_cfg.runtime), open_dict(hydra_cfg.runtime):
        hydra_cfg.runtime.output_dir = str(folder)
    if hydra_cfg.job.chdir:
        cfg.resume = str(Path(cwd, Path(cfg.resume).expanduser()))
    return continued


def _how_it_stopped(stop: BaseException) -> str:
    if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
        return "interrupted"
    return "finished" if isinstance(stop, SystemExit) and not stop.code else "failed"
