"""Which clicks are ranked before they are trained: a function of the click alone."""

import numpy as np
from numba import types

from kernels.policy import kernel
from kernels.rng import mix, stream
from kernels.tiles import TILES
from kernels.windows import I8, U8

_RANKED = np.uint64(0x52414E4B)  # draws of their own, beside those of training


@kernel(
    types.int64(TILES, types.uint64, U8, types.uint64, types.uint64, I8, types.uint64[::1]),
    fastmath=False,
)
def pick(tiles, seed, partition_keys, low, high, picked, draws):
    """Find the tiles that can be ranked, and whose draw is in [low, high).

    Parameters
    ----------
    tiles : Tiles of arrays (capacity,), of which `used` are looked at
    seed : uint64
    partition_keys : uint64 (n_partitions,), what draws are keyed by
    low, high : uint64
    picked : int64 (used,), overwritten: where they are
    draws : uint64 (used,), overwritten: what they have drawn

    Returns
    -------
    int64, how many there are

    Notes
    -----
    A click can be ranked if its session holds another item before it, and if none of these within
    the window is its own.
    """
    n = 0
    for t in range(tiles.used[0]):
        if tiles.n_before[t] == 0 or tiles.n_own[t] > 0:
            continue
        key = partition_keys[tiles.partitions[t]]
        draw = mix(stream(seed ^ _RANKED, key, np.uint64(tiles.offsets[t])))
        if low <= draw < high:
            picked[n] = t
            draws[n] = draw
            n += 1
    return n
