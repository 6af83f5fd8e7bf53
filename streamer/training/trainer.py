"""Session tiles applied to the store: admission, negatives, learning rate."""

import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.scratch import scratch
from kernels.sgns import Learning
from kernels.tiles import Tiles
from kernels.vocabulary import Ids
from state.shard import MemorySettings
from state.store import Store
from streamer.settings.stream import Store as StoreSettings
from streamer.settings.stream import Training
from streamer.training.pairs import TrainedPairs


class Examiner(Protocol):
    """Looks at clicks before they are trained."""

    def picks(self, tiles: Tiles, partition_keys: NDArray[np.uint64]) -> Iterable[int]:
        """Yield the tiles to be examined, in order; each is before the next is asked for."""
        ...

    def examine(self, tiles: Tiles, t: int) -> None:
        """Look at tile `t`: all tiles before it have been trained."""
        ...

    def trained(self, tiles: Tiles) -> None:
        """Take note that all tiles have been trained."""
        ...


class Together:
    """Several examiners, each with tiles of its own."""

    def __init__(self, *examiners: Examiner) -> None:
        self._examiners = examiners
        self._next: Examiner | None = None

    def picks(self, tiles: Tiles, partition_keys: NDArray[np.uint64]) -> Iterator[int]:
        """Yield the tiles that any of them wants to look at, once for each."""
        picks = [one.picks(tiles, partition_keys) for one in self._examiners]
        tagged = [zip(some, itertools.repeat(at), strict=False) for at, some in enumerate(picks)]
        for t, at in heapq.merge(*tagged):
            self._next = self._examiners[at]
            yield t

    def examine(self, tiles: Tiles, t: int) -> None:
        """Let the one look at tile `t` that wants to."""
        assert self._next is not None
        self._next.examine(tiles, t)

    def trained(self, tiles: Tiles) -> None:
        """Tell all of them."""
        for one in self._examiners:
            one.trained(tiles)


def memory_settings(training: Training, store: StoreSettings) -> MemorySettings:
    """Return what is remembered beside vectors, as configured."""
    return MemorySettings(
        popularity_half_lives=training.popularity_half_lives,
        transition_half_life=training.transition_half_life,
        transitions_per_item=store.transitions_per_item,
        sessions_per_item=store.sessions_per_item,
        recent_sessions=store.recent_sessions,
        items_per_session=store.items_per_session,
    )


class Trainer:
    """Trains tiles in the order in which they come, on the thread that owns the store."""

    def __init__(
        self,
        settings: Training,
        store: Store,
        pairs: TrainedPairs,
        examiner: Examiner | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._pairs = pairs
        self.examiner = examiner or Together()
        self._scratch = scratch(settings.dim, settings.window, settings.negatives, settings.passes)

    def admit(self, ids: Ids) -> None:
        """Give a row to every item that has none; they are known to have room and no collision."""
        rows = self._store.admit(ids)
        assert (rows >= 0).all(), "an item without a row was accepted"

    def train(self, tiles: Tiles, partition_keys: NDArray[np.uint64]) -> int:
        """Train tiles whose items have rows; return the pairs trained."""
        settings = self._settings
        learning = Learning(
            seed=np.uint64(settings.seed),
            learning_rate=np.float32(settings.learning_rate),
            epsilon=np.float32(settings.epsilon),
            dim=settings.dim,
            negatives=settings.negatives,
            passes=settings.passes,
            half_lives=self._store.settings.memory.half_lives,
            partition_keys=partition_keys,
        )
        n_tiles = int(tiles.used[0])
        pairs = self._pairs.with_room(n_tiles)
        n_pairs, begin = 0, 0
        for t in self.examiner.picks(tiles, partition_keys):
            span = range(begin, t)
            n_pairs += self._store.train(tiles, span, pairs, learning, self._scratch)
            self.examiner.examine(tiles, t)
            begin = t
        rest = range(begin, n_tiles)
        n_pairs += self._store.train(tiles, rest, pairs, learning, self._scratch)
        self.examiner.trained(tiles)
        return n_pairs
