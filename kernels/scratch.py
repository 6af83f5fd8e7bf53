"""Room for the tiles that are looked up ahead, and for the one that is trained."""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.windows import F4, I8

LANES = 16  # float32 values of a cache line; rows are padded to whole ones
IN_BLOCK = 2
OUT_BLOCK = 4
AHEAD = 8  # tiles that are looked up before the first of them is trained


class Ahead(NamedTuple):
    """Tiles that have been looked up, one in each row of the arrays."""

    inputs: np.ndarray  # int64 (AHEAD, 1 + 2 * window), rows of x and its distinct neighbours
    counts: np.ndarray  # float32 (AHEAD, 1 + 2 * window), how often each occurs
    n_inputs: np.ndarray  # int64 (AHEAD,), 1 where there is no neighbour
    neighbours: np.ndarray  # int64 (AHEAD, 2 * window), rows, as they stand in the tile
    negatives: np.ndarray  # int64 (AHEAD, passes * negatives), rows


class Scratch(NamedTuple):
    """Room for the tiles ahead and the one that is trained.

    Slots 0 of inputs and outputs are x. Behind it come the distinct neighbours among the inputs;
    among the outputs the distinct negatives, shared by all inputs, and then the neighbours that
    are none of these, for x alone. Vectors lie one behind the other, `padded(dim)` values each.
    """

    blocks: tuple[int, ...]  # as many as LANES values make a row: its length is compiled in
    ahead: Ahead
    same: np.ndarray  # int64 (n_inputs,), the output slot of the same row, or -1
    output_rows: np.ndarray  # int64 (n_outputs,)
    positives: np.ndarray  # float32 (n_outputs,), how often it is a target of x
    negatives: np.ndarray  # float32 (n_outputs,), how often it was drawn
    scores: np.ndarray  # float32 (n_inputs * n_outputs,), then what the gradients are made of
    rates: np.ndarray  # float32 (n_outputs,), of the rows that are moved
    inputs: np.ndarray  # float32 (n_inputs * padded dim,)
    outputs: np.ndarray  # float32 (n_outputs * padded dim,)
    input_gradients: np.ndarray  # float32 (n_inputs * padded dim,)
    output_gradients: np.ndarray  # float32 (n_outputs * padded dim,)


_F4_2D, _I8_2D = types.float32[:, ::1], types.int64[:, ::1]
_AHEAD = types.NamedTuple((_I8_2D, _F4_2D, I8, _I8_2D, _I8_2D), Ahead)


def padded(dim: int) -> int:
    """Return the number of columns that a row of `dim` values has in memory.

    >>> padded(64), padded(100)
    (64, 112)
    """
    return -(-dim // LANES) * LANES


def scratch(dim: int, window: int, negatives: int, passes: int) -> Scratch:
    """Allocate room for tiles of at most 2 * `window` neighbours."""
    columns, most = padded(dim), 1 + 2 * window
    n_inputs = -(-most // IN_BLOCK) * IN_BLOCK
    n_outputs = -(-(most + negatives) // OUT_BLOCK) * OUT_BLOCK
    return Scratch(
        blocks=(0,) * (columns // LANES),
        ahead=Ahead(
            inputs=np.zeros((AHEAD, most), np.int64),
            counts=np.zeros((AHEAD, most), np.float32),
            n_inputs=np.zeros(AHEAD, np.int64),
            neighbours=np.zeros((AHEAD, 2 * window), np.int64),
            negatives=np.zeros((AHEAD, passes * negatives), np.int64),
        ),
        same=np.zeros(n_inputs, np.int64),
        output_rows=np.zeros(n_outputs, np.int64),
        positives=np.zeros(n_outputs, np.float32),
        negatives=np.zeros(n_outputs, np.float32),
        scores=np.zeros(n_inputs * n_outputs, np.float32),
        rates=np.zeros(max(n_inputs, n_outputs), np.float32),
        inputs=np.zeros(n_inputs * columns, np.float32),
        outputs=np.zeros(n_outputs * columns, np.float32),
        input_gradients=np.zeros(n_inputs * columns, np.float32),
        output_gradients=np.zeros(n_outputs * columns, np.float32),
    )


def scratch_type(columns: int) -> types.Type:
    """Return the type of a scratch for rows of so many columns."""
    blocks = types.UniTuple(types.int64, columns // LANES)
    return types.NamedTuple((blocks, _AHEAD, I8, I8, *(F4,) * 8), Scratch)
