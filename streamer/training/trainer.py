"""Session tiles applied to the store: admission, negatives, learning rate."""

import numpy as np
from numpy.typing import NDArray

from kernels.scratch import scratch
from kernels.sgns import Learning
from kernels.tiles import Tiles
from kernels.vocabulary import Ids
from state.store import Store
from streamer.settings.stream import Training
from streamer.training.pairs import TrainedPairs


class Trainer:
    """Trains tiles in the order in which they come, on the thread that owns the store."""

    def __init__(self, settings: Training, store: Store, pairs: TrainedPairs) -> None:
        self._settings = settings
        self._store = store
        self._pairs = pairs
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
            half_lives=np.array(settings.popularity_half_lives, np.float64),
            partition_keys=partition_keys,
        )
        pairs = self._pairs.with_room(int(tiles.used[0]))
        return self._store.train(tiles, pairs, learning, self._scratch)
