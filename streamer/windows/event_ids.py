"""The event ids seen last: by them a click that comes again is known."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import table
from kernels.seen import N_SEEN, NEXT_PLACE, NO_EVENT, Seen
from state.sections import Section

_FIRST_ROOM = 1 << 10


class EventIds:
    """The newest `max_ids` event keys of the space, in the order in which they came first.

    Room is made when the first click with an event id comes. A generation keeps them; under a
    lower bound the newest of them are restored.

    >>> ids = EventIds(2, Section({"keys": np.array([7, 8, 9], np.uint64)}))
    >>> len(ids), ids.snapshot().arrays["keys"].tolist()
    (2, [8, 9])
    """

    def __init__(self, max_ids: int, section: Section) -> None:
        self._max_ids = max_ids
        self._arrays = Seen(
            table_keys=np.zeros(0, np.uint64),
            table_slots=np.zeros(0, np.int64),
            keys=np.zeros(0, np.uint64),
            used=np.zeros(2, np.int64),
        )
        if "keys" in section.arrays:
            self._restore(section.arrays["keys"][-max_ids:])

    def __len__(self) -> int:
        return int(self._arrays.used[N_SEEN])

    def with_room(self, event_keys: NDArray[np.uint64]) -> Seen:
        """Return the arrays that a kernel reads and writes, with room for these keys."""
        self._reserve(int(np.count_nonzero(event_keys != NO_EVENT)))
        return self._arrays

    def snapshot(self) -> Section:
        """Return what a restart needs: the keys, the oldest first."""
        arrays: dict[str, NDArray[Any]] = {"keys": self._in_order()} if len(self) else {}
        return Section(arrays)

    def _in_order(self) -> NDArray[np.uint64]:
        keys = self._arrays.keys[: len(self)]
        is_full = len(self) == len(self._arrays.keys)
        return np.roll(keys, -int(self._arrays.used[NEXT_PLACE])) if is_full else keys.copy()

    def _restore(self, keys: NDArray[np.uint64]) -> None:
        self._reserve(len(keys))
        a = self._arrays
        a.keys[: len(keys)] = keys
        a.used[:] = len(keys), len(keys) % len(a.keys)
        table.insert_many(a.table_keys, a.table_slots, keys, np.arange(len(keys)))

    def _reserve(self, n: int) -> None:
        """Make room for `n` more keys, as far as the bound allows."""
        have, needed = len(self._arrays.keys), min(self._max_ids, len(self) + n)
        if needed <= have:
            return
        room = min(self._max_ids, max(needed, 2 * have, _FIRST_ROOM))
        kept = self._in_order()
        places = table.places(room)
        self._arrays = Seen(
            table_keys=np.zeros(places, np.uint64),
            table_slots=np.full(places, -1, np.int64),
            keys=np.zeros(room, np.uint64),
            used=np.zeros(2, np.int64),
        )
        self._restore(kept)
