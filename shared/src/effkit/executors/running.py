"""Many tasks on an executor: results in order, progress, and one line that names the task that failed."""

from __future__ import annotations

import concurrent.futures
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

from effkit.errors import UserError
from effkit.executors.errors import TaskError, Trace, WorkerDied
from effkit.executors.pool import PoolExecutor
from effkit.executors.serial import SerialExecutor
from effkit.executors.task import Task
from effkit.progress import part, report_progress

__all__ = ["run"]

_LOOK = 0.1  # seconds between two looks of `meanwhile`


def run(
    executor: PoolExecutor | SerialExecutor,
    function: Callable[..., Any],
    tasks: Iterable[Task],
    *,
    seed: int = 0,
    keep_going: bool = False,
    finished: Callable[[int, Any], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
    progress: bool = True,
    window: int | None = None,
) -> Iterator[Any]:
    """Run a function for every task.

    The global generators of a task are seeded by ``seed`` and the task's name. Tasks are begun in order; if one fails,
    no later one is begun, and the error raised is that of the first in order that failed: the one a serial run meets.

    Args:
        executor: From :meth:`effkit.executors.Choice.open`.
        function: At the top of a module, unless the executor is serial.
        tasks: Name and arguments of each.
        seed: Of the global generators.
        keep_going: Give a :class:`TaskError` in place of the result of a task that failed, and go on.
        finished: Called with the number of a task and its result (or :class:`TaskError`, with ``keep_going``) as soon
            as it is done, whatever the order.
        meanwhile: Called now and then while nothing is finished, and after every task.
        window: How many results may wait for their turn, where they are large; begins no later task until then.
        progress: Report how many are done (:func:`effkit.progress.report_progress`).

    Yields:
        What the function returned, in the order of the tasks.

    Raises:
        TaskError: For an exception in a task, or if two workers died of it; its message is one line.
        UserError: If a task raised one (the user's mistake), or cannot be sent to another process.
    """
    todo = list(tasks)
    pending: dict[int, Future[Any]] = {}
    ready: dict[int, Any] = {}
    begun = given = 0
    failed = len(todo)  # the first that failed, as far as it is known
    report = report_progress if progress else _nothing
    here = isinstance(executor, SerialExecutor)
    try:
        while given < len(todo):
            last = len(todo) if window is None else min(len(todo), given + window)
            while begun < min(last, failed + 1) and len(pending) < _ahead(executor):
                task = todo[begun]
                with (
                    part(task.name, begun / len(todo), (begun + 1) / len(todo)) if here and progress else nullcontext()
                ):
                    pending[begun] = executor.submit_named(
                        task.name, f"{seed}/{task.name}", function, *task.args, **task.kwargs
                    )
                begun += 1
            concurrent.futures.wait(pending.values(), _LOOK if meanwhile else None, concurrent.futures.FIRST_COMPLETED)
            if meanwhile is not None:
                meanwhile()
            for number in [number for number, future in pending.items() if future.done()]:
                future = pending.pop(number)
                if future.exception() is not None and not keep_going:
                    failed = min(failed, number)
                    ready[number] = future
                    continue
                ready[number] = _outcome(todo[number], future, keep_going, here)
                report(f"{given + len(ready)} of {len(todo)} done", (given + len(ready)) / len(todo))
                if finished is not None:
                    finished(number, ready[number])
            for number in [n for n in pending if n > failed]:
                pending.pop(number).cancel()
            while given in ready:
                result = ready.pop(given)
                if given == failed:
                    _outcome(todo[given], result, keep_going, here)  # raises
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
    cause: BaseException
    try:
        return future.result()
    except UserError as error:
        if keep_going:
            return TaskError(task.name, _line(error), _trace(error))
        raise
    except WorkerDied as died:
        failure, cause = TaskError(task.name, f"its worker died twice, {died}", died=True), died
    except BaseException as error:  # SystemExit too, of a task in a worker
        if not isinstance(error.__cause__, Trace) and not (here and isinstance(error, Exception)):
            raise  # Ctrl-C, or a fault of the executor itself
        failure = TaskError(task.name, f"{type(error).__name__}: {_line(error)}", _trace(error))
        cause = error
    if keep_going:
        return failure
    raise failure from cause


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _trace(error: BaseException) -> str:
    cause = error.__cause__
    return str(cause.args[0]) if isinstance(cause, Trace) else "".join(traceback.format_exception(error))
