"""Evaluations through an executor: side by side, journalled as they finish, retried once, in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from effkit.errors import UserError
from greedy_enlarge.search.journal import Journal
from greedy_enlarge.search.tasks import Evaluator, Result, Task, run_task

__all__ = ["ATTEMPTS", "Runner", "Serial"]

ATTEMPTS = 2
"""How often a failing evaluation is tried, with the same seed."""


class Serial(Executor):
    """Runs each call where it is submitted, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call; its exception, an interrupt aside, is in the future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _result_of(future: Future[Any]) -> Result:
    """What a worker found; one that died under its task makes a failed evaluation."""
    try:
        return future.result()
    except UserError:
        raise
    except Exception as error:
        return Result(status="failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


class Runner:
    """Runs tasks and files what they find.

    Args:
        evaluator: Scores networks.
        executor: Where evaluations run; :class:`Serial` if not given.
        journal: Where results are kept and looked up; in memory if not given.
        progress: Told after each evaluation how many of a batch are done, and of how many.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        executor: Executor | None = None,
        journal: Journal | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.evaluator, self.executor, self.journal = evaluator, executor or Serial(), journal
        self.progress = progress
        self.fingerprint = evaluator.fingerprint()
        self.results: dict[str, Result] = {} if journal is None else journal.results
        self.failures: dict[str, list[str]] = {} if journal is None else journal.failures
        self.evaluated = 0  # in this process

    def run(self, tasks: Sequence[Task], about: Sequence[Mapping[str, Any]] | None = None) -> list[Result]:
        """Run what is not finished yet.

        Args:
            tasks: The tasks; of equal ones one is run.
            about: Further values to file with each.

        Returns:
            One result a task, in their order; failed twice is ``failed``.

        Raises:
            UserError: If the evaluator says that the user made a mistake.
        """
        keys = [task.key(self.fingerprint) for task in tasks]
        notes = dict(zip(keys, about or [{}] * len(keys), strict=True))
        waiting = {key: task for key, task in zip(keys, tasks, strict=True) if not self._done(key)}
        total, running = len(waiting), {}
        try:
            if isinstance(self.executor, Serial):  # one at a time, so that each is filed before the next begins
                for key, task in waiting.items():
                    while not self._done(key):
                        self._file(key, self.executor.submit(run_task, self.evaluator, task).result(), notes[key])
                    self._tell(sum(map(self._done, waiting)), total)
            else:
                running = {self.executor.submit(run_task, self.evaluator, t): key for key, t in waiting.items()}
                while running:
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        key = running.pop(future)
                        self._file(key, _result_of(future), notes[key])
                        if not self._done(key):
                            running[self.executor.submit(run_task, self.evaluator, waiting[key])] = key
                    self._tell(total - len(running), total)
        finally:
            for future in running:
                future.cancel()
        return [self._result(key) for key in keys]

    def _done(self, key: str) -> bool:
        return key in self.results or len(self.failures.get(key, ())) >= ATTEMPTS

    def _result(self, key: str) -> Result:
        return self.results.get(key) or Result(status="failed", reason=self.failures[key][-1])

    def _file(self, key: str, result: Result, about: Mapping[str, Any]) -> None:
        self.evaluated += 1
        if self.journal is not None:
            self.journal.add(key, result, **about)
        elif result.status == "ok":
            self.results[key] = result
        else:
            self.failures.setdefault(key, []).append(result.reason)

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)
