"""One contiguous block of rows with one owner; the only code that writes rows.

The blocks lie one behind the other in arrays that are allocated once and touched lazily, so that
memory is bounded by configuration.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import memory, sgns
from kernels import rows as row_kernels
from kernels.negatives import Noise
from kernels.pairs import Pairs
from kernels.scratch import Scratch, padded
from kernels.tiles import Tiles
from state.sections import Section

# E ~ U(+-32/d), which is +-.5 at d = 64: on news clicks, narrower starts learned more slowly.
INITIAL_WIDTH = 32.0


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How much is remembered beside vectors, and for how many accepted clicks."""

    popularity_half_lives: tuple[float, float]
    transition_half_life: float
    transitions_per_item: int
    sessions_per_item: int
    recent_sessions: int
    items_per_session: int

    @property
    def half_lives(self) -> memory.HalfLives:
        """The half-lives as kernels take them."""
        popularity = np.array(self.popularity_half_lives, np.float64)
        return memory.HalfLives(popularity, self.transition_half_life)


def allocate(
    n_rows: int,
    dim: int,
    settings: MemorySettings,
    table_keys: NDArray[np.uint64],
    table_slots: NDArray[np.int64],
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
        memory=new_memory(n_rows, settings),
        accepted=np.zeros(1, np.int64),
    )


def new_memory(n_rows: int, settings: MemorySettings) -> memory.Memory:
    """Allocate memories, untouched; `forget` makes rows ready, sessions are."""
    places = settings.recent_sessions
    return memory.Memory(
        popularity=np.zeros((n_rows, len(settings.popularity_half_lives)), np.float64),
        followers=np.zeros((n_rows, settings.transitions_per_item), np.int32),
        follower_weights=np.zeros((n_rows, settings.transitions_per_item), np.float32),
        follower_times=np.zeros(n_rows, np.int64),
        held_by=np.zeros((n_rows, settings.sessions_per_item), np.int64),
        n_held_by=np.zeros(n_rows, np.int64),
        session_numbers=np.zeros(places, np.int64),
        session_items=np.zeros((places, settings.items_per_session), np.int32),
        session_sizes=np.zeros(places, np.int64),
    )


def forget(remembered: memory.Memory, places: NDArray[np.int64]) -> None:
    """Let nothing be remembered of the items in some rows."""
    remembered.popularity[places] = -np.inf
    remembered.followers[places] = memory.NOBODY
    remembered.follower_weights[places] = 0.0
    remembered.follower_times[places] = 0
    remembered.held_by[places] = memory.NO_SESSION
    remembered.n_held_by[places] = 0


def initialise(
    rows: sgns.Rows, dim: int, places: NDArray[np.int64], keys: NDArray[np.uint64], seed: int
) -> None:
    """Give rows the values of a newborn item: a function of (seed, key) alone."""
    _reset_vectors(rows, dim, places, keys, seed)
    rows.clicks[places] = 0
    forget(rows.memory, places)


def _reset_vectors(
    rows: sgns.Rows, dim: int, places: NDArray[np.int64], keys: NDArray[np.uint64], seed: int
) -> None:
    half_width = np.float32(INITIAL_WIDTH / dim)
    row_kernels.initialise(rows.inputs, dim, places, keys, np.uint64(seed), half_width)
    rows.outputs[places] = 0.0
    rows.input_accumulators[places] = 0.0
    rows.output_accumulators[places] = 0.0


def train(  # noqa: PLR0913, PLR0917 - what is written, what is read, and room to work in
    rows: sgns.Rows,
    noise: Noise,
    pairs: Pairs,
    tiles: Tiles,
    span: range,
    learning: sgns.Learning,
    scratch: Scratch,
) -> int:
    """Train the tiles of `span`, whose items all have rows; count and return the pairs trained."""
    kernel = sgns.train_tiles(learning.dim)
    return int(kernel(tiles, span.start, span.stop, rows, noise, pairs, learning, scratch))


SESSIONS = ("session_numbers", "session_items", "session_sizes")


def copy_sessions(rows: sgns.Rows) -> Section:
    """Return copies of the recent sessions, in the order of their places in the ring."""
    n_places = rows.memory.session_numbers.shape[0]
    used = min(n_places, int(rows.memory.session_numbers.max(initial=0)) + 1)
    return Section({name: getattr(rows.memory, name)[:used].copy() for name in SESSIONS})


def restore_sessions(rows: sgns.Rows, section: Section) -> None:
    """Invert `copy_sessions`."""
    for name in SESSIONS:
        values = section.arrays[name]
        getattr(rows.memory, name)[: len(values)] = values


class Shard:
    """The rows from `begin` on, of which the first `size` are in use."""

    VECTORS = ("inputs", "outputs")
    LEARNED = (*VECTORS, "input_accumulators", "output_accumulators", "clicks")
    REMEMBERED = (
        "popularity", "followers", "follower_weights", "follower_times", "held_by", "n_held_by",
    )  # fmt: skip

    def __init__(self, rows: sgns.Rows, dim: int, begin: int) -> None:
        self._rows = rows
        self._dim = dim
        self.begin = begin

    def copy(self, size: int) -> dict[str, NDArray[np.generic]]:
        """Return copies of the rows in use, which later training cannot touch."""
        return {name: part.copy() for name, part in self._parts(size)}

    def restore(self, section: Section) -> None:
        """Invert `copy`."""
        for name, part in self._parts(len(section.arrays["clicks"])):
            part[:] = section.arrays[name]

    def reset_non_finite(self, size: int, keys: NDArray[np.uint64], seed: int) -> int:
        """Reset vectors that hold nan or infinity to a newborn's; return how many there were.

        What was counted and is remembered of their items is still true.
        """
        rows = self._rows
        found = np.empty(size, np.int64)
        end = self.begin + size
        n = row_kernels.find_non_finite(rows.inputs, rows.outputs, self.begin, end, found)
        bad = found[:n]
        if n:
            _reset_vectors(rows, self._dim, bad, keys[bad], seed)
        return int(n)

    def _parts(self, size: int) -> Iterator[tuple[str, NDArray[np.generic]]]:
        """Yield views of the first rows of each array, without the columns that pad a vector."""
        here = slice(self.begin, self.begin + size)
        for name in self.LEARNED:
            rows = getattr(self._rows, name)[here]
            yield name, rows[:, : self._dim] if name in self.VECTORS else rows
        for name in self.REMEMBERED:
            yield name, getattr(self._rows.memory, name)[here]
