"""Session windows by inactivity gap over columns.

What happens to a click, in this order: a time that cannot be believed is refused; the partition's
watermark advances; every window that the watermark has passed closes; a click whose item has no
row to go to is refused; it joins, opens or bridges windows, or is late; it takes its position among
the window's clicks. Early emission gives each click its tile at once; otherwise a window's tiles
are written when it closes.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.policy import kernel, part
from kernels.tiles import TILES, add_neighbours, begin_tile, begin_tile_of
from kernels.watermarks import advance, note
from kernels.windows import (
    AFTER,
    BEFORE,
    CLOSED,
    CLOSED_BY_IDLE,
    DROPPED,
    DUE,
    END,
    EVICTED,
    F4,
    FOREVER,
    FREE_CLICK,
    FROM,
    HEAD,
    HELD,
    I8,
    IDLE,
    KEPT,
    LISTED,
    N_CLICKS,
    NEVER,
    OFFSET,
    OPEN,
    PARTITION,
    ROOT,
    RULES,
    START,
    TAIL,
    TIME,
    TRAINED,
    U8,
    WATERMARK,
    WINDOWS,
    closes_before,
    due,
    first_due,
    free_window,
    link,
    merge,
    oldest,
    open_window,
    pull,
    push,
    touching,
    unlink,
)

# What became of a click.
ACCEPTED, REPEAT, LATE, FUTURE, BOT, REFUSED = range(6)


class Arrivals(NamedTuple):
    """Clicks of one partition, in offset order."""

    session_keys: np.ndarray  # uint64 (n,)
    item_keys: np.ndarray  # uint64 (n,)
    times: np.ndarray  # int64 (n,), milliseconds
    offsets: np.ndarray  # int64 (n,)
    weights: np.ndarray  # float32 (n,)
    is_refused: np.ndarray  # uint8 (n,), 1 where the store has no row for the item


ARRIVALS = types.NamedTuple((U8, U8, I8, I8, F4, types.u1[::1]), Arrivals)


@part
def _new_click(s, arrivals, i, partition):
    c = s.counters[FREE_CLICK]
    if c >= 0:
        s.counters[FREE_CLICK] = s.clicks[c, AFTER]
    else:
        c = s.counters[N_CLICKS]
        s.counters[N_CLICKS] += 1
    s.clicks[c, TIME] = arrivals.times[i]
    s.clicks[c, FROM] = partition
    s.clicks[c, OFFSET] = arrivals.offsets[i]
    s.items[c] = arrivals.item_keys[i]
    s.weights[c] = arrivals.weights[i]
    return c


@part
def _emit(s, rules, w, tiles):
    """Write the tiles of a window that closes, each pair once; False if there is no room."""
    if tiles.items.shape[0] - tiles.used[0] < s.windows[w, KEPT]:
        return False
    c = s.windows[w, HEAD]
    while c >= 0:
        begin_tile_of(s, tiles, w, c)
        add_neighbours(s, tiles, c, BEFORE, rules.window)
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
def _list_partitions(s):
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
def _close_passed(s, rules, partition, n_listed, tiles):
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
def _place(s, w, arrivals, i, partition):
    """Return the click of `w` behind which click `i` belongs, or -1 for the front."""
    time, offset = arrivals.times[i], arrivals.offsets[i]
    at = s.windows[w, TAIL]
    while at >= 0:
        if s.clicks[at, TIME] != time:
            later = s.clicks[at, TIME] > time
        elif s.clicks[at, FROM] != partition:
            later = s.clicks[at, FROM] > partition
        else:
            later = s.clicks[at, OFFSET] > offset
        if not later:
            return at
        at = s.clicks[at, BEFORE]
    return at


@part
def _drop_repeated_successor(s, rules, w, before, tiles):
    """After a repeat has bridged two windows: the same item twice in a row keeps one position."""
    after = s.clicks[before, AFTER]
    if after < 0 or s.items[after] != s.items[before]:
        return
    if not rules.is_early:
        begin_tile_of(s, tiles, w, after)
        s.counters[HELD] -= 1
    unlink(s, w, after)


@part
def _add_click(s, rules, w, arrivals, i, partition, tiles):
    """Give click `i` its position in window `w`, unless it repeats a neighbour's item."""
    before = _place(s, w, arrivals, i, partition)
    after = s.windows[w, HEAD] if before < 0 else s.clicks[before, AFTER]
    item = arrivals.item_keys[i]
    s.windows[w, TRAINED] += 1
    if (before >= 0 and s.items[before] == item) or (after >= 0 and s.items[after] == item):
        key, weight, offset = s.keys[w], arrivals.weights[i], arrivals.offsets[i]
        begin_tile(tiles, key, item, weight, partition, offset)
        if before >= 0 and s.items[before] == item:
            _drop_repeated_successor(s, rules, w, before, tiles)
        return REPEAT
    c = _new_click(s, arrivals, i, partition)
    link(s, w, c, before)
    if not rules.is_early:
        s.counters[HELD] += 1
        return ACCEPTED
    begin_tile_of(s, tiles, w, c)
    add_neighbours(s, tiles, c, BEFORE, rules.window)
    add_neighbours(s, tiles, c, AFTER, rules.window)
    return ACCEPTED


@part
def _drop_oldest(s, rules, w):
    """Keep no more clicks of a window than is allowed, unless they wait to be trained."""
    while rules.is_early and s.windows[w, KEPT] > rules.max_kept:
        unlink(s, w, s.windows[w, HEAD])
        s.counters[DROPPED] += 1


@part
def _settle(s, rules, w, time, partition):
    """Let window `w` reach `time` and belong to `partition`, in whose heap it waits."""
    if time < s.windows[w, START]:
        s.windows[w, START] = time
    if time > s.windows[w, END]:
        s.windows[w, END] = time
    if s.windows[w, PARTITION] != partition:
        pull(s, w)
        s.windows[w, PARTITION] = partition
        push(s, w, due(s, rules, w))


@part
def _is_late(s, rules, end, partition):
    """Tell whether a window that ends at `end` has closed, by the partition's watermark."""
    return end + rules.gap + rules.lateness < s.partitions[partition, WATERMARK]


@part
def _arrive(s, rules, arrivals, i, partition, tiles):
    """Put click `i` into its window; return what became of it."""
    key, time = arrivals.session_keys[i], arrivals.times[i]
    w = touching(s, rules, key, time, np.int64(-1))
    other = touching(s, rules, key, time, w) if w >= 0 else np.int64(-1)
    end = time
    if w >= 0:
        end = max(end, s.windows[w, END])
    if other >= 0:
        end = max(end, s.windows[other, END])
    if _is_late(s, rules, end, partition):
        return LATE
    if other >= 0:
        if s.windows[other, START] < s.windows[w, START]:
            w, other = other, w
        merge(s, w, other)
    elif w < 0:
        w = open_window(s, key, partition, time)
        push(s, w, due(s, rules, w))
    _settle(s, rules, w, time, partition)
    fate = BOT
    if s.windows[w, TRAINED] < rules.max_trained:
        fate = _add_click(s, rules, w, arrivals, i, partition, tiles)
    _drop_oldest(s, rules, w)
    return fate


@part
def _make_room(s, rules, tiles):
    """Close the oldest windows until one more is not too many; False if tiles are full."""
    while s.counters[OPEN] >= rules.max_open:
        w = oldest(s, rules)
        if not _close(s, rules, w, tiles):
            return False
        s.counters[EVICTED] += 1
    return True


@part
def _opens_window(s, rules, arrivals, i, partition):
    key, time = arrivals.session_keys[i], arrivals.times[i]
    if _is_late(s, rules, time, partition):
        return False
    return touching(s, rules, key, time, np.int64(-1)) < 0


@kernel(
    types.int64(WINDOWS, RULES, ARRIVALS, types.int64, types.int64, types.u1[::1], TILES),
    fastmath=False,
)
def extend(s, rules, arrivals, partition, begin, fates, tiles):
    """Let clicks arrive, one by one: advance the watermark, close what it passed, place the click.

    Parameters
    ----------
    s : Windows of arrays, written; room for one more window and click per arrival
    rules : Rules of int64
    arrivals : Arrivals of arrays (n,)
    partition : int64, in [0, n_partitions), whose clicks these are
    begin : int64, in [0, n], the first click to take
    fates : uint8 (n,), what became of each click: ACCEPTED, REPEAT, LATE, FUTURE, BOT or REFUSED
    tiles : Tiles of arrays (capacity,), appended to; rows from `used` on are overwritten

    Returns
    -------
    int64, the first click not taken: n, or less when `tiles` is full and must be emptied first

    Notes
    -----
    Taking a click twice is prevented by the caller; a click at which `tiles` was full has changed
    nothing but the watermark, so that it is taken as if for the first time.
    """
    s.partitions[partition, IDLE] = 0
    n_listed = _list_partitions(s)
    for i in range(begin, arrivals.times.shape[0]):
        if tiles.items.shape[0] - tiles.used[0] < 2:
            return i
        time = arrivals.times[i]
        is_stray = advance(s, rules, partition, time)
        if is_stray and time > s.partitions[partition, WATERMARK]:
            note(s, partition, time, is_stray)
            fates[i] = FUTURE
            continue
        if not _close_passed(s, rules, partition, n_listed, tiles):
            return i
        if arrivals.is_refused[i]:
            fates[i] = REFUSED
        else:
            opens = _opens_window(s, rules, arrivals, i, partition)
            if opens and not _make_room(s, rules, tiles):
                return i
            if tiles.items.shape[0] - tiles.used[0] < 2:
                return i
            fates[i] = _arrive(s, rules, arrivals, i, partition, tiles)
        note(s, partition, time, is_stray)
    return arrivals.times.shape[0]


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
