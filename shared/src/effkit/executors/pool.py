"""An executor over lanes: each runs one call at a time in some other process, however a library does that.

What all libraries have in common stands here: calls are pickled where the mistake is made, a task whose worker died is
run once more, and everything can be ended at once.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

from effkit.errors import UserError
from effkit.executors.errors import WorkerDied
from effkit.executors.worker import Call, opened

__all__ = ["Lane", "PoolExecutor"]


class Lane(Protocol):
    """A place for one call at a time."""

    def call(self, call: Call) -> bytes:
        """Run a call elsewhere and wait for its answer.

        Raises:
            WorkerDied: If the process that ran it is gone.
            Stopped: If everything is being ended; nothing of the call runs any more.
        """

    def close(self) -> None:
        """End the process, if there is one."""


class PoolExecutor(Executor):
    """A ``concurrent.futures.Executor`` over lanes.

    Args:
        name: As the user wrote it, for messages.
        lanes: One for each worker.
        stop: Set to end everything; lanes look at it.
        threads: CPU threads of each worker.
        tell: Told in one line when a task is run once more.
        release: Called when all lanes are closed.
        origin: Process that workers on this machine end with.
    """

    def __init__(
        self,
        name: str,
        lanes: Sequence[Lane],
        stop: threading.Event,
        *,
        threads: int,
        tell: Callable[[str], None],
        release: Callable[[], None] = lambda: None,
        origin: int | None = None,
    ) -> None:
        self.name, self.workers, self.threads = name, len(lanes), threads
        self._stop, self._tell, self._release, self._origin = stop, tell, release, origin
        self._lanes = list(lanes)
        self._free: queue.LifoQueue[Lane] = queue.LifoQueue()  # the lane used last is warm
        for lane in reversed(self._lanes):
            self._free.put(lane)
        self._waiting = ThreadPoolExecutor(len(lanes), thread_name_prefix="effkit-lane")
        self._closed = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on a worker; see :meth:`submit_named`."""
        return self.submit_named(getattr(function, "__name__", "task"), "", function, *args, **kwargs)

    def submit_named(
        self, name: str, seed: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Run a function on a worker.

        Args:
            name: Of the task, for messages.
            seed: Names the state of the global generators.
            function: At the top of a module that a worker can import.
            *args: What pickle can hold.
            **kwargs: Likewise.

        Returns:
            What the function returns or raises; ``WorkerDied`` if two workers died of it.

        Raises:
            UserError: If function or arguments cannot be sent to another process.
        """
        call = Call(self._pickled(name, function, args, kwargs), seed, self.threads, self._origin)
        return self._waiting.submit(self._run, name, call)

    def _pickled(self, name: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        if getattr(function, "__module__", None) == "__main__":
            raise UserError(
                f"executor={self.name}: {function.__name__} is defined in the program itself, where a worker cannot "
                "import it: put it into a module, or take executor=serial"
            )
        try:
            return pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"executor={self.name}: {name} cannot be sent to another process ({reason}): functions must stand at "
                "the top of a module, and arguments be what pickle can hold; or take executor=serial"
            ) from error

    def _run(self, name: str, call: Call) -> Any:
        lane = self._free.get()
        try:
            try:
                answer = lane.call(call)
            except WorkerDied as died:
                self._tell(f"{name}: its worker died ({died}), running it once more")
                answer = lane.call(call)
        finally:
            self._free.put(lane)
        return opened(answer)

    def stop(self) -> None:
        """End all workers now; what waits is not begun."""
        self._stop.set()
        self._waiting.shutdown(wait=False, cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what was submitted and end the workers, as ``concurrent.futures`` has it."""
        self._waiting.shutdown(wait=wait or self._stop.is_set(), cancel_futures=cancel_futures)
        if not self._closed and (wait or self._stop.is_set()):
            self._closed = True
            closing = [threading.Thread(target=lane.close) for lane in self._lanes]
            for thread in closing:
                thread.start()
            for thread in closing:
                thread.join()
            self._release()

    def __enter__(self) -> PoolExecutor:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait and end the workers; after an exception, Ctrl-C above all, end them without waiting."""
        if error is not None:
            self.stop()
        self.shutdown(wait=True)
