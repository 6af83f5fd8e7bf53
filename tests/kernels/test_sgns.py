"""The skip-gram update is what the blueprint's semantics say, in float64 and by differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import sgns
from kernels.negatives import Noise
from kernels.pairs import Pairs
from kernels.policy import config
from kernels.scratch import AHEAD, padded, scratch
from kernels.table import insert_many, places
from kernels.tiles import empty_tiles
from state import shard
from state.shard import MemorySettings
from tests import oracles
from tests.strategies import examples

N_ROWS, WINDOW = 12, 4
KEYS = np.arange(N_ROWS, dtype=np.uint64) * np.uint64(1 << 61) + np.arange(N_ROWS, dtype=np.uint64)
MEMORY = MemorySettings((3.0, 50.0), 20.0, 4, 3, 16, 4)
X = 0


class Net:
    """Rows 0 to N_ROWS - 1 with random values, and a table of noise over some of them."""

    def __init__(self, noise=range(N_ROWS), dim=6, seed=1, scale=1.0, **learning):
        rng = np.random.default_rng(seed)

        def drawn():
            vectors = np.zeros((N_ROWS, padded(dim)), np.float32)
            vectors[:, :dim] = rng.uniform(-scale, scale, (N_ROWS, dim))
            return vectors

        keys, slots = np.zeros(64, np.uint64), np.full(64, -1, np.int64)
        insert_many(keys, slots, KEYS, np.arange(N_ROWS))
        self.rows = sgns.Rows(
            table_keys=keys,
            table_slots=slots,
            inputs=drawn(),
            outputs=drawn(),
            input_accumulators=rng.uniform(0.01, 2, N_ROWS).astype(np.float32),
            output_accumulators=rng.uniform(0.01, 2, N_ROWS).astype(np.float32),
            clicks=np.zeros(N_ROWS, np.int64),
            memory=nothing_remembered(),
            accepted=np.zeros(1, np.int64),
        )
        entries = np.array(list(noise), np.int64)
        self.noise = Noise(np.zeros(1 << 10, np.int64), np.array([len(entries)]))
        self.noise.entries[: len(entries)] = entries
        self.learning = sgns.Learning(
            seed=np.uint64(learning.get("seed", 5)),
            learning_rate=np.float32(learning.get("learning_rate", 0.2)),
            epsilon=np.float32(1e-8),
            dim=dim,
            negatives=learning.get("negatives", 5),
            passes=learning.get("passes", 1),
            half_lives=MEMORY.half_lives,
            partition_keys=np.array([11, 22], np.uint64),
        )
        self.pairs = new_pairs()
        sizes = self.learning.negatives, self.learning.passes
        self.scratch = scratch(dim, WINDOW, *sizes)

    def train(self, x=X, neighbours=(), weight=1.0, partition=0, offset=0):
        return self.train_all([(x, neighbours, weight, partition, offset)])

    def train_all(self, tiles, sessions=None):
        return self.run(as_tiles(tiles, sessions))

    def run(self, tiles):
        kernel = sgns.train_tiles(self.learning.dim)
        learned = self.rows, self.noise, self.pairs, self.learning, self.scratch
        return kernel(tiles, 0, int(tiles.used[0]), *learned)

    @property
    def drawn(self):
        """The negatives of the first tile's last pass."""
        return self.scratch.ahead.negatives[0, -self.learning.negatives :].tolist()

    def model(self):
        rows, dim = self.rows, self.learning.dim
        vectors = rows.inputs[:, :dim], rows.outputs[:, :dim]
        learned = (*vectors, rows.input_accumulators, rows.output_accumulators)
        return oracles.Model(*(one.astype(np.float64) for one in learned))


def nothing_remembered():
    memory = shard.new_memory(N_ROWS, MEMORY)
    shard.forget(memory, np.arange(N_ROWS))
    return memory


def new_pairs(n_sessions=0):
    """Sums of two partitions, with room for so many sessions."""
    room = places(n_sessions) if n_sessions else 0
    return Pairs(
        counts=np.zeros(2, np.int64),
        sums=np.zeros(2, np.uint64),
        table_keys=np.zeros(room, np.uint64),
        table_slots=np.full(room, -1, np.int64),
        sessions=np.zeros(n_sessions, np.uint64),
        session_counts=np.zeros(n_sessions, np.int64),
        session_sums=np.zeros(n_sessions, np.uint64),
        used=np.zeros(1, np.int64),
    )


def as_tiles(tiles, sessions=None):
    n = len(tiles)
    out = empty_tiles(n, WINDOW)
    out.sessions[:] = sessions or 0
    out.used[0] = n
    for t, (x, neighbours, weight, partition, offset) in enumerate(tiles):
        out.items[t], out.numbers[t] = KEYS[x], 1 + offset // 4
        out.neighbours[t, : len(neighbours)] = KEYS[list(neighbours)]
        out.n_before[t] = out.n_neighbours[t] = len(neighbours)
        out.weights[t], out.partitions[t], out.offsets[t] = weight, partition, offset
    return out


def arrays_of(net):
    """Every array of the rows, those that are remembered among them."""
    learned = (one for one in net.rows if isinstance(one, np.ndarray))
    return [*learned, *net.rows.memory]


def expect(net, model, pairs, weight=1.0):
    oracles.tile_update(model, pairs, weight, float(net.learning.learning_rate), 1e-8)
    return model


def assert_same(net, model):
    # float32 against float64: sums of some dozen products of values around 1.
    for found, truth in zip(net.model(), model, strict=True):
        np.testing.assert_allclose(found, truth, rtol=2e-5, atol=2e-6)


neighbourhoods = st.lists(st.integers(1, N_ROWS - 1), min_size=0, max_size=2 * WINDOW)


@examples(200)
@given(
    neighbours=neighbourhoods,
    noise=st.lists(st.integers(0, N_ROWS - 1), min_size=1, max_size=6),
    weight=st.sampled_from((1.0, 3.0, 0.25)),
    dim=st.sampled_from((2, 6, 20, 64)),
    offset=st.integers(0, 1 << 40),
)
def test_a_tile_moves_rows_as_the_oracle_does(neighbours, noise, weight, dim, offset):
    net = Net(noise, dim)
    model = net.model()

    n_pairs = net.train(X, neighbours, weight, offset=offset)

    if neighbours:
        pairs = oracles.labelled_pairs(X, neighbours, net.drawn)
        expect(net, model, pairs, weight)
    assert n_pairs == 2 * len(neighbours)
    assert_same(net, model)


NASTY = {
    "negatives that repeat": ([1, 2], [7, 7]),
    "a negative that is the click": ([1, 2], [X]),
    "a negative that is a neighbour": ([1, 2], [2]),
    "a negative that is the only neighbour": ([1], [1]),
    "neighbours that repeat": ([3, 3, 1, 3], [5, 6]),
    "neighbours that repeat and are negatives": ([3, 3, 1], [3, 8]),
    "all at once": ([1, 2, 2, 4], [X, 1, 2, 9]),
    "one neighbour, one negative": ([1], [2]),
}


@pytest.mark.parametrize(("neighbours", "noise"), NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("offset", range(3))
def test_duplicates_are_counted_and_collisions_left_out(neighbours, noise, offset):
    net = Net(noise)
    model = net.model()

    net.train(X, neighbours, offset=offset)

    assert set(net.drawn) <= {*noise, X}
    assert_same(net, expect(net, model, oracles.labelled_pairs(X, neighbours, net.drawn)))


def test_a_negative_of_one_input_may_be_a_neighbour_of_the_click():
    pairs = oracles.labelled_pairs(X, [1, 2], [2])
    assert (1, 2, 0.0) in pairs
    assert (X, 2, 0.0) not in pairs
    assert (2, 2, 0.0) not in pairs


def test_a_first_tile_moves_each_row_by_the_learning_rate():
    net = Net(noise=[5])
    net.rows.input_accumulators[:] = 0
    net.rows.output_accumulators[:] = 0
    before = net.model().inputs[[X, 1]]

    net.train(X, [1])

    moved = np.sqrt(np.mean((net.model().inputs[[X, 1]] - before) ** 2, axis=1))
    assert moved == pytest.approx([0.2, 0.2], rel=1e-4)


def test_the_movement_is_the_gradient_of_the_tiles_loss():
    huge = 1e4  # an accumulator beside which no gradient counts: movement = rate * gradient / 100
    neighbours, noise = [1, 2, 2, 4], [6, 6, 7]
    net = Net(noise, dim=5, learning_rate=1000.0, negatives=8)
    net.rows.input_accumulators[:] = huge
    net.rows.output_accumulators[:] = huge
    before = net.model()

    net.train(X, neighbours, weight=1.5)

    after, pairs = net.model(), oracles.labelled_pairs(X, neighbours, net.drawn)
    scale = 1000.0 / np.sqrt(huge)
    for side in (0, 1):
        gradient = -(after[side] - before[side]) / scale
        numeric = np.zeros_like(gradient)
        step = 1e-6
        for at in np.ndindex(gradient.shape):
            for sign in (1, -1):
                shifted = [one.copy() for one in before]
                shifted[side][at] += sign * step
                loss = oracles.tile_loss(shifted[0], shifted[1], pairs, 1.5)
                numeric[at] += sign * loss / (2 * step)
        # AdaGrad's denominator grows by less than 1e-2 of itself per unit of gradient.
        np.testing.assert_allclose(gradient, numeric, rtol=5e-3, atol=1e-4)


def test_only_the_named_rows_change():
    net = Net(noise=[5, 6])
    before = net.model()

    net.train(X, [1, 2])

    for found, old, may in zip(
        net.model(),
        before,
        ({X, 1, 2}, {X, 1, 2, 5, 6}, {X, 1, 2}, {X, 1, 2, 5, 6}),
        strict=True,
    ):
        changed = np.flatnonzero((found != old).reshape(N_ROWS, -1).any(axis=1)).tolist()
        assert set(changed) <= may
        assert {X, 1, 2} <= set(changed)


def test_a_weight_scales_the_gradient():
    moved = []
    for weight in (1.0, 0.5):
        net = Net(noise=[5])
        net.rows.input_accumulators[:] = 1e8
        before = net.rows.inputs[X].astype(np.float64)
        net.learning = net.learning._replace(learning_rate=np.float32(1e4))
        net.train(X, [1], weight)
        moved.append(net.rows.inputs[X] - before)

    np.testing.assert_allclose(moved[0], 2 * moved[1], rtol=1e-4, atol=1e-6)


def test_passes_repeat_the_tile_with_fresh_negatives():
    once, twice = Net(passes=1), Net(passes=2)
    model = once.model()
    once.train(X, [1, 2], offset=3)
    first = once.drawn

    n_pairs = twice.train(X, [1, 2], offset=3)

    second = twice.drawn
    assert first != second
    for drawn in (first, second):
        expect(twice, model, oracles.labelled_pairs(X, [1, 2], drawn))
    assert_same(twice, model)
    assert n_pairs == 4
    assert twice.rows.clicks[X] == 1
    assert twice.rows.accepted[0] == 1
    assert twice.noise.filled[0] == N_ROWS + 1


def drawn_by(seed=5, partition=0, offset=0, neighbours=(1, 2), x=X, **values):
    net = Net(seed=1, negatives=16, **values)
    net.learning = net.learning._replace(seed=np.uint64(seed))
    net.train(x, neighbours, partition=partition, offset=offset)
    return net.drawn


def test_draws_are_functions_of_seed_partition_and_offset():
    one = drawn_by()

    assert drawn_by() == one
    assert drawn_by(neighbours=(7,), scale=0.1) == one
    assert drawn_by(seed=6) != one
    assert drawn_by(partition=1) != one
    assert drawn_by(offset=1) != one


def test_tiles_are_trained_in_order_as_if_one_by_one():
    tiles = [
        (X, [1, 2], 1.0, 0, 0),
        (1, [X], 2.0, 1, 5),
        (3, [], 1.0, 0, 1),
        (2, [3, X], 1.0, 0, 9),
    ]
    tiles = [(*tile, 10 * n + offset) for n in range(6) for *tile, offset in tiles]
    assert len(tiles) > 2 * AHEAD
    together, one_by_one = Net(passes=2), Net(passes=2)

    n_pairs = together.train_all(tiles)

    assert n_pairs == sum(one_by_one.train(*tile) for tile in tiles) == 60
    for found, truth in zip(arrays_of(together), arrays_of(one_by_one), strict=True):
        assert np.array_equal(found, truth)
    assert np.array_equal(together.noise.entries, one_by_one.noise.entries)


def test_every_click_enters_the_noise_before_its_negatives_are_drawn():
    net = Net(noise=[])
    net.train(3, [1])
    assert net.noise.entries[0] == 3
    assert net.drawn == [3] * 5


def test_a_tile_without_neighbours_counts_and_moves_nothing():
    net = Net()
    before = net.model()

    n_pairs = net.train(3, [])

    assert n_pairs == 0
    for found, old in zip(net.model(), before, strict=True):
        assert np.array_equal(found, old)
    assert net.rows.clicks.tolist() == [int(row == 3) for row in range(N_ROWS)]
    assert net.noise.filled[0] == N_ROWS + 1


def test_no_tiles_do_nothing():
    net = Net()
    tiles = as_tiles([(X, [1], 1.0, 0, 0)])
    tiles.used[0] = 0
    assert net.run(tiles) == 0
    assert net.rows.accepted[0] == 0


def test_popularity_counts_the_weights_of_clicks_against_the_accepted_clicks():
    net = Net()
    tiles = [(3, [], 2.0, 0, 0), (4, [], 1.0, 0, 1), (3, [1], 0.5, 0, 2), (4, [], 1.0, 0, 3)]
    net.train_all(tiles)
    for h, half_life in enumerate(MEMORY.popularity_half_lives):
        found = 2.0 ** (net.rows.memory.popularity[3, h] - 4 / half_life)
        assert found == pytest.approx(oracles.decayed_count([(1, 2.0), (3, 0.5)], 4, half_life))
    assert np.isneginf(net.rows.memory.popularity[[X, 1]]).all()


def test_great_scores_neither_overflow_nor_move_what_is_right_already():
    net = Net(noise=[5])
    net.rows.inputs[:] = 100
    net.rows.outputs[:] = 100
    net.rows.outputs[5] = -100
    before = net.model()

    net.train(X, [1])

    # Labels are met: positives score +60,000, the negatives 5 (and X, which is left out) -60,000.
    assert set(net.drawn) <= {5, X}
    for found, old in zip(net.model(), before, strict=True):
        assert np.array_equal(found, old)


def test_another_type_than_the_signatures_is_refused():
    if config.DISABLE_JIT:
        pytest.skip("plain Python takes what it is given")
    net = Net()
    net.rows = net.rows._replace(inputs=net.rows.inputs.astype(np.float64))
    with pytest.raises(TypeError):
        net.train(X, [1])


def test_columns_that_pad_a_row_stay_zero():
    net = Net(dim=6)

    net.train_all([(X, [1, 2], 1.0, 0, offset) for offset in range(5)])

    assert (net.rows.inputs[:, 6:] == 0).all()
    assert (net.rows.outputs[:, 6:] == 0).all()


def test_a_click_follows_the_items_before_it_and_precedes_those_after():
    net = Net()
    tiles = as_tiles([(X, [4, 5, 6], 2.0, 0, 0)])
    tiles.n_before[0] = 2
    net.run(tiles)
    memory = net.rows.memory
    found = {
        (row, int(then)): float(weight)
        for row in range(N_ROWS)
        for then, weight in zip(memory.followers[row], memory.follower_weights[row], strict=True)
        if then >= 0
    }
    assert found == {(4, X): 2.0, (5, X): 1.0, (X, 6): 2.0}
    assert memory.follower_times[[4, 5, X]].tolist() == [1, 1, 1]


def test_a_session_holds_its_clicks_first_items_once():
    net = Net()
    for offset, x in enumerate((3, 4, 3)):
        net.train(x, [], offset=offset)
    net.train(5, [], offset=4)
    memory = net.rows.memory
    assert memory.session_items[1, : memory.session_sizes[1]].tolist() == [3, 4]
    assert memory.session_items[2, : memory.session_sizes[2]].tolist() == [5]
    assert memory.held_by[[3, 4, 5], 0].tolist() == [1, 1, 2]
