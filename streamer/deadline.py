"""A budget of seconds shared by several waits."""

import threading

from streamer.clock import Clock


class Deadline:
    """A moment on a monotonic clock by which several waits together must be over."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds

    def shorten_to(self, seconds: float) -> None:
        """Let it be over after at most so many seconds from now."""
        self._end = min(self._end, self._clock.monotonic() + seconds)

    def seconds_left(self) -> float:
        """Return what is left of the budget, in [0, what a lock can wait]."""
        left = self._end - self._clock.monotonic()
        return min(max(0.0, left), threading.TIMEOUT_MAX)
