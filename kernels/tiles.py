"""Tiles: a click and its neighbours in its window, written down to be trained at once."""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.policy import part
from kernels.windows import F4, FROM, I8, OFFSET, U8, U8_2D


class Tiles(NamedTuple):
    """One row each, in the order in which they are trained."""

    items: np.ndarray  # uint64 (capacity,), the click's item key
    sessions: np.ndarray  # uint64 (capacity,), the key of the click's window
    neighbours: np.ndarray  # uint64 (capacity, 2 * window), item keys, the nearest first
    n_neighbours: np.ndarray  # int64 (capacity,)
    weights: np.ndarray  # float32 (capacity,)
    partitions: np.ndarray  # int64 (capacity,)
    offsets: np.ndarray  # int64 (capacity,)
    used: np.ndarray  # int64 (1,), rows in use


TILES = types.NamedTuple((U8, U8, U8_2D, I8, F4, I8, I8, I8), Tiles)


@part
def begin_tile(tiles, session, item, weight, partition, offset):
    """Append a tile that has no neighbours yet."""
    t = tiles.used[0]
    tiles.items[t] = item
    tiles.sessions[t] = session
    tiles.n_neighbours[t] = 0
    tiles.weights[t] = weight
    tiles.partitions[t] = partition
    tiles.offsets[t] = offset
    tiles.used[0] += 1


@part
def add_neighbours(s, tiles, c, column, window):
    """Add to the last tile up to `window` clicks before or after `c`; never the item itself."""
    t = tiles.used[0] - 1
    at = s.clicks[c, column]
    for _ in range(window):
        if at < 0:
            break
        if s.items[at] != tiles.items[t]:
            tiles.neighbours[t, tiles.n_neighbours[t]] = s.items[at]
            tiles.n_neighbours[t] += 1
        at = s.clicks[at, column]


@part
def begin_tile_of(s, tiles, w, c):
    """Append the tile of click `c`, which has a position in window `w`."""
    begin_tile(tiles, s.keys[w], s.items[c], s.weights[c], s.clicks[c, FROM], s.clicks[c, OFFSET])
