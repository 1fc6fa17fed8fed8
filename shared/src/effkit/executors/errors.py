"""How a task can fail: by an exception of its own, or because the worker that ran it is gone."""

from __future__ import annotations

__all__ = ["Stopped", "TaskError", "Trace", "WorkerDied"]


class WorkerDied(RuntimeError):
    """The process that ran a task is gone without an answer: killed, crashed, or its machine is lost.

    The message says how, as far as it is known: "killed by SIGKILL".
    """


class Stopped(RuntimeError):
    """Everything is being ended; what still ran has been killed."""


class Trace(Exception):
    """The traceback of an exception in another process, as text; the cause of the exception that is raised here."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


class TaskError(RuntimeError):
    """A task failed; the message is one line that names it.

    Args:
        name: The task's.
        reason: What happened, in one line.
        trace: The traceback of the task's own exception, for a log; empty if its worker died.
        died: Whether its worker died, twice.
    """

    def __init__(self, name: str, reason: str, trace: str = "", died: bool = False) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason, self.trace, self.died = name, reason, trace, died

    def __reduce__(self) -> tuple[type, tuple[str, str, str, bool]]:
        return TaskError, (self.name, self.reason, self.trace, self.died)
