"""Item ids as rows: look up by key, compare the id, admit what is new."""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.policy import kernel, part
from kernels.table import find, insert
from kernels.windows import I8, U8

# What a lookup says of an item that has no row, in place of the row.
UNKNOWN, COLLISION, FULL = -1, -2, -3


class Vocabulary(NamedTuple):
    """Ids of all shards; owned and grown by `state.vocabulary`."""

    table_keys: np.ndarray  # uint64 (2^k,), item key ...
    table_slots: np.ndarray  # int64 (2^k,), ... -> row
    keys: np.ndarray  # uint64 (n_rows,)
    id_starts: np.ndarray  # int64 (n_rows,), in `id_bytes`
    id_lengths: np.ndarray  # int64 (n_rows,)
    id_bytes: np.ndarray  # uint8 (capacity,)
    used: np.ndarray  # int64 (2,), bytes of `id_bytes` in use; items
    shard_sizes: np.ndarray  # int64 (n_shards,), rows in use of each shard


class Ids(NamedTuple):
    """Ids of clicks, where they lie in a batch."""

    keys: np.ndarray  # uint64 (n,)
    starts: np.ndarray  # int64 (n,), in `data`
    lengths: np.ndarray  # int64 (n,)
    data: np.ndarray  # uint8 (n_bytes,)


VOCABULARY = types.NamedTuple((U8, I8, U8, I8, I8, types.u1[::1], I8, I8), Vocabulary)
IDS = types.NamedTuple((U8, I8, I8, types.u1[::1]), Ids)


@part
def _are_equal(one, start, length, other, other_start, other_length):
    if length != other_length:
        return False
    for b in range(length):
        if one[start + b] != other[other_start + b]:
            return False
    return True


@part
def _is_id_of(v, row, ids, i):
    return _are_equal(
        v.id_bytes, v.id_starts[row], v.id_lengths[row], ids.data, ids.starts[i], ids.lengths[i]
    )


@part
def _is_id_at(ids, i, j):
    return _are_equal(
        ids.data, ids.starts[i], ids.lengths[i], ids.data, ids.starts[j], ids.lengths[j]
    )


@part
def _look_up(v, ids, i):
    row = find(v.table_keys, v.table_slots, ids.keys[i])
    if row >= 0 and not _is_id_of(v, row, ids, i):
        return np.int64(COLLISION)
    return row


@kernel(types.void(VOCABULARY, IDS, I8), fastmath=False)
def look_up(v, ids, rows):
    """Find the rows of items.

    Parameters
    ----------
    v : Vocabulary of arrays
    ids : Ids of arrays (n,)
    rows : int64 (n,), overwritten; UNKNOWN, or COLLISION where another id has the same key
    """
    for i in range(rows.shape[0]):
        rows[i] = _look_up(v, ids, i)


@kernel(types.int64(VOCABULARY, IDS, I8, types.int64), fastmath=False)
def admit(v, ids, rows, max_items):
    """Give a row to each item that has none, in order.

    Parameters
    ----------
    v : Vocabulary of arrays, written; room for all bytes of `ids`
    ids : Ids of arrays (n,)
    rows : int64 (n,), overwritten; FULL where there is no room, COLLISION as in `look_up`
    max_items : int64, of all shards together

    Returns
    -------
    int64, how many items are new
    """
    n_shards = v.shard_sizes.shape[0]
    shard_rows = v.keys.shape[0] // n_shards
    admitted = 0
    for i in range(rows.shape[0]):
        rows[i] = _look_up(v, ids, i)
        if rows[i] != UNKNOWN:
            continue
        shard = np.int64(ids.keys[i] % np.uint64(n_shards))
        if v.used[1] >= max_items or v.shard_sizes[shard] >= shard_rows:
            rows[i] = FULL
            continue
        row = shard * shard_rows + v.shard_sizes[shard]
        v.shard_sizes[shard] += 1
        v.used[1] += 1
        v.keys[row] = ids.keys[i]
        v.id_starts[row] = v.used[0]
        v.id_lengths[row] = ids.lengths[i]
        for b in range(ids.lengths[i]):
            v.id_bytes[v.used[0] + b] = ids.data[ids.starts[i] + b]
        v.used[0] += ids.lengths[i]
        insert(v.table_keys, v.table_slots, ids.keys[i], row)
        rows[i] = row
        admitted += 1
    return admitted


@kernel(types.int64(VOCABULARY, IDS, I8, types.int64, I8, U8, I8), fastmath=False)
def room_for(v, ids, rows, max_items, wanted, first_keys, first_slots):
    """Count the clicks, from the first, whose fate is known whatever becomes of those before.

    Parameters
    ----------
    v : Vocabulary of arrays
    ids : Ids of arrays (n,)
    rows : int64 (n,), from `look_up`; overwritten with FULL where the store is full for an item
    max_items : int64, of all shards together
    wanted : int64 (n_shards,), scratch, overwritten
    first_keys : uint64 (2^k,), scratch, overwritten; more places than there are unknown items
    first_slots : int64 (2^k,), scratch, overwritten

    Returns
    -------
    int64, n, or less: the first click for which there might be no room, or whose key might have
    become another id's, once the clicks before it have been admitted or not

    Notes
    -----
    A click on an item that finds its shard full is FULL wherever it stands. While a shard has
    room, each unknown item may take it, so the count ends where it could run out.
    """
    n_shards = v.shard_sizes.shape[0]
    shard_rows = v.keys.shape[0] // n_shards
    wanted[:] = 0
    first_slots[:] = -1
    total = np.int64(0)
    for i in range(rows.shape[0]):
        if rows[i] != UNKNOWN:
            continue
        shard = np.int64(ids.keys[i] % np.uint64(n_shards))
        room = min(shard_rows - v.shard_sizes[shard], max_items - v.used[1])
        if room <= 0:
            rows[i] = FULL
            continue
        first = find(first_keys, first_slots, ids.keys[i])
        if first >= 0:
            if not _is_id_at(ids, first, i):
                return i
            continue
        if wanted[shard] >= shard_rows - v.shard_sizes[shard] or total >= max_items - v.used[1]:
            return i
        wanted[shard] += 1
        total += 1
        insert(first_keys, first_slots, ids.keys[i], i)
    return rows.shape[0]


@kernel(types.int64(VOCABULARY, types.int64, types.int64, types.u1[::1], I8), fastmath=False)
def gather_ids(v, begin, end, out, ends):
    """Copy the ids of consecutive rows out, one behind the other.

    Parameters
    ----------
    v : Vocabulary of arrays
    begin : int64, the first row
    end : int64, the row behind the last
    out : uint8 (sum of the ids' lengths,), overwritten
    ends : int64 (end - begin,), overwritten: where each id ends in `out`

    Returns
    -------
    int64, bytes written
    """
    at = 0
    for row in range(begin, end):
        for b in range(v.id_lengths[row]):
            out[at + b] = v.id_bytes[v.id_starts[row] + b]
        at += v.id_lengths[row]
        ends[row - begin] = at
    return at
