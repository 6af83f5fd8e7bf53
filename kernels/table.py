"""An open-addressing map from 64-bit keys to slots: find, insert, erase.

Linear probing with backward-shift deletion (Knuth, TAOCP 3, 6.4, algorithm R), so that nothing
is left behind by what was erased. `slots[i] < 0` means that place i is empty.
"""

import numpy as np

from kernels.policy import kernel, part


def places(n: int) -> int:
    """Return how many places a table of up to n keys has: a power of two, half of them empty."""
    return 1 << (2 * n - 1).bit_length()


@part
def home(keys, key):
    """Return where `key` would be stored in an empty table; the size is a power of two."""
    return np.int64(key ^ (key >> np.uint64(32))) & (keys.shape[0] - 1)


@part
def find(keys, slots, key):
    """Return the slot of uint64 `key`, or -1."""
    mask = keys.shape[0] - 1
    at = home(keys, key)
    while slots[at] >= 0:
        if keys[at] == key:
            return slots[at]
        at = (at + 1) & mask
    return np.int64(-1)


@part
def insert(keys, slots, key, slot):
    """Map `key` to `slot`, in place of what it was mapped to; at least one place is empty."""
    mask = keys.shape[0] - 1
    at = home(keys, key)
    while slots[at] >= 0 and keys[at] != key:
        at = (at + 1) & mask
    keys[at] = key
    slots[at] = slot


@part
def erase(keys, slots, key):
    """Forget `key`, which is in the table."""
    mask = keys.shape[0] - 1
    at = home(keys, key)
    while keys[at] != key or slots[at] < 0:
        at = (at + 1) & mask
    hole = at
    while True:
        at = (at + 1) & mask
        if slots[at] < 0:
            break
        if ((at - home(keys, keys[at])) & mask) >= ((at - hole) & mask):
            keys[hole] = keys[at]
            slots[hole] = slots[at]
            hole = at
    slots[hole] = -1


@kernel("void(u8[::1], i8[::1], u8[::1], i8[::1])", fastmath=False)
def find_many(keys, slots, wanted, found):
    """Find the slots of many keys.

    Parameters
    ----------
    keys : uint64 (2^k,), the table's keys
    slots : int64 (2^k,), the table's slots
    wanted : uint64 (n,)
    found : int64 (n,), overwritten; -1 for a key that is not in the table
    """
    for i in range(wanted.shape[0]):
        found[i] = find(keys, slots, wanted[i])


@kernel("void(u8[::1], i8[::1], u8[::1], i8[::1])", fastmath=False)
def insert_many(keys, slots, new_keys, new_slots):
    """Map many keys to slots.

    Parameters
    ----------
    keys : uint64 (2^k,), the table's keys, written; more places than keys
    slots : int64 (2^k,), the table's slots, written
    new_keys : uint64 (n,)
    new_slots : int64 (n,), >= 0
    """
    for i in range(new_keys.shape[0]):
        insert(keys, slots, new_keys[i], new_slots[i])
