"""Counter-based random numbers keyed by (seed, partition, offset), the same for a replay.

SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014): the
k-th number of a stream is mix(start + k * GOLDEN), so it needs no state but a counter.
"""

import numpy as np

from kernels.policy import part

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S40 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(40)
_S32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@part
def mix(z):
    """Return the SplitMix64 finaliser of uint64 `z`: a bijection in which every bit matters."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@part
def stream(seed, partition_key, offset):
    """Return the start of the numbers that belong to one click: uint64 of three uint64."""
    return mix(mix(seed + GOLDEN) + mix(partition_key ^ GOLDEN) * _M1 + offset * _M2)


@part
def number(start, counter):
    """Return the `counter`-th (uint64, from 0) number of the stream that begins at `start`."""
    return mix(start + (counter + np.uint64(1)) * GOLDEN)


@part
def below(draw, bound):
    """Map a uint64 draw to an int64 in [0, bound), bound < 2^31.

    The high 32 bits are scaled; for bounds of 2^18 the bias is below 2^-14 of a share.
    """
    return np.int64(((draw >> _S32) * np.uint64(bound)) >> _S32)


@part
def unit(draw):
    """Map a uint64 draw to a float32 in [0, 1)."""
    return np.float32(np.float64(draw >> _S40) * 5.9604644775390625e-08)
