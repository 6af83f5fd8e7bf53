"""Initialise rows, and find those that are no longer numbers."""

import numpy as np

from kernels.policy import kernel
from kernels.rng import number, stream, unit


@kernel("void(f4[:, ::1], i8, i8[::1], u8[::1], u8, f4)")
def initialise(vectors, dim, rows, keys, seed, half_width):
    """Give rows their first values: uniform in [-half_width, half_width).

    Parameters
    ----------
    vectors : float32 (n_rows, at least dim), written at `rows`
    dim : int64, values of a row; those behind them are left
    rows : int64 (n,), in [0, n_rows)
    keys : uint64 (n,), the items' keys: a row's values are a function of (seed, key)
    seed : uint64
    half_width : float32, > 0
    """
    for i in range(rows.shape[0]):
        start = stream(seed, keys[i], np.uint64(0))
        for d in range(dim):
            draw = unit(number(start, np.uint64(d)))
            vectors[rows[i], d] = (np.float32(2.0) * draw - np.float32(1.0)) * half_width


@kernel("i8(f4[:, ::1], f4[:, ::1], i8, i8, i8[::1])", fastmath=False)
def find_non_finite(inputs, outputs, begin, end, out):
    """Find the rows that hold a value which is not finite.

    Parameters
    ----------
    inputs : float32 (n_rows, dim)
    outputs : float32 (n_rows, dim)
    begin : int64, the first row to look at
    end : int64, the row behind the last
    out : int64 (end - begin,), overwritten with the rows found

    Returns
    -------
    int64, how many were found
    """
    found = 0
    for row in range(begin, end):
        # Counted to the end: a loop that may stop early is not vectorised.
        bad = 0
        for d in range(inputs.shape[1]):
            bad += (not np.isfinite(inputs[row, d])) + (not np.isfinite(outputs[row, d]))
        if bad > 0:
            out[found] = row
            found += 1
    return found
