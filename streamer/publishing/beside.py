"""One piece of work at a time on a thread beside the stream."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """Runs work on a thread of its own, and hands its result or its error to the stream's thread.

    The thread is a daemon: a process that is told to stop does not wait for a build, whose
    half-written files the next start collects.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._result: T | None = None
        self._error: Exception | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work was started whose outcome has not been taken."""
        return self._thread is not None

    def start(self, work: Callable[[], T]) -> None:
        """Begin `work`; nothing else is under way."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._run, args=(work,), name=self._name)
        self._thread.daemon = True
        self._thread.start()

    def take(self, timeout_seconds: float = 0.0) -> T | None:
        """Return the outcome, raise its error, or return None if there is none yet.

        Blocks for at most `timeout_seconds`.
        """
        if self._thread is None:
            return None
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            return None
        self._thread = None
        error, result = self._error, self._result
        self._error = self._result = None
        if error is not None:
            raise error
        return result

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._result = work()
        except Exception as error:
            self._error = error
