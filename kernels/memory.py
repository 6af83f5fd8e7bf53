"""What is remembered beside vectors: forward-decayed popularity; add, read.

Forward decay (Cormode et al., Forward decay: a practical time decay model for streaming systems,
ICDE 2009): a click at time t weighs 2^(t / half_life) against a fixed landmark, so that decay
shifts all items alike and nothing needs touching. Sums are kept as log2, so that they never
overflow. Time is the number of the space's accepted clicks.
"""

import math

from kernels.policy import kernel, part


@part
def add_log2(total, term):
    """Return log2(2^total + 2^term); float64, total may be -inf."""
    if term > total:
        total, term = term, total
    return total + math.log2(1.0 + 2.0 ** (term - total))


@part
def remember(popularity, row, weight_log2, accepted, half_lives):
    """Count a click of weight 2^`weight_log2`, the `accepted`-th, for an item."""
    for h in range(half_lives.shape[0]):
        popularity[row, h] = add_log2(popularity[row, h], weight_log2 + accepted / half_lives[h])


@kernel("void(f8[:, ::1], i8, f8[::1], f4[:, ::1])")
def read_popularity(popularity, accepted, half_lives, out):
    """Read decayed counts of clicks as they stand now.

    Parameters
    ----------
    popularity : float64 (n_rows, n_half_lives), log2 against the landmark; -inf is never
    accepted : int64, the space's accepted clicks so far
    half_lives : float64 (n_half_lives,), in accepted clicks, > 0
    out : float32 (n_rows, n_half_lives), overwritten; a click just now counts 1
    """
    for row in range(popularity.shape[0]):
        for h in range(half_lives.shape[0]):
            out[row, h] = 2.0 ** (popularity[row, h] - accepted / half_lives[h])
