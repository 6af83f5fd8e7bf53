"""How many clicks may be read now, so that a limit of clicks per second is kept."""

from streamer.clock import Clock

BURST_SECONDS = 0.05
SHORTEST_SECONDS = 0.001


class Pace:
    """A bucket that fills with the clock; without a limit it is always full.

    The size of a batch never changes what is learned (cut-free), so pacing does not either.
    """

    def __init__(self, clock: Clock, clicks_per_second: float | None) -> None:
        self._clock = clock
        self._rate = clicks_per_second
        self._allowed = 0.0
        self._filled_at = clock.monotonic()

    def allowance(self, at_most: int = 16_384) -> int:
        """Return how many clicks may be read now, at least 1; sleeps until there is one."""
        if self._rate is None:
            return at_most
        self._fill()
        while self._allowed < 1.0:
            missing = (1.0 - self._allowed) / self._rate
            self._clock.sleep(min(BURST_SECONDS, max(SHORTEST_SECONDS, missing)))
            self._fill()
        return min(at_most, int(self._allowed))

    def took(self, n: int) -> None:
        """Take out what was read."""
        self._allowed -= n

    def _fill(self) -> None:
        assert self._rate is not None
        now = self._clock.monotonic()
        full = max(1.0, self._rate * BURST_SECONDS)
        self._allowed = min(full, self._allowed + (now - self._filled_at) * self._rate)
        self._filled_at = now
