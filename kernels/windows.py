"""The rows of open session windows: their lists of clicks, and the heap by which they close.

A key's windows are chained. A window's clicks are a linked list of rows of `clicks`, in the order
of (time, partition, offset). Each partition holds its windows in a skew heap by the time at which
they close (Sleator and Tarjan, Self-adjusting heaps, 1986), so that a watermark closes exactly
what it has passed, click by click (cut-free). Heap entries may lie early: a window that has grown
is put back when its old time comes up.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.policy import kernel, part
from kernels.table import erase, find, insert

NEVER = -(1 << 62)
FOREVER = 1 << 62

# Columns of `windows`; a free row has PARTITION < 0 and its successor in NEXT.
(
    START, END, NEXT, HEAD, TAIL, KEPT, TRAINED, PARTITION, DUE, LEFT, RIGHT, PARENT, NUMBER,
) = range(13)  # fmt: skip
WINDOW_COLUMNS = NUMBER + 1
# Columns of `clicks`; a free row has its successor in AFTER.
TIME, FROM, OFFSET, BEFORE, AFTER = range(5)
# Columns of `partitions`; a restart needs all before ROOT. From STRAY_TIMES on stand the times of
# the last strays, of which there were STRAYS in a row.
WATERMARK, IDLE, SETTLED, STRAYS, STRAY_TIMES = range(5)
AGREEING = 20  # strays in a row, most of them together, until they are believed
N_STRAY_TIMES = AGREEING - 1
ROOT = STRAY_TIMES + N_STRAY_TIMES
LISTED = ROOT + 1  # scratch: down this column stands a list of partitions
TOPIC = LISTED + 1  # the same number for all partitions of a topic
PARTITION_COLUMNS = TOPIC + 1
# Places of `counters`. Rows from N_WINDOWS and N_CLICKS on have never been used.
(
    OPEN, FREE_WINDOW, N_WINDOWS, FREE_CLICK, N_CLICKS, HELD,
    CLOSED, CLOSED_BY_IDLE, EVICTED, DROPPED, MERGED, SPREAD, OPENED,
) = range(13)  # fmt: skip
N_COUNTERS = OPENED + 1


class Windows(NamedTuple):
    """The open windows; owned and grown by `streamer.windows.sessions`."""

    table_keys: np.ndarray  # uint64 (2^k,), session key ...
    table_slots: np.ndarray  # int64 (2^k,), ... -> the first of its windows
    keys: np.ndarray  # uint64 (n_windows,)
    windows: np.ndarray  # int64 (n_windows, WINDOW_COLUMNS)
    clicks: np.ndarray  # int64 (n_clicks, 5)
    items: np.ndarray  # uint64 (n_clicks,), item keys
    weights: np.ndarray  # float32 (n_clicks,)
    partitions: np.ndarray  # int64 (n_partitions, PARTITION_COLUMNS)
    counters: np.ndarray  # int64 (N_COUNTERS,)


class Rules(NamedTuple):
    """Times in milliseconds."""

    gap: int
    lateness: int
    out_of_orderness: int
    max_jump: int
    max_kept: int
    max_trained: int
    max_open: int
    window: int
    is_early: int


I8, U8, F4 = types.int64[::1], types.uint64[::1], types.float32[::1]
I8_2D, U8_2D = types.int64[:, ::1], types.uint64[:, ::1]
WINDOWS = types.NamedTuple((U8, I8, U8, I8_2D, I8_2D, U8, F4, I8_2D, I8), Windows)
RULES = types.NamedUniTuple(types.int64, 9, Rules)


@part
def closes_before(s, a, b):
    """Order windows by (close time, key)."""
    if s.windows[a, DUE] != s.windows[b, DUE]:
        return s.windows[a, DUE] < s.windows[b, DUE]
    return s.keys[a] < s.keys[b]


@part
def _meld(s, a, b):
    """Return the root of two heaps made one; its PARENT is the caller's to set."""
    if a < 0:
        return b
    if b < 0:
        return a
    if closes_before(s, b, a):
        a, b = b, a
    root = a
    while True:
        rest = s.windows[a, RIGHT]
        s.windows[a, RIGHT] = s.windows[a, LEFT]
        if rest >= 0 and closes_before(s, rest, b):
            rest, b = b, rest
        s.windows[a, LEFT] = b
        s.windows[b, PARENT] = a
        if rest < 0:
            return root
        a, b = b, rest


@part
def _set_root(s, partition, root):
    s.partitions[partition, ROOT] = root
    if root >= 0:
        s.windows[root, PARENT] = -1


@part
def push(s, w, due):
    """Put a window into its partition's heap, to come up at `due`."""
    s.windows[w, DUE] = due
    s.windows[w, LEFT] = -1
    s.windows[w, RIGHT] = -1
    partition = s.windows[w, PARTITION]
    _set_root(s, partition, _meld(s, s.partitions[partition, ROOT], w))


@part
def pull(s, w):
    """Take a window out of its partition's heap."""
    below = _meld(s, s.windows[w, LEFT], s.windows[w, RIGHT])
    above = s.windows[w, PARENT]
    if above < 0:
        _set_root(s, s.windows[w, PARTITION], below)
        return
    side = LEFT if s.windows[above, LEFT] == w else RIGHT
    s.windows[above, side] = below
    if below >= 0:
        s.windows[below, PARENT] = above


@part
def due(s, rules, w):
    """Return the last watermark under which a window is open."""
    return s.windows[w, END] + rules.gap + rules.lateness


@part
def first_due(s, rules, partition):
    """Return the partition's window that closes first, at its true time, or -1."""
    while True:
        w = s.partitions[partition, ROOT]
        if w < 0 or s.windows[w, DUE] == due(s, rules, w):
            return w
        pull(s, w)
        push(s, w, due(s, rules, w))


@part
def open_window(s, key, partition, time):
    """Return a new window of `key` at the head of its chain, in no heap yet."""
    w = s.counters[FREE_WINDOW]
    if w >= 0:
        s.counters[FREE_WINDOW] = s.windows[w, NEXT]
    else:
        w = s.counters[N_WINDOWS]
        s.counters[N_WINDOWS] += 1
    s.keys[w] = key
    s.windows[w, START] = time
    s.windows[w, END] = time
    s.windows[w, HEAD] = -1
    s.windows[w, TAIL] = -1
    s.windows[w, KEPT] = 0
    s.windows[w, TRAINED] = 0
    s.windows[w, PARTITION] = partition
    s.windows[w, NEXT] = find(s.table_keys, s.table_slots, key)
    insert(s.table_keys, s.table_slots, key, w)
    s.counters[OPEN] += 1
    s.counters[OPENED] += 1
    s.windows[w, NUMBER] = s.counters[OPENED]
    return w


@part
def free_window(s, w):
    """Forget a window that is in no heap and holds no click."""
    key = s.keys[w]
    at = find(s.table_keys, s.table_slots, key)
    after = s.windows[w, NEXT]
    if at != w:
        while s.windows[at, NEXT] != w:
            at = s.windows[at, NEXT]
        s.windows[at, NEXT] = after
    elif after >= 0:
        insert(s.table_keys, s.table_slots, key, after)
    else:
        erase(s.table_keys, s.table_slots, key)
    s.windows[w, PARTITION] = -1
    s.windows[w, NEXT] = s.counters[FREE_WINDOW]
    s.counters[FREE_WINDOW] = w
    s.counters[OPEN] -= 1


@part
def link(s, w, c, before):
    """Put click `c` behind click `before` (-1: first) of window `w`."""
    after = s.windows[w, HEAD] if before < 0 else s.clicks[before, AFTER]
    s.clicks[c, BEFORE] = before
    s.clicks[c, AFTER] = after
    if before < 0:
        s.windows[w, HEAD] = c
    else:
        s.clicks[before, AFTER] = c
    if after < 0:
        s.windows[w, TAIL] = c
    else:
        s.clicks[after, BEFORE] = c
    s.windows[w, KEPT] += 1


@part
def unlink(s, w, c):
    """Take click `c` out of window `w` and free its row."""
    before, after = s.clicks[c, BEFORE], s.clicks[c, AFTER]
    if before < 0:
        s.windows[w, HEAD] = after
    else:
        s.clicks[before, AFTER] = after
    if after < 0:
        s.windows[w, TAIL] = before
    else:
        s.clicks[after, BEFORE] = before
    s.windows[w, KEPT] -= 1
    s.clicks[c, AFTER] = s.counters[FREE_CLICK]
    s.counters[FREE_CLICK] = c


@part
def touching(s, rules, key, time, skip):
    """Return the key's window, other than `skip`, within the gap of `time`, or -1."""
    w = find(s.table_keys, s.table_slots, key)
    while w >= 0:
        if (
            w != skip
            and time >= s.windows[w, START] - rules.gap
            and time <= s.windows[w, END] + rules.gap
        ):
            return w
        w = s.windows[w, NEXT]
    return w


@part
def merge(s, a, b):
    """Move the clicks of window `b`, which lies later, to the end of `a`; forget `b`."""
    head, tail = s.windows[b, HEAD], s.windows[a, TAIL]
    if head >= 0:
        s.clicks[head, BEFORE] = tail
        if tail >= 0:
            s.clicks[tail, AFTER] = head
        else:
            s.windows[a, HEAD] = head
        s.windows[a, TAIL] = s.windows[b, TAIL]
    s.windows[a, END] = s.windows[b, END]
    s.windows[a, KEPT] += s.windows[b, KEPT]
    s.windows[a, TRAINED] += s.windows[b, TRAINED]
    pull(s, b)
    free_window(s, b)
    s.counters[MERGED] += 1


@part
def oldest(s, rules):
    """Return the window that closes first, in the order of (close time, key), or -1."""
    first = np.int64(-1)
    for p in range(s.partitions.shape[0]):
        w = first_due(s, rules, p)
        if w >= 0 and (first < 0 or closes_before(s, w, first)):
            first = w
    return first


@kernel(types.void(WINDOWS, U8, I8_2D, I8_2D, U8, F4), fastmath=False)
def collect(s, keys, windows, clicks, items, weights):
    """Copy the open windows and their clicks out, window by window, each in its order.

    Parameters
    ----------
    s : Windows of arrays
    keys : uint64 (n_open,), overwritten
    windows : int64 (n_open, 6), overwritten: start, end, kept, trained, partition, number
    clicks : int64 (n_kept, 3), overwritten: time, partition, offset
    items : uint64 (n_kept,), overwritten
    weights : float32 (n_kept,), overwritten
    """
    n, m = 0, 0
    for w in range(s.counters[N_WINDOWS]):
        if s.windows[w, PARTITION] < 0:
            continue
        keys[n] = s.keys[w]
        windows[n, 0] = s.windows[w, START]
        windows[n, 1] = s.windows[w, END]
        windows[n, 2] = s.windows[w, KEPT]
        windows[n, 3] = s.windows[w, TRAINED]
        windows[n, 4] = s.windows[w, PARTITION]
        windows[n, 5] = s.windows[w, NUMBER]
        n += 1
        c = s.windows[w, HEAD]
        while c >= 0:
            for column in range(3):
                clicks[m, column] = s.clicks[c, column]
            items[m] = s.items[c]
            weights[m] = s.weights[c]
            m += 1
            c = s.clicks[c, AFTER]


@kernel(types.void(WINDOWS, RULES, U8, I8_2D, I8_2D, U8, F4), fastmath=False)
def rebuild(s, rules, keys, windows, clicks, items, weights):
    """Invert `collect`, into empty windows.

    Parameters
    ----------
    s : Windows of arrays, written; empty, with room for all
    rules : Rules of int64
    keys : uint64 (n_open,)
    windows : int64 (n_open, 6): start, end, kept, trained, partition, number
    clicks : int64 (n_kept, 3): time, partition, offset
    items : uint64 (n_kept,)
    weights : float32 (n_kept,)
    """
    m = 0
    for n in range(keys.shape[0]):
        w = open_window(s, keys[n], windows[n, 4], windows[n, 0])
        s.windows[w, END] = windows[n, 1]
        s.windows[w, TRAINED] = windows[n, 3]
        s.windows[w, NUMBER] = windows[n, 5]
        for _ in range(windows[n, 2]):
            c = s.counters[N_CLICKS]
            s.counters[N_CLICKS] += 1
            for column in range(3):
                s.clicks[c, column] = clicks[m, column]
            s.items[c] = items[m]
            s.weights[c] = weights[m]
            link(s, w, c, s.windows[w, TAIL])
            m += 1
        push(s, w, due(s, rules, w))
