"""What has been trained, counted and hash-summed: it tells whether a click was lost or doubled."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import table
from kernels.pairs import Pairs
from state.offsets import Partition
from state.sections import Section
from streamer.windows.watermark import Watermarks

_FIRST_ROOM = 1 << 10


class TrainedPairs:
    """Counts and hash-sums (`kernels/pairs.py`) of the space's pairs; part of every generation.

    Those of partitions are always kept. Those of sessions are kept under an audit: from the first
    start with it to the last in a row.
    """

    def __init__(self, watermarks: Watermarks, section: Section, *, is_audited: bool) -> None:
        self._watermarks = watermarks
        room = _FIRST_ROOM if is_audited else 0
        self._arrays = Pairs(
            counts=np.zeros(0, np.int64),
            sums=np.zeros(0, np.uint64),
            table_keys=np.zeros(2 * room, np.uint64),
            table_slots=np.full(2 * room, -1, np.int64),
            sessions=np.zeros(room, np.uint64),
            session_counts=np.zeros(room, np.int64),
            session_sums=np.zeros(room, np.uint64),
            used=np.zeros(1, np.int64),
        )
        self._restore(section)

    def with_room(self, n_tiles: int) -> Pairs:
        """Return the arrays that a kernel adds to, with room for so many more tiles."""
        self._reserve_partitions()
        if len(self._arrays.sessions):
            self._reserve_sessions(n_tiles)
        return self._arrays

    def by_partition(self) -> list[list[Any]]:
        """Return [topic, number, count, sum] of each partition, the sum as 16 hex digits."""
        self._reserve_partitions()
        counts, sums = self._arrays.counts.tolist(), self._arrays.sums.tolist()
        return [
            [partition.topic, partition.number, counts[at], f"{sums[at]:016x}"]
            for at, partition in enumerate(self._watermarks.partitions)
        ]

    def snapshot(self) -> Section:
        """Return what a restart needs; sessions in the order of their keys."""
        a = self._arrays
        order = np.argsort(a.sessions[: a.used[0]])
        arrays: dict[str, NDArray[Any]] = {}
        if len(a.sessions):
            arrays = {
                "keys": a.sessions[order],
                "counts": a.session_counts[order],
                "sums": a.session_sums[order],
            }
        return Section(arrays, {"partitions": self.by_partition()})

    def _restore(self, section: Section) -> None:
        for topic, number, count, hashed in section.values.get("partitions", []):
            at = self._watermarks.index_of(Partition(topic, number))
            self._reserve_partitions()
            self._arrays.counts[at] = count
            self._arrays.sums[at] = int(hashed, 16)
        if len(self._arrays.sessions) and section.arrays:
            self._restore_sessions(section)

    def _restore_sessions(self, section: Section) -> None:
        n = len(section.arrays["keys"])
        self._reserve_sessions(n)
        a = self._arrays
        a.sessions[:n] = section.arrays["keys"]
        a.session_counts[:n] = section.arrays["counts"]
        a.session_sums[:n] = section.arrays["sums"]
        a.used[0] = n
        table.insert_many(a.table_keys, a.table_slots, a.sessions[:n], np.arange(n))

    def _reserve_partitions(self) -> None:
        """Partitions are added by `Watermarks`, at the end."""
        new = len(self._watermarks.partitions) - len(self._arrays.counts)
        if new:
            self._arrays = self._arrays._replace(
                counts=_grown(self._arrays.counts, new), sums=_grown(self._arrays.sums, new)
            )

    def _reserve_sessions(self, n: int) -> None:
        a, used = self._arrays, int(self._arrays.used[0])
        if used + n <= len(a.sessions):
            return
        new = max(used + n, 2 * len(a.sessions)) - len(a.sessions)
        places = table.places(len(a.sessions) + new)
        self._arrays = a._replace(
            table_keys=np.zeros(places, np.uint64),
            table_slots=np.full(places, -1, np.int64),
            sessions=_grown(a.sessions, new),
            session_counts=_grown(a.session_counts, new),
            session_sums=_grown(a.session_sums, new),
        )
        a = self._arrays
        table.insert_many(a.table_keys, a.table_slots, a.sessions[:used], np.arange(used))


def _grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    return np.concatenate([array, np.zeros(n, array.dtype)])
