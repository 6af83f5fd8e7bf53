"""Trained pairs, counted and hash-summed: by partition, and for an audit by session.

The sum of a multiset of pairs is that of their hashes modulo 2^64. It does not depend on their
order, and a pair that is lost, doubled or turned round changes it.

    hash(input, output) = mix(0x9E3779B97F4A7C15 * input + output)   modulo 2^64

`input` and `output` are item keys, XXH64 of the items' ids under seed 0; `mix` is the finaliser of
SplitMix64 (`kernels/rng.py`). A tile of the click x with the neighbours y_1..y_m is 2m pairs:
(x, y_j) and (y_j, x) for each j, neighbours that are equal each for themselves. They belong to the
partition of the tile's click, and to the session of its window.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.policy import part
from kernels.rng import GOLDEN, mix
from kernels.table import find, insert
from kernels.windows import I8, U8


class Pairs(NamedTuple):
    """What has been trained; owned and grown by `streamer.training.pairs`.

    Without an audit the arrays of sessions are empty.
    """

    counts: np.ndarray  # int64 (n_partitions,)
    sums: np.ndarray  # uint64 (n_partitions,)
    table_keys: np.ndarray  # uint64 (2^k,), session key ...
    table_slots: np.ndarray  # int64 (2^k,), ... -> its place in the arrays of sessions
    sessions: np.ndarray  # uint64 (n_sessions,), session keys
    session_counts: np.ndarray  # int64 (n_sessions,)
    session_sums: np.ndarray  # uint64 (n_sessions,)
    used: np.ndarray  # int64 (1,), sessions so far


PAIRS = types.NamedTuple((I8, U8, U8, I8, U8, I8, U8, I8), Pairs)


@part
def both_ways(x, y):
    """Return hash(x, y) + hash(y, x) of two item keys."""
    return mix(GOLDEN * x + y) + mix(GOLDEN * y + x)


@part
def add_pairs(pairs, tiles, t, n, hashed):
    """Count the `n` pairs of tile `t`, which are `hashed` together."""
    pairs.counts[tiles.partitions[t]] += n
    pairs.sums[tiles.partitions[t]] += hashed
    if pairs.sessions.shape[0] > 0:
        _add_to_session(pairs, tiles.sessions[t], n, hashed)


@part
def _add_to_session(pairs, session, n, hashed):
    at = find(pairs.table_keys, pairs.table_slots, session)
    if at < 0:
        at = pairs.used[0]
        pairs.used[0] += 1
        pairs.sessions[at] = session
        insert(pairs.table_keys, pairs.table_slots, session, at)
    pairs.session_counts[at] += n
    pairs.session_sums[at] += hashed
