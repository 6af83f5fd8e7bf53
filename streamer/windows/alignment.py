"""Partitions that run ahead of the others in event time, while there is something to catch up."""

from collections.abc import Callable, Mapping

from state.offsets import Partition

# A partition that could be read and does not come, its broker is away say, holds nobody back.
STALLED_SECONDS = 10.0
SMALLEST_BATCH, FIRST_BATCH, LARGEST_BATCH = 16, 256, 1 << 20
BATCHES_AHEAD = 4


class Alignment:
    """Says which partitions are to wait, so that clicks are trained roughly in their order.

    Those that have nothing to read are no measure for the others. Event times are watermarks by
    partition, in milliseconds; `now` is that of a monotonic clock.
    """

    def __init__(self, max_ahead_seconds: float) -> None:
        self._max_ahead_ms = round(1000 * max_ahead_seconds)
        self._moved: dict[Partition, tuple[int, float]] = {}
        self._looked_at = 0.0
        self._largest = FIRST_BATCH
        self._is_catching_up = False
        self._ahead: frozenset[Partition] = frozenset()

    def ahead(
        self,
        event_times: Mapping[Partition, int | None],
        positions: Mapping[Partition, int],
        is_readable: Callable[[Partition], bool],
        now: float,
    ) -> frozenset[Partition]:
        """Return the partitions that are more than `max_ahead_seconds` before the slowest.

        A partition without an event time has not begun, and is no measure.
        """
        readable = [partition for partition in event_times if is_readable(partition)]
        self._is_catching_up = len(readable) > 1
        if now - self._looked_at > STALLED_SECONDS / 2:
            self._moved.clear()  # nobody has read: that is no partition's fault
        self._looked_at = now
        racing = {}
        for partition in readable:
            time_ms = event_times[partition]
            if not self._is_stalled(partition, positions.get(partition, 0), now):
                racing.update({} if time_ms is None else {partition: time_ms})
        limit = min(racing.values(), default=0) + self._max_ahead_ms
        self._ahead = frozenset(p for p, time_ms in racing.items() if time_ms > limit)
        return self._ahead

    def max_clicks(self, at_most: int) -> int:
        """Return how many clicks to read at once, so that one batch alone runs not far ahead."""
        return min(at_most, self._largest) if self._is_catching_up else at_most

    def took(self, n: int, span_ms: int) -> None:
        """Learn from a batch of `n` clicks, over which its partition's event time went on."""
        enough_ms = self._max_ahead_ms // BATCHES_AHEAD
        if span_ms > enough_ms:
            self._largest = max(SMALLEST_BATCH, n * enough_ms // span_ms)
        elif n >= self._largest:
            self._largest = min(LARGEST_BATCH, 2 * self._largest)

    def _is_stalled(self, partition: Partition, position: int, now: float) -> bool:
        """Tell whether a partition that may be read has not moved for long."""
        last, since = self._moved.get(partition, (position, now))
        if last != position or partition in self._ahead:
            since = now
        self._moved[partition] = position, since
        return now - since > STALLED_SECONDS
