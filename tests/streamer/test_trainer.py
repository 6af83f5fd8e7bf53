"""The trainer gives items rows and trains their tiles by the settings."""

import numpy as np
import pytest

from kernels.tiles import empty_tiles
from kernels.vocabulary import Ids
from state.offsets import Partition
from state.sections import Section
from state.store import Store, StoreSettings
from streamer.settings.stream import Store as Bounds
from streamer.settings.stream import Training
from streamer.training.pairs import TrainedPairs
from streamer.training.trainer import Trainer, memory_settings
from streamer.windows.watermark import Watermarks
from tests import oracles

PARTITION_KEYS = np.array([3, 4], np.uint64)
SETTINGS = Training(dim=8, window=2, negatives=3, passes=1, noise_table_size=4)
MEMORY = memory_settings(SETTINGS, Bounds(recent_sessions=16))


def new_store():
    return Store(StoreSettings(8, 20, 1, 1, 4, MEMORY), {}, "s")


def no_pairs():
    watermarks = Watermarks(Section())
    for number in (0, 1):
        watermarks.index_of(Partition("clicks", number))
    return TrainedPairs(watermarks, Section(), is_audited=False)


def ids(*pairs):
    lengths = np.array([len(one) for _, one in pairs], np.int64)
    data = np.frombuffer(bytearray(b"".join(one for _, one in pairs)), np.uint8)
    keys = np.array([key for key, _ in pairs], np.uint64)
    return Ids(keys, np.cumsum(lengths) - lengths, lengths, data)


def tile(item, neighbours=(), weight=1.0, partition=0, offset=0):
    one = empty_tiles(1, SETTINGS.window)
    one.items[0], one.sessions[0], one.numbers[0] = item, 77, 1
    one.neighbours[0, : len(neighbours)] = neighbours
    one.n_before[0] = one.n_neighbours[0] = len(neighbours)
    one.weights[0], one.partitions[0], one.offsets[0] = weight, partition, offset
    one.used[0] = 1
    return one


def trained(settings=SETTINGS, **where):
    """Return the store of two items after a click on the first beside the second."""
    store = new_store()
    summed = no_pairs()
    trainer = Trainer(settings, store, summed)
    trainer.admit(ids((10, b"a"), (20, b"b")))
    pairs = trainer.train(tile(10, [20], **where), PARTITION_KEYS)
    assert pairs == 2
    assert sum(count for *_, count, _ in summed.by_partition()) == 2
    return store


def test_a_tile_is_trained_as_the_oracle_does():
    settings = SETTINGS.model_copy(update={"learning_rate": 0.7, "epsilon": 1e-3})
    before = new_store()
    before.admit(ids((10, b"a"), (20, b"b")))
    rows = before._rows
    model = oracles.Model(
        *(
            np.asarray(one, np.float64)
            for one in (
                rows.inputs[:, : SETTINGS.dim],
                rows.outputs[:, : SETTINGS.dim],
                rows.input_accumulators,
                rows.output_accumulators,
            )
        )
    )

    found = trained(settings, weight=2.0)

    # The only noise is the click itself, which is left out for itself and is b's target.
    oracles.tile_update(model, oracles.labelled_pairs(0, [1], [0, 0, 0]), 2.0, 0.7, 1e-3)
    np.testing.assert_allclose(
        found._rows.inputs[:, : SETTINGS.dim], model.inputs, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        found._rows.outputs[:, : SETTINGS.dim], model.outputs, rtol=1e-5, atol=1e-7
    )
    assert found.accepted == 1


def test_more_passes_move_rows_further():
    once, twice = trained(), trained(SETTINGS.model_copy(update={"passes": 2}))
    assert not np.array_equal(once._rows.inputs, twice._rows.inputs)
    assert once.accepted == twice.accepted == 1


def test_an_item_is_admitted_once():
    store = new_store()
    trainer = Trainer(SETTINGS, store, no_pairs())
    trainer.admit(ids((10, b"a"), (20, b"b"), (10, b"a")))
    trainer.admit(ids((10, b"a")))
    assert len(store) == 2


def test_a_collision_that_was_not_filtered_stops_the_stream():
    store = new_store()
    with pytest.raises(AssertionError, match="without a row"):
        Trainer(SETTINGS, store, no_pairs()).admit(ids((10, b"a"), (10, b"b")))


def test_nothing_to_admit_is_nothing_done():
    store = new_store()
    Trainer(SETTINGS, store, no_pairs()).admit(ids())
    assert len(store) == 0
