"""Session tiles applied to the store: admission, negatives, learning rate."""

import numpy as np
from numpy.typing import NDArray

from kernels.sgns import Learning, Scratch
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
        self._scratch = _scratch(settings)

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
            negatives=settings.negatives,
            passes=settings.passes,
            half_lives=np.array(settings.popularity_half_lives, np.float64),
            partition_keys=partition_keys,
        )
        pairs = self._pairs.with_room(int(tiles.used[0]))
        return self._store.train(tiles, pairs, learning, self._scratch)


def _scratch(settings: Training) -> Scratch:
    n_slots = 1 + 2 * settings.window + settings.negatives
    return Scratch(
        rows=np.zeros(n_slots, np.int64),
        counts=np.zeros(n_slots, np.float32),
        noise_counts=np.zeros(n_slots, np.float32),
        drawn=np.zeros(settings.negatives, np.int64),
        inputs=np.zeros((n_slots, settings.dim), np.float32),
        outputs=np.zeros((n_slots, settings.dim), np.float32),
        input_gradients=np.zeros((n_slots, settings.dim), np.float32),
        output_gradients=np.zeros((n_slots, settings.dim), np.float32),
    )
