"""What an executor costs: seconds of a task that does nothing, workers already started."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

from effkit.bench.checks import check_providers
from effkit.bench.turns import in_turns
from effkit.errors import UserError
from effkit.executors import EXECUTORS, Choice, PoolExecutor, SerialExecutor, Task, run
from effkit.report import Report, Table
from effkit.results import append_csv

__all__ = ["overhead_report"]

_MODULES = {"ray": "ray", "submitit": "submitit"}


def overhead_report(
    executors: Sequence[str] | None,
    *,
    workers: int | None,
    tasks: int,
    rounds: int,
    csv: str | Path,
    folder: Path,
) -> Report:
    """Time tasks that do nothing on several executors, in turns.

    Args:
        executors: Which; those that are installed if ``None``, but submitit, which starts a process a task.
        workers: Of each; one a core if ``None``.
        tasks: How many a round.
        rounds: How often.
        csv: Results file to add to.
        folder: For submitit.

    Raises:
        UserError: If a value does not fit, or an executor cannot be had.
    """
    known = [n for n in EXECUTORS if n not in _MODULES or importlib.util.find_spec(_MODULES[n]) is not None]
    names = check_providers([n for n in known if n != "submitit"] if executors is None else executors, EXECUTORS)
    if isinstance(tasks, bool) or not isinstance(tasks, int) or tasks < 1:
        raise UserError(f"tasks={tasks!r} must be a whole number of at least 1")
    started: dict[str, float] = {}
    todo = [Task(f"task {number}", number) for number in range(tasks)]
    with contextlib.ExitStack() as stack:
        calls = {}
        for name in names:
            choice = Choice(name, None if name == "serial" else workers, folder=folder / "jobs")
            begin = time.perf_counter()
            pool: PoolExecutor | SerialExecutor = choice.open()
            stack.enter_context(pool)
            warm = [Task(f"first {number}", number) for number in range(pool.workers)]
            list(run(pool, _nothing, warm, progress=False))
            started[name] = time.perf_counter() - begin
            calls[name] = lambda pool=pool: list(run(pool, _nothing, todo, progress=False))  # type: ignore[misc]
        found = in_turns(calls, rounds)
    rows = found.rows(
        package="effkit", case="empty tasks", mode="executors", dtype="fp32", x_name="tasks", x=tasks,
        note=f"workers={workers or 'one a core'}; time_per_task is time / tasks",
    )  # fmt: skip
    per_task = {name: [value / tasks for value in (t.median, t.p20, t.p80)] for name, t in found.timings.items()}
    each = [
        dataclasses.replace(row, metric="time_per_task", median=per_task[row.provider][0],
                            p20=per_task[row.provider][1], p80=per_task[row.provider][2])
        for row in rows
    ]  # fmt: skip
    lines = [[name, *(1e3 * value for value in values), started[name]] for name, values in per_task.items()]
    columns = ["executor", "ms a task", "p20", "p80", "start, s"]
    table = Table(f"{tasks} tasks that do nothing", columns, lines, f"{rounds} rounds in turns; started once before.")
    return Report(
        "effkit bench overhead",
        [table],
        data={"seconds_per_task": {name: values[0] for name, values in per_task.items()}},
        files=[append_csv(csv, [*rows, *each])],
    )


def _nothing(number: int) -> int:
    return number
