"""The adaptive noise table: add, draw.

Every click enters a table of recent clicks, once full in place of a random entry; a uniform draw
from it follows what is clicked now (exponent 1 of the unigram distribution, with decay).
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.policy import part
from kernels.rng import below, number
from kernels.windows import I8


class Noise(NamedTuple):
    """The noise table; entries from `filled` on have never been written."""

    entries: np.ndarray  # int64 (size,), rows
    filled: np.ndarray  # int64 (1,)


NOISE = types.NamedUniTuple(I8, 2, Noise)


@part
def add_noise(noise, row, draw):
    """Enter a row, in place of the entry that `draw` names once the table is full."""
    size = noise.entries.shape[0]
    if noise.filled[0] < size:
        noise.entries[noise.filled[0]] = row
        noise.filled[0] += 1
    else:
        noise.entries[below(draw, size)] = row


@part
def draw_noise(noise, start, counter, out, n):
    """Write `n` rows drawn with the numbers `counter`, `counter` + 1, ... of a click's stream."""
    for k in range(n):
        draw = number(start, np.uint64(counter + k))
        out[k] = noise.entries[below(draw, noise.filled[0])]
