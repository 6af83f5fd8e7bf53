"""When each record of a replay is due: at a rate, as it was recorded, or at once."""

import threading

from streamer.clock import Clock
from streamer.pace import Pace

SLICE_SECONDS = 0.1


class Tempo:
    """Waits for the moment of each record; `stop` ends every wait."""

    def __init__(self, clock: Clock, rate: float | None, speed: float | None) -> None:
        self._clock = clock
        self._pace = Pace(clock, rate)
        self._speed = speed
        self._begun: tuple[float, int] | None = None  # when, and at which event time
        self._stopped = threading.Event()

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let no further record be due."""
        self._stopped.set()

    def is_due(self, time_ms: int) -> bool:
        """Return True once a click of that event time is due, False when told to stop.

        As recorded, a click is due as long after the first as its event time says; one that
        came late is due at once.
        """
        if self._speed is not None:
            self._wait_for(time_ms, self._speed)
        else:
            self._pace.allowance(1)
            self._pace.took(1)
        return not self._stopped.is_set()

    def _wait_for(self, time_ms: int, speed: float) -> None:
        if self._begun is None:
            self._begun = (self._clock.monotonic(), time_ms)
        since, first_ms = self._begun
        due = since + (time_ms - first_ms) / 1000 / speed
        while not self._stopped.is_set():
            left = due - self._clock.monotonic()
            if left <= 0:
                return
            self._clock.sleep(min(left, SLICE_SECONDS))
