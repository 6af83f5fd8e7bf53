"""One contiguous block of rows with one owner; the only code that writes rows.

The blocks lie one behind the other in arrays that are allocated once and touched lazily, so that
memory is bounded by configuration.
"""

import numpy as np
from numpy.typing import NDArray

from kernels import rows as row_kernels
from kernels import sgns
from kernels.negatives import Noise
from kernels.pairs import Pairs
from kernels.scratch import Scratch, padded
from kernels.tiles import Tiles
from state.sections import Section

N_HALF_LIVES = 2
# E ~ U(+-32/d), which is +-.5 at d = 64: on news clicks, narrower starts learned more slowly.
INITIAL_WIDTH = 32.0


def allocate(
    n_rows: int, dim: int, table_keys: NDArray[np.uint64], table_slots: NDArray[np.int64]
) -> sgns.Rows:
    """Allocate rows for all shards; pages that no item uses are never touched."""
    return sgns.Rows(
        table_keys=table_keys,
        table_slots=table_slots,
        inputs=np.zeros((n_rows, padded(dim)), np.float32),
        outputs=np.zeros((n_rows, padded(dim)), np.float32),
        input_accumulators=np.zeros(n_rows, np.float32),
        output_accumulators=np.zeros(n_rows, np.float32),
        clicks=np.zeros(n_rows, np.int64),
        popularity=np.zeros((n_rows, N_HALF_LIVES), np.float64),
        accepted=np.zeros(1, np.int64),
    )


def initialise(
    rows: sgns.Rows, dim: int, places: NDArray[np.int64], keys: NDArray[np.uint64], seed: int
) -> None:
    """Give rows the values of a newborn item: a function of (seed, key) alone."""
    half_width = np.float32(INITIAL_WIDTH / dim)
    row_kernels.initialise(rows.inputs, dim, places, keys, np.uint64(seed), half_width)
    rows.outputs[places] = 0.0
    rows.input_accumulators[places] = 0.0
    rows.output_accumulators[places] = 0.0
    rows.clicks[places] = 0
    rows.popularity[places] = -np.inf


def train(  # noqa: PLR0913, PLR0917 - what is written, what is read, and room to work in
    rows: sgns.Rows,
    noise: Noise,
    pairs: Pairs,
    tiles: Tiles,
    learning: sgns.Learning,
    scratch: Scratch,
) -> int:
    """Train tiles whose items all have rows; count and return the pairs trained."""
    kernel = sgns.train_tiles(learning.dim)
    return int(kernel(tiles, rows, noise, pairs, learning, scratch))


class Shard:
    """The rows from `begin` on, of which the first `size` are in use."""

    VECTORS = ("inputs", "outputs")
    NAMES = (*VECTORS, "input_accumulators", "output_accumulators", "clicks", "popularity")

    def __init__(self, rows: sgns.Rows, dim: int, begin: int) -> None:
        self._rows = rows
        self._dim = dim
        self.begin = begin

    def copy(self, size: int) -> dict[str, NDArray[np.generic]]:
        """Return copies of the rows in use, which later training cannot touch."""
        return {name: self._part(name, size).copy() for name in self.NAMES}

    def restore(self, section: Section) -> None:
        """Invert `copy`."""
        for name in self.NAMES:
            values = section.arrays[name]
            self._part(name, len(values))[:] = values

    def reset_non_finite(self, size: int, keys: NDArray[np.uint64], seed: int) -> int:
        """Reset the rows that hold nan or infinity to a newborn's; return how many there were.

        Their clicks and popularity stay: what was counted is still true.
        """
        rows = self._rows
        found = np.empty(size, np.int64)
        end = self.begin + size
        n = row_kernels.find_non_finite(rows.inputs, rows.outputs, self.begin, end, found)
        bad = found[:n]
        if n:
            clicks, popularity = rows.clicks[bad], rows.popularity[bad]
            initialise(rows, self._dim, bad, keys[bad], seed)
            rows.clicks[bad], rows.popularity[bad] = clicks, popularity
        return int(n)

    def _part(self, name: str, size: int) -> NDArray[np.generic]:
        """Return a view of the first rows of an array, without the columns that pad a vector."""
        rows: NDArray[np.generic] = getattr(self._rows, name)[self.begin : self.begin + size]
        return rows[:, : self._dim] if name in self.VECTORS else rows
