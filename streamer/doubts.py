"""What looks wrong in clicks that can be read, told once each: their times, and their order."""

import structlog

from streamer.clock import Clock
from streamer.pipeline import Pipeline

log = structlog.get_logger()

# Clicks are neither older than the web nor from the year after next.
OLDEST_MS = 631_152_000_000
YEAR_MS = 366 * 86_400_000
# So many late clicks are no accident; of an ordered stream hardly any are late. And of a keyed
# topic no session is in two partitions, but for those that are open when their number changes.
MANY, MANY_SHARE = 20, 0.05


class Doubts:
    """Looks at a pipeline after each batch; what a restored generation counted is passed over."""

    def __init__(self, pipeline: Pipeline, clock: Clock, time_unit: str) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._time_unit = time_unit
        ledger = pipeline.ledger
        self._begun = (ledger.filtered["late"], self._spread(), ledger.read)
        self._has_told_times = self._has_told_order = self._has_told_spread = False

    def look(self) -> None:
        """Warn of what looks wrong by now, if that has not been told."""
        if not self._has_told_times:
            self._look_at_times()
        if not self._has_told_order:
            self._look_at_order()
        if not self._has_told_spread:
            self._look_at_spread()

    def _look_at_times(self) -> None:
        partition = self._pipeline.last_read
        time_ms = self._pipeline.watermarks.event_time_ms(partition) if partition else None
        if time_ms is None or OLDEST_MS <= time_ms <= self._clock.now_ms() + YEAR_MS:
            return
        self._has_told_times = True
        log.warning(
            "event_times_look_wrong",
            partition=str(partition),
            event_time_ms=time_ms,
            hint=f"is clicks.time_unit really {self._time_unit!r}?",
        )

    def _look_at_order(self) -> None:
        late = self._pipeline.ledger.filtered["late"] - self._begun[0]
        clicks = self._pipeline.ledger.read - self._begun[2]
        if _are_many(late, clicks):
            self._has_told_order = True
            log.warning(
                "many_clicks_are_late",
                late=late,
                clicks=clicks,
                hint="nothing is learned from them; put a file into the order of time, or raise"
                " sessions.lateness_seconds",
            )

    def _look_at_spread(self) -> None:
        spread = self._spread() - self._begun[1]
        clicks = self._pipeline.ledger.read - self._begun[2]
        if _are_many(spread, clicks):
            self._has_told_spread = True
            log.warning(
                "sessions_are_spread",
                spread=spread,
                clicks=clicks,
                hint="key the producer by session or user; clicks of one session come from several"
                " partitions of a topic, whose order is not certain, so that a restart may train"
                " other pairs",
            )

    def _spread(self) -> int:
        return self._pipeline.windows.counts()["spread"]


def _are_many(n: int, clicks: int) -> bool:
    return n >= MANY and n > MANY_SHARE * clicks
