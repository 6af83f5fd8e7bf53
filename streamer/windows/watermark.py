"""Event time per partition, and partitions that are idle."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.hashing import hash_spans
from kernels.windows import IDLE, NEVER, PARTITION_COLUMNS, ROOT, TOPIC, WATERMARK
from state.offsets import Partition
from state.sections import Section

_PARTITION_SEED = np.uint64(3)
UNWATCHED_SECONDS = 5.0


class Watermarks:
    """The partitions of a stream in the order in which they were first seen.

    `rows` (n_partitions, PARTITION_COLUMNS) is what the kernels read and write. A partition's draws
    are keyed by a hash of its name, so that they do not depend on that order.

    >>> watermarks = Watermarks(Section())
    >>> watermarks.index_of(Partition("clicks", 3))
    0
    >>> Watermarks(watermarks.snapshot()).partitions
    [Partition(topic='clicks', number=3)]
    """

    def __init__(self, section: Section) -> None:
        self.partitions: list[Partition] = []
        self.rows = np.empty((0, PARTITION_COLUMNS), np.int64)
        self.keys = np.empty(0, np.uint64)
        self._index: dict[Partition, int] = {}
        self._topics: dict[str, int] = {}
        self._idle_since: dict[Partition, float] = {}
        self._looked_at: float | None = None
        for topic, number, *row in section.values.get("partitions", []):
            at = self.index_of(Partition(topic, number))
            self.rows[at, :ROOT] = row

    def index_of(self, partition: Partition) -> int:
        """Return a partition's row, a new one if it has none."""
        if partition not in self._index:
            self._index[partition] = len(self.partitions)
            self.partitions.append(partition)
            row = np.zeros((1, PARTITION_COLUMNS), np.int64)
            topic = self._topics.setdefault(partition.topic, len(self._topics))
            row[0, [WATERMARK, ROOT, TOPIC]] = NEVER, -1, topic
            self.rows = np.concatenate([self.rows, row])
            self.keys = np.concatenate([self.keys, [_key(partition)]])
        return self._index[partition]

    def declare_idle(self, partitions: Iterable[Partition]) -> None:
        """Let other partitions' progress close these partitions' windows, until a click comes."""
        for partition in partitions:
            self.rows[self.index_of(partition), IDLE] = 1

    def idle_for(self, caught_up: Iterable[Partition], now: float, timeout: float) -> None:
        """Declare idle what has had nothing to read for `timeout` seconds of a monotonic clock.

        Called at every step. Time in which nobody looked, a pause say, is no time of quiet.
        """
        if self._looked_at is not None and now - self._looked_at > UNWATCHED_SECONDS:
            self._idle_since.clear()
        self._looked_at = now
        quiet = set(caught_up)
        self._idle_since = {p: self._idle_since.get(p, now) for p in quiet}
        self.declare_idle(p for p, since in self._idle_since.items() if now - since >= timeout)

    def event_time_ms(self, partition: Partition) -> int | None:
        """Return the watermark of a partition, None if it has none."""
        at = self._index.get(partition)
        if at is None or self.rows[at, WATERMARK] == NEVER:
            return None
        return int(self.rows[at, WATERMARK])

    def event_times_ms(self) -> dict[Partition, int]:
        """Return the watermark of each partition that has one."""
        times = ((partition, self.event_time_ms(partition)) for partition in self.partitions)
        return {partition: time for partition, time in times if time is not None}

    def snapshot(self) -> Section:
        """Return what a restart needs."""
        rows: list[list[Any]] = [
            [partition.topic, partition.number, *(int(value) for value in self.rows[at, :ROOT])]
            for at, partition in enumerate(self.partitions)
        ]
        return Section(values={"partitions": rows})


def _key(partition: Partition) -> np.uint64:
    name: npt.NDArray[np.uint8] = np.frombuffer(str(partition).encode(), np.uint8).copy()
    out = np.empty(1, np.uint64)
    hash_spans(name, np.zeros(1, np.int64), np.array([len(name)]), _PARTITION_SEED, out)
    return np.uint64(out[0])
