"""The clock: the one place where time enters."""

import time
from typing import Protocol


class Clock(Protocol):
    """What the stream may ask of time."""

    def now_ms(self) -> int:
        """Return the wall clock, in milliseconds since 1970."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def sleep(self, seconds: float) -> None:
        """Block for `seconds`."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return the wall clock, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block for `seconds`."""
        time.sleep(seconds)
