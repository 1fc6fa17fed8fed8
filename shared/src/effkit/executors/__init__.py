"""Tasks on workers: one ``concurrent.futures.Executor`` over loky (processes), Ray, submitit, or this very process.

    choice = Choice("process", workers=4)
    with choice.open() as pool:
        for result in run(pool, function, [Task("shard 1", 0, 10), Task("shard 2", 10, 20)]):
            ...

Results come in the order of the tasks and do not depend on the executor, on who finishes first, or on a worker that
dies (its task is run once more; if that one dies too, an error names the task). The libraries schedule, queue and talk
to processes; here is only what must be the same over all of them.
"""

from effkit.executors.choice import EXECUTORS, Choice
from effkit.executors.errors import TaskError, WorkerDied
from effkit.executors.pool import PoolExecutor
from effkit.executors.running import run
from effkit.executors.serial import SerialExecutor
from effkit.executors.task import Task
from effkit.executors.threads import ONE_THREAD, available_cores, one_thread, settle_threads

__all__ = [
    "EXECUTORS",
    "ONE_THREAD",
    "Choice",
    "PoolExecutor",
    "SerialExecutor",
    "Task",
    "TaskError",
    "WorkerDied",
    "available_cores",
    "one_thread",
    "run",
    "settle_threads",
]
