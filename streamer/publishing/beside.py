"""One piece of work at a time on a thread beside the stream."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from streamer.heap import return_free_pages

T = TypeVar("T")


class Beside(Generic[T]):
    """Runs work on a thread of its own, and hands its result or its error to the stream's thread.

    It is the same thread for all work, because libraries keep memory for each: 40 small indexes,
    each built on a new thread, left 1.3 to 2.5 MB behind, and 0.1 to 0.3 MB on one. The thread is
    a daemon: a process that is told to stop does not wait for a build, whose half-written files
    the next start collects.
    """

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._work: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
        self._is_done = threading.Event()
        self._is_busy = False
        self._result: T | None = None
        self._error: Exception | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work was started whose outcome has not been taken."""
        return self._is_busy

    def start(self, work: Callable[[], T]) -> None:
        """Begin `work`; nothing else is under way."""
        assert not self._is_busy
        self._is_busy = True
        self._is_done.clear()
        if self._thread.ident is None:
            self._thread.start()
        self._work.put(work)

    def take(self, timeout_seconds: float = 0.0) -> T | None:
        """Return the outcome, raise its error, or return None if there is none yet.

        Blocks for at most `timeout_seconds`.
        """
        if not self._is_busy or not self._is_done.wait(timeout_seconds):
            return None
        self._is_busy = False
        error, result = self._error, self._result
        self._error = self._result = None
        if error is not None:
            raise error
        return result

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                self._result = work()
            except Exception as error:
                self._error = error
            del work  # and what it holds, a copy of the state say, while there is nothing to do
            return_free_pages()
            self._is_done.set()
