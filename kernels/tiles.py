"""Tiles: a click and its neighbours in its window, written down to be trained at once."""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.policy import part
from kernels.windows import AFTER, BEFORE, F4, FROM, I8, NUMBER, OFFSET, TIME, U8, U8_2D


class Tiles(NamedTuple):
    """One row each, in the order in which they are trained."""

    items: np.ndarray  # uint64 (capacity,), the click's item key
    sessions: np.ndarray  # uint64 (capacity,), the key of the click's window
    numbers: np.ndarray  # int64 (capacity,), of the session that the window is
    neighbours: np.ndarray  # uint64 (capacity, 2 * window), item keys, see `n_before`
    n_before: np.ndarray  # int64 (capacity,), first come those before the click, the nearest first
    n_neighbours: np.ndarray  # int64 (capacity,), then those after it, the nearest first
    n_own: np.ndarray  # int64 (capacity,), places before the click that hold its own item
    weights: np.ndarray  # float32 (capacity,)
    partitions: np.ndarray  # int64 (capacity,)
    offsets: np.ndarray  # int64 (capacity,)
    times: np.ndarray  # int64 (capacity,), milliseconds
    used: np.ndarray  # int64 (1,), rows in use


TILES = types.NamedTuple((U8, U8, I8, U8_2D, I8, I8, I8, F4, I8, I8, I8, I8), Tiles)


def empty_tiles(capacity: int, window: int) -> Tiles:
    """Allocate room for tiles of at most 2 * `window` neighbours."""
    numbers, n_before, n_neighbours, n_own, partitions, offsets, times = np.zeros(
        (7, capacity), np.int64
    )
    return Tiles(
        items=np.zeros(capacity, np.uint64),
        sessions=np.zeros(capacity, np.uint64),
        numbers=numbers,
        neighbours=np.zeros((capacity, 2 * window), np.uint64),
        n_before=n_before,
        n_neighbours=n_neighbours,
        n_own=n_own,
        weights=np.zeros(capacity, np.float32),
        partitions=partitions,
        offsets=offsets,
        times=times,
        used=np.zeros(1, np.int64),
    )


@part
def _begin_tile(s, tiles, w, item, weight):
    """Append a tile of window `w` that has no neighbours yet; return where it is."""
    t = tiles.used[0]
    tiles.items[t] = item
    tiles.sessions[t] = s.keys[w]
    tiles.numbers[t] = s.windows[w, NUMBER]
    tiles.n_before[t] = 0
    tiles.n_neighbours[t] = 0
    tiles.n_own[t] = 0
    tiles.weights[t] = weight
    tiles.used[0] += 1
    return t


@part
def begin_tile_of_arrival(s, tiles, w, arrivals, i, partition):
    """Append the tile of an arrival that has no position in its window `w`."""
    t = _begin_tile(s, tiles, w, arrivals.item_keys[i], arrivals.weights[i])
    tiles.partitions[t] = partition
    tiles.offsets[t] = arrivals.offsets[i]
    tiles.times[t] = arrivals.times[i]


@part
def _add_neighbours(s, tiles, c, column, window):
    """Add to the last tile what lies up to `window` places from `c`; return how often it is `c`."""
    t = tiles.used[0] - 1
    at, n_own = s.clicks[c, column], 0
    for _ in range(window):
        if at < 0:
            break
        if s.items[at] != tiles.items[t]:
            tiles.neighbours[t, tiles.n_neighbours[t]] = s.items[at]
            tiles.n_neighbours[t] += 1
        else:
            n_own += 1
        at = s.clicks[at, column]
    return n_own


@part
def add_before(s, tiles, c, window):
    """Add to the last tile, of click `c`, up to `window` clicks before it; never its own item."""
    t = tiles.used[0] - 1
    tiles.n_own[t] = _add_neighbours(s, tiles, c, BEFORE, window)
    tiles.n_before[t] = tiles.n_neighbours[t]


@part
def add_after(s, tiles, c, window):
    """Add to the last tile, behind those before it, up to `window` clicks after `c`."""
    _add_neighbours(s, tiles, c, AFTER, window)


@part
def begin_tile_of(s, tiles, w, c):
    """Append the tile of click `c`, which has a position in window `w`."""
    t = _begin_tile(s, tiles, w, s.items[c], s.weights[c])
    tiles.partitions[t] = s.clicks[c, FROM]
    tiles.offsets[t] = s.clicks[c, OFFSET]
    tiles.times[t] = s.clicks[c, TIME]
