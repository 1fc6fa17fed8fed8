"""One job of a command: what runs inside Hydra, in this process or in a worker of a launcher.

A `Job` never raises an exception of its task (except while debugging): it returns an `Outcome`, so that one failing job
of a sweep neither hides the others nor makes Hydra print its own message. All fields can be pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effkit.cli.again import AUTO, Decision, decide, fingerprint, may_be_started_again
from effkit.cli.continued import Continued, continue_in
from effkit.cli.explain import debugging, explain, one_line
from effkit.cli.place import check_folder, held
from effkit.cli.process import log_to_file, quiet_console, ranks_released, rerunnable_as, stop_signals
from effkit.cli.quoting import quote
from effkit.cli.running import running
from effkit.cli.workers import end_worker
from effkit.errors import RankFailed, UserError, choose, written
from effkit.executors.errors import TaskError
from effkit.ranks import is_main_rank, lost_connection
from effkit.stopping import current, deferred, last_words

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from effkit.report import Report

FORMATS = ("table", "json")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")  # effkit.device's, without torch


def _this_process() -> tuple[str, int]:
    return platform.node(), os.getpid()


@dataclass
class Outcome:
    """What came of one job.

    Args:
        overrides: The words that made this job.
        run_dir: Its folder; empty for commands that keep none.
        report: What the task returned.
        error: One line, if the user made a mistake.
        trace: The traceback, if the task crashed.
        tail: The last that a job said on standard error that gave no outcome itself.
        interrupted: Whether it was told to stop.
        lost: Whether the trace only says that another process of the job is gone.
        exit_code: 0 all is well, 1 a check did not hold or a crash, 2 a mistake of the user.
    """

    overrides: list[str]
    run_dir: str = ""
    report: Report | None = None
    error: str = ""
    trace: str = ""
    tail: str = ""
    interrupted: bool = False
    lost: bool = False
    exit_code: int = 0

    @property
    def status(self) -> str:
        """How the job ended, in one of the words of ``status.json``; "does not hold" where its checks do not."""
        if self.interrupted:
            return "interrupted"
        if self.error or self.trace:
            return "failed"
        return "finished" if self.exit_code == 0 else "does not hold"


class Status:
    """``status.json`` of a run folder: running, finished, failed or interrupted. Always a whole file.

    A process that was killed leaves "running" and its process number behind. A run that goes on keeps its first
    ``started`` and says when it was ``resumed``.
    """

    def __init__(self, folder: Path, command: str, continued: Continued | None = None, *, config: str = "") -> None:
        self.path, self.continued = folder / "status.json", continued
        self.values: dict[str, Any] = {
            "command": command,
            "pid": os.getpid(),
            "host": platform.node(),
            "started": _now(),
            "config": config,
        }
        if continued is not None:
            self.values |= {"started": continued.started or self.values["started"], "resumed": _now()}
        self.write("running")

    def write(self, status: str, **values: Any) -> None:
        """Replace the file; a signal waits for that, or it would leave the state before."""
        from effkit.report import write_json

        with deferred():
            write_json(self.path, {"status": status, **self.values, **values})

    def end(self, status: str, **values: Any) -> None:
        """Write the last state; a disk that is full by now must not hide how the job ended."""
        with contextlib.suppress(OSError):
            self.write(status, ended=_now(), **values)

    def last_word(self, status: str, reason: str) -> None:
        """End it where the process ends without unwinding."""
        self.end(status, error=reason)

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
        positional: Key of the words without ``=``.
        unread: Groups that the task does not get.
        home: Host and process that made it; elsewhere it runs in a worker of a launcher.
    """

    program: str
    package: str
    command: str
    task: Callable[[Any], Any]
    script: str
    module: str | None = None
    flags: list[str] = field(default_factory=list)
    keeps_folder: bool = True
    positional: str | None = None
    unread: tuple[str, ...] = ()
    home: tuple[str, int] = field(default_factory=_this_process)

    def __call__(self, cfg: DictConfig) -> Outcome:
        """Run the task; see the module's docstring."""
        if self.home == _this_process():
            return self._here(cfg)
        with stop_signals(over=True) as stop:
            try:
                return self._here(cfg)
            except (KeyboardInterrupt, SystemExit):
                if stop.received is not None:
                    end_worker(stop)
                raise

    def _here(self, cfg: DictConfig) -> Outcome:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode
        from omegaconf import OmegaConf, read_write

        hydra_cfg: Any = HydraConfig.get()
        # Unresolved: an override may itself hold ${...}.
        given: Any = OmegaConf.to_container(hydra_cfg.overrides, resolve=False)
        outcome = Outcome(overrides=given["task"])
        own = Path(hydra_cfg.runtime.output_dir)
        with contextlib.ExitStack() as stack:
            try:
                again = self._again(cfg, own) if self.keeps_folder else None
                if again is not None and again.finished is not None:
                    outcome.report, outcome.run_dir = again.report(own, self.command), str(own)
                    outcome.exit_code = outcome.report.exit_code
                    return outcome
                resumed = continue_in(cfg.get("resume"), hydra_cfg.runtime.cwd)
                if self.keeps_folder and is_main_rank():
                    if hydra_cfg.mode == RunMode.MULTIRUN and again is None:
                        check_folder(str(own), cfg, "hydra.sweep.dir")
                    stack.enter_context(held(own, resumed))
            except UserError as error:  # before anything is written there: this is the folder of another run
                outcome.run_dir = str(own)
                self._failed(outcome, error)
                return outcome
            continued = None if resumed is None else _continued(resumed, cfg, hydra_cfg)
            folder = str(hydra_cfg.runtime.output_dir)
            with read_write(hydra_cfg):  # in a sweep, and wherever the name holds the time: the ranks run this job here
                hydra_cfg.run.dir = folder
            if not is_main_rank():
                quiet_console()
            searchpath = [o for o in given["hydra"] if o.startswith("hydra.searchpath=")]
            words = [self.command, *self.flags, *searchpath, *outcome.overrides]
            if again is not None and "resume" in cfg:  # decided for all ranks
                words = [word for word in words if not word.startswith("resume=")]
                words.append(f"resume={'null' if resumed is None else quote(str(resumed))}")
            stack.enter_context(rerunnable_as(self.script, self.module, words))
            stack.enter_context(ranks_released())
            stack.enter_context(running(self.package))
            status = None
            if self.keeps_folder:
                outcome.run_dir = folder
                if is_main_rank():
                    status = Status(Path(folder), self.command, continued, config=fingerprint(cfg))
                    stack.enter_context(last_words(status.last_word))
            return self._watched(cfg, outcome, status)

    def lost(
        self, overrides: list[str], folder: str, line: str, tail: str = "", *, interrupted: bool = False
    ) -> Outcome:
        """The outcome of a job that gave none: its process is gone. Its folder does not say any more that it runs.

        Args:
            overrides: The words that made it.
            folder: Its folder.
            line: What became of it.
            tail: The last it said on standard error.
            interrupted: It was told to stop.
        """
        from effkit.report import write_json

        outcome = Outcome(overrides, error=line, tail=tail, interrupted=interrupted, exit_code=1)
        file = Path(folder, "status.json")
        if self.keeps_folder and file.is_file():
            outcome.run_dir = folder
            with contextlib.suppress(OSError, ValueError, TypeError):
                status = json.loads(file.read_text(encoding="utf-8"))
                if status["status"] == "running":
                    ended = "interrupted" if interrupted else "failed"
                    write_json(file, {**status, "status": ended, "ended": _now(), "error": line})
                outcome.interrupted = interrupted or status["status"] == "interrupted"
        return outcome

    def _again(self, cfg: DictConfig, own: Path) -> Decision | None:
        """What ``resume=auto`` means here, put into the config; `None` where it is neither given nor the default."""
        asked = cfg.get("resume") == AUTO
        if not asked and (cfg.get("resume") is not None or not may_be_started_again(self.home != _this_process())):
            return None
        decision = decide(own, cfg, self.command)
        if "resume" in cfg:
            cfg.resume = str(own) if decision.goes_on else None
        if is_main_rank() and (asked or decision.goes_on or decision.finished):
            print(f"{'' if asked else 'started again: '}resume=auto {decision.what}", file=sys.stderr, flush=True)
        return decision

    def _watched(self, cfg: DictConfig, outcome: Outcome, status: Status | None) -> Outcome:
        """Run the task and record how it ended."""
        try:
            if (asked := current()) is not None and asked.received is not None:
                raise asked.error()
            outcome.report = self._run(cfg)
        except Exception as error:
            self._failed(outcome, error)
            if status is not None:
                refused = outcome.error and not isinstance(error, (RankFailed, TaskError))
                ended = "interrupted" if isinstance(error, RankFailed) and error.interrupted else "failed"
                end = status.refused if refused else partial(status.end, ended)
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
        if not isinstance(cfg.get("resume"), str | None):
            raise UserError(f"resume={written(cfg.resume)} must be a run folder or a .ckpt file")
        if not isinstance(cfg.get("resume_anyway", False), bool):
            raise UserError(f"resume_anyway={written(cfg.resume_anyway)} must be true or false")
        if missing := sorted(OmegaConf.missing_keys(cfg)):
            raise UserError(f"{', '.join(missing)} must be given: {self.program} {self.command} {missing[0]}=...")
        with open_dict(cfg):
            for group in self.unread:
                cfg.pop(group, None)
        self._check_words(cfg)
        return self.task(cfg)

    def _check_words(self, cfg: DictConfig) -> None:
        """The key of the words without ``=`` may be given by its name too; one word is a list of one."""
        from omegaconf import OmegaConf

        key = self.positional
        if key is None:
            return
        value = cfg.get(key)
        words = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
            raise UserError(f"{key}={written(value)} must be a list of words")
        if "" in words:
            raise UserError(f"{key} holds an empty word: leave it out")
        if isinstance(value, str):  # as it was written: ${ in a file's name would be looked up a second time
            raw: Any = OmegaConf.to_container(cfg, resolve=False)
            cfg[key] = [raw[key]]

    def _deleted(self, error: Exception, overrides: Sequence[str]) -> str | None:
        """The word that took away what the task then missed (``~trainer``), if it was one."""
        if isinstance(error, (AttributeError, KeyError, TypeError)):
            for word in overrides:
                key = word.removeprefix("~").partition("=")[0].partition("@")[0]
                if word.startswith("~") and re.search(rf"\b{re.escape(key.rpartition('.')[2])}\b", str(error)):
                    return f"{word} takes away what {self.program} {self.command} needs: leave it out"
        return None

    def _failed(self, outcome: Outcome, error: Exception) -> None:
        if isinstance(error, RankFailed):
            outcome.error, outcome.exit_code = one_line(error), 1
            log_to_file(f"error: {outcome.error}\n{error.trace}".rstrip())
            return
        outcome.lost = lost_connection(error)
        line = explain(error, ("effkit", self.package)) or self._deleted(error, outcome.overrides)
        task = isinstance(error, TaskError)
        outcome.exit_code = 1 if line is None or task else 2
        if line is None:
            outcome.trace = "".join(traceback.format_exception(error))
        else:
            outcome.error = f"{line} (EFFKIT_DEBUG=1 shows where)" if task and not self.keeps_folder else line
        log_to_file(f"error: {line}" if line is not None else outcome.trace.rstrip())
        if isinstance(error, TaskError) and error.trace:
            log_to_file(error.trace.rstrip())


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
