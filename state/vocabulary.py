"""Item id <-> row, and admission.

A row number is `shard * rows_per_shard + place`, place in the order of admission. Rows of a shard
have a tenth of slack, so that while no shard is full a store holds the same items for any number
of shards.
"""

import numpy as np
from numpy.typing import NDArray

from kernels import table
from kernels import vocabulary as kernels

SLACK = 1.1
_FIRST_BYTES = 1 << 16


class Vocabulary:
    """The ids of all items that have a row; grows by `admit`, never shrinks."""

    def __init__(self, max_items: int, n_shards: int) -> None:
        slack = SLACK if n_shards > 1 else 1.0
        self.max_items = max_items
        self.rows_per_shard = int(np.ceil(max_items / n_shards * slack))
        n_rows = self.rows_per_shard * n_shards
        places = table.places(n_rows)
        self.arrays = kernels.Vocabulary(
            table_keys=np.zeros(places, np.uint64),
            table_slots=np.full(places, -1, np.int64),
            keys=np.zeros(n_rows, np.uint64),
            id_starts=np.zeros(n_rows, np.int64),
            id_lengths=np.zeros(n_rows, np.int64),
            id_bytes=np.zeros(_FIRST_BYTES, np.uint8),
            used=np.zeros(2, np.int64),
            shard_sizes=np.zeros(n_shards, np.int64),
        )

    def __len__(self) -> int:
        return int(self.arrays.used[1])

    def shard_size(self, shard: int) -> int:
        """Return how many rows of a shard are in use."""
        return int(self.arrays.shard_sizes[shard])

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first row of each shard, and the one behind the last in use."""
        sizes = self.arrays.shard_sizes
        begins = np.arange(len(sizes)) * self.rows_per_shard
        return begins, begins + sizes

    def rows_of(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the rows of items by their keys; all of them have one."""
        rows = np.empty(len(keys), np.int64)
        table.find_many(self.arrays.table_keys, self.arrays.table_slots, keys, rows)
        return rows

    def look_up(self, ids: kernels.Ids) -> NDArray[np.int64]:
        """Return the row of each item, UNKNOWN, or COLLISION if another id has its key."""
        rows = np.empty(len(ids.keys), np.int64)
        kernels.look_up(self.arrays, ids, rows)
        return rows

    def room_for(self, ids: kernels.Ids, rows: NDArray[np.int64]) -> int:
        """Return how many clicks, from the first, can be taken whatever becomes of each.

        Marks FULL in `rows` (from `look_up`) each click on a new item for which there is no room.
        """
        wanted = np.empty(len(self.arrays.shard_sizes), np.int64)
        places = table.places(int(np.count_nonzero(rows == kernels.UNKNOWN)))
        first = np.empty(places, np.uint64), np.empty(places, np.int64)
        return int(kernels.room_for(self.arrays, ids, rows, self.max_items, wanted, *first))

    def admit(self, ids: kernels.Ids) -> NDArray[np.int64]:
        """Return the row of each item, giving one to each that is new; FULL without room."""
        self._reserve_bytes(int(ids.lengths.sum()))
        rows = np.empty(len(ids.keys), np.int64)
        kernels.admit(self.arrays, ids, rows, self.max_items)
        return rows

    def ids(self, shard: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return a copy of a shard's ids: the bytes, and where each ends."""
        begin = shard * self.rows_per_shard
        end = begin + self.shard_size(shard)
        out = np.empty(int(self.arrays.id_lengths[begin:end].sum()), np.uint8)
        ends = np.empty(end - begin, np.int64)
        kernels.gather_ids(self.arrays, begin, end, out, ends)
        return out, ends

    def restore(
        self, shard: int, keys: NDArray[np.uint64], out: NDArray[np.uint8], ends: NDArray[np.int64]
    ) -> None:
        """Fill an empty shard with what `ids` and the keys of its rows were."""
        assert self.shard_size(shard) == 0
        self._reserve_bytes(len(out))
        arrays = self.arrays
        begin, end = shard * self.rows_per_shard, shard * self.rows_per_shard + len(keys)
        used = int(arrays.used[0])
        starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
        arrays.keys[begin:end] = keys
        arrays.id_starts[begin:end] = used + starts
        arrays.id_lengths[begin:end] = ends - starts
        arrays.id_bytes[used : used + len(out)] = out
        arrays.used[0] += len(out)
        arrays.used[1] += len(keys)
        arrays.shard_sizes[shard] = len(keys)
        table.insert_many(arrays.table_keys, arrays.table_slots, keys, np.arange(begin, end))

    def _reserve_bytes(self, more: int) -> None:
        needed = int(self.arrays.used[0]) + more
        have = len(self.arrays.id_bytes)
        if needed > have:
            grown = np.zeros(max(needed, 2 * have), np.uint8)
            grown[:have] = self.arrays.id_bytes
            self.arrays = self.arrays._replace(id_bytes=grown)
