"""Session tiles applied to the store: admission, negatives, learning rate."""

import numpy as np
from numpy.typing import NDArray

from kernels.sgns import Learning, Scratch
from kernels.tiles import Tiles
from kernels.vocabulary import COLLISION, Ids
from state.errors import StateError
from state.store import Store
from streamer.config import Training


class Trainer:
    """Trains tiles in the order in which they come, on the thread that owns the store."""

    def __init__(self, settings: Training, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._scratch = _scratch(settings)

    def admit(self, ids: Ids) -> None:
        """Give a row to every item that has none.

        Raises `StateError` if two new ids of one batch have one hash: about once in 2^64 pairs.
        """
        if (self._store.admit(ids) == COLLISION).any():
            msg = "two new item ids have the same 64-bit hash; filter one of them at the source"
            raise StateError(msg)

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
        return self._store.train(tiles, learning, self._scratch)


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
