"""One task after the other, in this process and this thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from effkit.executors.seeding import seeded

__all__ = ["SerialExecutor"]


class SerialExecutor(Executor):
    """Runs a task when it is submitted: nothing is pickled, and a debugger sees everything.

    Attributes:
        workers: 1.
        threads: Of each worker; ``None``: as they are.
    """

    workers = 1
    threads: int | None = None

    def __enter__(self) -> SerialExecutor:
        """Use it in a ``with`` block, as the others."""
        return self

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function now."""
        return self.submit_named(getattr(function, "__name__", "task"), "", function, *args, **kwargs)

    def submit_named(
        self, name: str, seed: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Run a function now, with the generators that `seed` names."""
        future: Future[Any] = Future()
        try:
            with seeded(seed):
                future.set_result(function(*args, **kwargs))
        except Exception as error:  # Ctrl-C is for whoever runs this process
            future.set_exception(error)
        return future
