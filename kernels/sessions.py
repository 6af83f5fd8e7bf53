"""Session windows by inactivity gap over columns.

What happens to a click, in this order: one whose event id has been seen is left out; a time that
cannot be believed is refused; the partition's watermark advances; every window that the watermark
has passed closes; a click whose item has no row to go to is refused; it joins, opens or bridges
windows, or is late; it takes its position among the window's clicks. Early emission gives each
click its tile at once; otherwise a window's tiles are written when it closes.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.closing import close_passed, list_partitions, make_room
from kernels.policy import kernel, part
from kernels.seen import SEEN, is_seen, remember_event
from kernels.tiles import TILES, add_after, add_before, begin_tile_of, begin_tile_of_arrival
from kernels.watermarks import advance, note
from kernels.windows import (
    AFTER,
    BEFORE,
    DROPPED,
    END,
    F4,
    FREE_CLICK,
    FROM,
    HEAD,
    HELD,
    I8,
    IDLE,
    KEPT,
    N_CLICKS,
    OFFSET,
    PARTITION,
    RULES,
    SPREAD,
    START,
    TAIL,
    TIME,
    TOPIC,
    TRAINED,
    U8,
    WATERMARK,
    WINDOWS,
    due,
    link,
    merge,
    open_window,
    pull,
    push,
    touching,
    unlink,
)

# What became of a click.
ACCEPTED, REPEAT, LATE, FUTURE, BOT, REFUSED, DUPLICATE = range(7)


class Arrivals(NamedTuple):
    """Clicks of one partition, in offset order."""

    session_keys: np.ndarray  # uint64 (n,)
    item_keys: np.ndarray  # uint64 (n,)
    times: np.ndarray  # int64 (n,), milliseconds
    offsets: np.ndarray  # int64 (n,)
    weights: np.ndarray  # float32 (n,)
    is_refused: np.ndarray  # uint8 (n,), 1 where the store has no row for the item
    event_keys: np.ndarray  # uint64 (n,), NO_EVENT where the click has no event id


ARRIVALS = types.NamedTuple((U8, U8, I8, I8, F4, types.u1[::1], U8), Arrivals)


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
        begin_tile_of_arrival(s, tiles, w, arrivals, i, partition)
        if before >= 0 and s.items[before] == item:
            _drop_repeated_successor(s, rules, w, before, tiles)
        return REPEAT
    c = _new_click(s, arrivals, i, partition)
    link(s, w, c, before)
    if not rules.is_early:
        s.counters[HELD] += 1
        return ACCEPTED
    begin_tile_of(s, tiles, w, c)
    add_before(s, tiles, c, rules.window)
    add_after(s, tiles, c, rules.window)
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
def _count_if_spread(s, w, partition):
    """Count a window that another partition of its topic continues."""
    own = s.windows[w, PARTITION]
    if own != partition and s.partitions[own, TOPIC] == s.partitions[partition, TOPIC]:
        s.counters[SPREAD] += 1


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
    if w >= 0:
        _count_if_spread(s, w, partition)
    if other >= 0:
        _count_if_spread(s, other, partition)
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
def _opens_window(s, rules, arrivals, i, partition):
    key, time = arrivals.session_keys[i], arrivals.times[i]
    if _is_late(s, rules, time, partition):
        return False
    return touching(s, rules, key, time, np.int64(-1)) < 0


@kernel(
    types.int64(WINDOWS, RULES, ARRIVALS, types.int64, types.int64, SEEN, types.u1[::1], TILES),
    fastmath=False,
)
def extend(s, rules, arrivals, partition, begin, seen, fates, tiles):
    """Let clicks arrive, one by one: advance the watermark, close what it passed, place the click.

    Parameters
    ----------
    s : Windows of arrays, written; room for one more window and click per arrival
    rules : Rules of int64
    arrivals : Arrivals of arrays (n,)
    partition : int64, in [0, n_partitions), whose clicks these are
    begin : int64, in [0, n], the first click to take
    seen : Seen of arrays (capacity,), written; empty only where no click has an event id
    fates : uint8 (n,), what became of each click: ACCEPTED or one of the others
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
    n_listed = list_partitions(s)
    for i in range(begin, arrivals.times.shape[0]):
        if is_seen(seen, arrivals.event_keys[i]):
            fates[i] = DUPLICATE
            continue
        if tiles.items.shape[0] - tiles.used[0] < 2:
            return i
        time = arrivals.times[i]
        is_stray = advance(s, rules, partition, time)
        if is_stray and time > s.partitions[partition, WATERMARK]:
            note(s, partition, time, is_stray)
            fates[i] = FUTURE
            continue
        if not close_passed(s, rules, partition, n_listed, tiles):
            return i
        # In a part of its own, what follows made the kernel a third slower (`make bench`).
        if arrivals.is_refused[i]:
            fates[i] = REFUSED
        else:
            opens = _opens_window(s, rules, arrivals, i, partition)
            if opens and not make_room(s, rules, tiles):
                return i
            if tiles.items.shape[0] - tiles.used[0] < 2:
                return i
            fates[i] = _arrive(s, rules, arrivals, i, partition, tiles)
        # Not that of a click from the future: put back with another time, it is to be trained.
        remember_event(seen, arrivals.event_keys[i])
        note(s, partition, time, is_stray)
    return arrivals.times.shape[0]
