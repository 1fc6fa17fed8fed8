"""Many tasks on an executor: results in order, progress, and one line that names the task that failed."""

from __future__ import annotations

import concurrent.futures
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from effkit.errors import UserError
from effkit.executors.errors import TaskError, Trace, WorkerDied
from effkit.executors.pool import PoolExecutor
from effkit.executors.serial import SerialExecutor
from effkit.executors.task import Task
from effkit.progress import report_progress

__all__ = ["run"]

_LOOK = 0.1  # seconds between two looks of `meanwhile`


def run(
    executor: PoolExecutor | SerialExecutor,
    function: Callable[..., Any],
    tasks: Iterable[Task],
    *,
    seed: int = 0,
    keep_going: bool = False,
    meanwhile: Callable[[], None] | None = None,
    progress: bool = True,
) -> Iterator[Any]:
    """Run a function for every task.

    The global generators of a task are seeded by ``seed`` and the task's number. Tasks are begun in order; if one fails,
    no later one is begun, and the error raised is that of the first in order that failed: the one a serial run meets.

    Args:
        executor: From :meth:`effkit.executors.Choice.open`.
        function: At the top of a module, unless the executor is serial.
        tasks: Name and arguments of each.
        seed: Of the global generators.
        keep_going: Give a :class:`TaskError` in place of the result of a task that failed, and go on.
        meanwhile: Called now and then while nothing is finished, and after every task.
        progress: Report how many are done (:func:`effkit.progress.report_progress`).

    Yields:
        What the function returned, in the order of the tasks.

    Raises:
        TaskError: For an exception in a task, or if two workers died of it; its message is one line.
        UserError: If a task raised one (the user's mistake), or cannot be sent to another process.
    """
    todo = list(tasks)
    pending: dict[int, Future[Any]] = {}
    ready: dict[int, Future[Any]] = {}
    begun = given = 0
    failed = len(todo)  # the first that failed, as far as it is known
    report = report_progress if progress else _nothing
    try:
        while given < len(todo):
            while begun < min(len(todo), failed + 1) and len(pending) < _ahead(executor):
                task = todo[begun]
                pending[begun] = executor.submit_named(
                    task.name, f"{seed}/{begun}", function, *task.args, **task.kwargs
                )
                begun += 1
            concurrent.futures.wait(pending.values(), _LOOK if meanwhile else None, concurrent.futures.FIRST_COMPLETED)
            if meanwhile is not None:
                meanwhile()
            ended = [number for number, future in pending.items() if future.done()]
            for number in ended:
                ready[number] = pending.pop(number)
                if not keep_going and ready[number].exception() is not None:
                    failed = min(failed, number)
            if ended:
                report(f"{given + len(ready)} of {len(todo)} done", (given + len(ready)) / len(todo))
            for number in [n for n in pending if n > failed]:
                pending.pop(number).cancel()
            while given in ready:
                result = _outcome(todo[given], ready.pop(given), keep_going, isinstance(executor, SerialExecutor))
                given += 1
                yield result
    finally:
        for future in pending.values():
            future.cancel()


def _nothing(text: str, fraction: float | None = None) -> None:
    """Progress that nobody wants to hear."""


def _ahead(executor: PoolExecutor | SerialExecutor) -> int:
    """How many may be submitted and not done: a task must lie ready when a worker gets free, but not all of them."""
    return 1 if isinstance(executor, SerialExecutor) else 2 * executor.workers


def _outcome(task: Task, future: Future[Any], keep_going: bool, here: bool) -> Any:
    try:
        return future.result()
    except UserError as error:
        if keep_going:
            return TaskError(task.name, _line(error))
        raise
    except WorkerDied as died:
        failure, cause = TaskError(task.name, f"its worker died twice, {died}", died=True), died
    except BaseException as error:  # SystemExit too, of a task in a worker
        sent = isinstance(error.__cause__, Trace)
        if not sent and not (here and isinstance(error, Exception)):
            raise  # Ctrl-C, or a fault of the executor itself
        trace = str(error.__cause__.args[0]) if sent else "".join(traceback.format_exception(error))  # type: ignore[union-attr]
        failure, cause = TaskError(task.name, f"{type(error).__name__}: {_line(error)}", trace), error  # type: ignore[assignment]
    if keep_going:
        return failure
    raise failure from cause


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
