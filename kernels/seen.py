"""Event ids that have been seen: the newest of them, and no more than there is room for."""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.policy import part
from kernels.table import erase, find, insert
from kernels.windows import I8, U8

NO_EVENT = np.uint64(0)  # the key of a click that has no event id
N_SEEN, NEXT_PLACE = range(2)  # places of `used`


class Seen(NamedTuple):
    """A ring of event keys, and where each is; owned and grown by `streamer.windows.event_ids`."""

    table_keys: np.ndarray  # uint64 (2^k,), event key ...
    table_slots: np.ndarray  # int64 (2^k,), ... -> its place in `keys`
    keys: np.ndarray  # uint64 (capacity,), overwritten in a circle, the oldest first
    used: np.ndarray  # int64 (2,), keys in the ring; the place of the next one


SEEN = types.NamedTuple((U8, I8, U8, I8), Seen)


@part
def is_seen(seen, key):
    """Tell whether an event key is remembered; a click without one is always new."""
    return key != NO_EVENT and find(seen.table_keys, seen.table_slots, key) >= 0


@part
def remember_event(seen, key):
    """Remember an event key that is new, in place of the oldest where the ring is full."""
    if key == NO_EVENT:
        return
    at = seen.used[NEXT_PLACE]
    if seen.used[N_SEEN] == seen.keys.shape[0]:
        erase(seen.table_keys, seen.table_slots, seen.keys[at])
    else:
        seen.used[N_SEEN] += 1
    seen.keys[at] = key
    insert(seen.table_keys, seen.table_slots, key, at)
    seen.used[NEXT_PLACE] = at + 1 if at + 1 < seen.keys.shape[0] else 0
