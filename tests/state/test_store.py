"""A store goes on as if it had never been put away, and does not know how it is cut."""

import dataclasses

import numpy as np
import pytest

from kernels.pairs import Pairs
from kernels.scratch import scratch
from kernels.sgns import Learning
from kernels.tiles import empty_tiles
from kernels.vocabulary import Ids
from state.errors import ForeignCheckpoint
from state.shard import MemorySettings
from state.store import Store, StoreSettings
from tests.state.stored import by_id
from tests.state.test_vocabulary import ids, names

SETTINGS = StoreSettings(
    dim=8,
    max_items=200,
    n_shards=4,
    seed=3,
    noise_table_size=64,
    memory=MemorySettings((30.0, 500.0), 100.0, 5, 6, 40, 4),
)
N_ITEMS, WINDOW, NEGATIVES = 60, 3, 4
ALL = ids(*names(N_ITEMS))
LEARNING = Learning(
    seed=np.uint64(1),
    learning_rate=np.float32(0.2),
    epsilon=np.float32(1e-8),
    dim=SETTINGS.dim,
    negatives=NEGATIVES,
    passes=2,
    half_lives=SETTINGS.memory.half_lives,
    partition_keys=np.array([5], np.uint64),
)
SCRATCH = scratch(SETTINGS.dim, WINDOW, NEGATIVES, LEARNING.passes)


def new_store(**settings):
    return Store(dataclasses.replace(SETTINGS, **settings), {}, "space")


def restored(store, **settings):
    return Store(dataclasses.replace(store.settings, **settings), store.snapshot(), "other")


def train(store, begin, end):
    """Admit and train the clicks `begin` to `end` of one long random stream."""
    rng = np.random.default_rng(9)
    items = rng.integers(0, N_ITEMS, (1000, 1 + WINDOW))
    for offset in range(begin, end):
        x, *neighbours = items[offset].tolist()
        neighbours = [one for one in neighbours if one != x]
        wanted = np.array([x, *neighbours])
        store.admit(Ids(ALL.keys[wanted], ALL.starts[wanted], ALL.lengths[wanted], ALL.data))
        tile = empty_tiles(1, WINDOW)
        tile.items[0], tile.numbers[0] = ALL.keys[x], 1 + offset // 3
        tile.neighbours[0, : len(neighbours)] = ALL.keys[neighbours]
        tile.n_before[0] = tile.n_neighbours[0] = len(neighbours)
        tile.weights[0], tile.offsets[0], tile.used[0] = 1.0, offset, 1
        store.train(tile, range(1), new_pairs(), LEARNING, SCRATCH)


def new_pairs():
    table = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    sessions = np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint64)
    n_used = np.zeros(1, np.int64)
    return Pairs(np.zeros(1, np.int64), np.zeros(1, np.uint64), *table, *sessions, n_used)


def assert_equal_sections(found, truth):
    assert found.keys() == truth.keys()
    for name, section in truth.items():
        assert found[name].values == section.values
        assert found[name].arrays.keys() == section.arrays.keys()
        for column, values in section.arrays.items():
            assert found[name].arrays[column].dtype == values.dtype
            assert np.array_equal(found[name].arrays[column], values), (name, column)


@pytest.mark.parametrize("cut", [0, 1, 40, 150])
def test_a_restored_store_has_equal_values_and_an_equal_future(cut):
    one = new_store()
    train(one, 0, cut)

    other = restored(one)

    assert_equal_sections(other.snapshot(), one.snapshot())
    train(one, cut, 300)
    train(other, cut, 300)
    assert_equal_sections(other.snapshot(), one.snapshot())
    assert other.accepted == 300
    assert other.space_id == "space"


def test_a_snapshot_is_not_touched_by_later_training():
    store = new_store()
    train(store, 0, 50)
    snapshot = store.snapshot()
    kept = {
        (name, column): values.copy()
        for name, section in snapshot.items()
        for column, values in section.arrays.items()
    }

    train(store, 50, 100)

    for (name, column), values in kept.items():
        assert np.array_equal(snapshot[name].arrays[column], values)


def test_results_are_equal_for_one_shard_and_for_eight():
    found = []
    for n_shards in (1, 8):
        store = new_store(n_shards=n_shards)
        train(store, 0, 300)
        found.append(by_id(store.snapshot()))

    assert len(found[0][0]) == N_ITEMS
    assert found[0] == found[1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", ["inputs", "outputs"])
def test_a_row_that_is_no_number_is_reset_and_counted(value, column):
    store, newborn = new_store(), new_store()
    train(store, 0, 100)
    bad, good = store.admit(ids(b"item-7", b"item-8")).tolist()
    expected = newborn._rows.inputs[newborn.admit(ids(b"item-7"))].copy()
    clicks = int(store._rows.clicks[bad])
    before = store._rows.inputs[good].copy()
    getattr(store._rows, column)[bad, 3] = value

    snapshot = store.snapshot()

    assert store.n_reset == 1
    assert clicks > 0
    for section in snapshot.values():
        for name, values in section.arrays.items():
            assert name == "popularity" or np.isfinite(values).all()
    assert np.array_equal(store._rows.inputs[[bad]], expected)
    assert not store._rows.outputs[bad].any()
    assert not store._rows.input_accumulators[bad]
    assert store._rows.clicks[bad] == clicks
    assert np.array_equal(store._rows.inputs[good], before)
    store.snapshot()
    assert store.n_reset == 1


@pytest.mark.parametrize(("name", "value"), [("dim", 16), ("n_shards", 2), ("max_items", 100)])
def test_a_generation_of_other_settings_is_refused(name, value):
    store = new_store()
    with pytest.raises(ForeignCheckpoint, match=f"{name} {getattr(SETTINGS, name)}.* {value}"):
        restored(store, **{name: value})


def test_a_newborn_is_uniform_with_a_width_of_32_over_the_dimension():
    store = new_store(dim=64)
    rows = store.admit(ALL)
    values = store._rows.inputs[rows]
    assert np.abs(values).max() <= 0.5
    assert np.abs(values).max() > 0.49
    assert not store._rows.outputs[rows].any()
    assert np.isneginf(store._rows.memory.popularity[rows]).all()


def test_admitting_again_changes_nothing():
    store = new_store()
    train(store, 0, 50)
    before = store.snapshot()
    store.admit(ids(*names(5)))
    after = store.snapshot()
    known = by_id(before)[0]
    assert {one: after_values for one, after_values in by_id(after)[0].items() if one in known} == (
        known
    )
