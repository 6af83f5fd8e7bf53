"""How windows close: by watermarks, for want of room, and all of them at the end.

Several windows close in the order of (close time, key). Under early emission nothing is written
for a window that closes; otherwise its tiles are, each pair once.
"""

import numpy as np
from numba import types

from kernels.policy import kernel, part
from kernels.tiles import TILES, add_before, begin_tile_of
from kernels.windows import (
    AFTER,
    CLOSED,
    CLOSED_BY_IDLE,
    DUE,
    EVICTED,
    FOREVER,
    HEAD,
    HELD,
    IDLE,
    KEPT,
    LISTED,
    NEVER,
    OPEN,
    PARTITION,
    ROOT,
    RULES,
    WATERMARK,
    WINDOWS,
    closes_before,
    first_due,
    free_window,
    oldest,
    pull,
    unlink,
)


@part
def _emit(s, rules, w, tiles):
    """Write the tiles of a window that closes, each pair once; False if there is no room."""
    if tiles.items.shape[0] - tiles.used[0] < s.windows[w, KEPT]:
        return False
    c = s.windows[w, HEAD]
    while c >= 0:
        begin_tile_of(s, tiles, w, c)
        add_before(s, tiles, c, rules.window)
        c = s.clicks[c, AFTER]
    s.counters[HELD] -= s.windows[w, KEPT]
    return True


@part
def _close(s, rules, w, tiles):
    """Close a window; False, and nothing is done, if its tiles do not fit."""
    if not rules.is_early and not _emit(s, rules, w, tiles):
        return False
    while s.windows[w, HEAD] >= 0:
        unlink(s, w, s.windows[w, HEAD])
    pull(s, w)
    free_window(s, w)
    return True


@part
def list_partitions(s):
    """List the partitions that have a window or hold back those of others; return how many.

    While one partition's clicks arrive, no other can come to be among them.
    """
    n = 0
    for p in range(s.partitions.shape[0]):
        if not s.partitions[p, IDLE] or s.partitions[p, ROOT] >= 0:
            s.partitions[n, LISTED] = p
            n += 1
    return n


@part
def _slowest_active(s, n_listed):
    """Return the watermark that closes the windows of idle partitions; NEVER if it closes none."""
    slowest = FOREVER
    n_idle = 0
    for at in range(n_listed):
        p = s.partitions[at, LISTED]
        if s.partitions[p, IDLE]:
            n_idle += 1
        elif s.partitions[p, WATERMARK] < slowest:
            slowest = s.partitions[p, WATERMARK]
    if n_idle == 0:
        return NEVER
    return slowest


@part
def _first_passed(s, rules, partition, slowest, n_listed):
    """Return the window that closes first of those behind their watermark, or -1.

    That is the watermark of `partition`, and `slowest` where a partition is idle.
    """
    first = first_due(s, rules, partition)
    if first >= 0 and s.windows[first, DUE] >= s.partitions[partition, WATERMARK]:
        first = np.int64(-1)
    if slowest == NEVER:
        return first
    for at in range(n_listed):
        p = s.partitions[at, LISTED]
        if not s.partitions[p, IDLE]:
            continue
        w = first_due(s, rules, p)
        if w < 0 or s.windows[w, DUE] >= slowest:
            continue
        if first < 0 or closes_before(s, w, first):
            first = w
    return first


@part
def close_passed(s, rules, partition, n_listed, tiles):
    """Close what the watermarks have passed, by (close time, key); False if tiles are full."""
    slowest = _slowest_active(s, n_listed)
    while True:
        w = _first_passed(s, rules, partition, slowest, n_listed)
        if w < 0:
            return True
        is_idle = s.partitions[s.windows[w, PARTITION], IDLE]
        if not _close(s, rules, w, tiles):
            return False
        s.counters[CLOSED_BY_IDLE if is_idle else CLOSED] += 1


@part
def make_room(s, rules, tiles):
    """Close the oldest windows until one more is not too many; False if tiles are full."""
    while s.counters[OPEN] >= rules.max_open:
        w = oldest(s, rules)
        if not _close(s, rules, w, tiles):
            return False
        s.counters[EVICTED] += 1
    return True


@kernel(types.boolean(WINDOWS, RULES, TILES), fastmath=False)
def close_all(s, rules, tiles):
    """Close every window, in the order of (close time, key), as a watermark of infinity does.

    Parameters
    ----------
    s : Windows of arrays, written
    rules : Rules of int64
    tiles : Tiles of arrays (capacity,), appended to

    Returns
    -------
    bool, whether all are closed; if not, `tiles` is full and must be emptied first
    """
    while True:
        w = oldest(s, rules)
        if w < 0:
            return True
        if not _close(s, rules, w, tiles):
            return False
        s.counters[CLOSED] += 1
