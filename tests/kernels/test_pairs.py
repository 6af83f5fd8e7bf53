"""Trained pairs are counted and hash-summed by the formula that is written down."""

import numpy as np
import pytest

from kernels.pairs import both_ways
from tests.kernels.test_sgns import KEYS, Net, X, new_pairs
from tests.oracles import Click, PairSums, Tile, pair_hash

NASTY = (0, 1, 1 << 63, (1 << 64) - 1, 0x61C8864680B583EB)


def expected(tiles, sessions=None, group="partition"):
    """Return {group: (count, sum)} of tiles as `Net.train_all` takes them."""
    found = PairSums(lambda click: getattr(click, group), key_of=lambda row: int(KEYS[row]))
    sessions = sessions or [0] * len(tiles)
    for (x, neighbours, _, partition, offset), key in zip(tiles, sessions, strict=True):
        found.add([Tile(Click(key, x, 0, partition, offset), 1, tuple(neighbours))])
    return found.found()


def by_partition(pairs):
    rows = zip(pairs.counts.tolist(), pairs.sums.tolist(), strict=True)
    return {at: row for at, row in enumerate(rows) if row[0]}


def by_session(pairs):
    n = int(pairs.used[0])
    rows = zip(pairs.session_counts[:n].tolist(), pairs.session_sums[:n].tolist(), strict=True)
    return dict(zip(pairs.sessions[:n].tolist(), rows, strict=True))


@pytest.mark.parametrize("x", NASTY)
@pytest.mark.parametrize("y", NASTY)
def test_both_directions_of_a_pair_are_hashed_as_it_is_written_down(x, y):
    found = int(both_ways(np.uint64(x), np.uint64(y)))

    assert found == (pair_hash(x, y) + pair_hash(y, x)) & ((1 << 64) - 1)


def test_the_formula_gives_these_numbers():
    # Whoever writes it anew, in whatever language, can compare.
    assert f"{pair_hash(0, 1):016x}" == "5692161d100b05e5"
    assert f"{pair_hash(1, 2):016x}" == "975835de1c9756ce"
    assert f"{pair_hash(2, 1):016x}" == "beeb8da1658eec67"


TILES = [
    (X, [1, 2], 1.0, 0, 0),
    (1, [X], 2.0, 1, 5),
    (3, [], 1.0, 0, 1),
    (2, [3, 3, X], 0.5, 0, 9),
    (7, [8, 9, 10, 11, 1, 2, 3, 4], 1.0, 1, 9),
]


@pytest.mark.parametrize("passes", [1, 3])
def test_pairs_are_summed_by_the_partition_of_their_click(passes):
    net = Net(passes=passes)

    n_pairs = net.train_all(TILES)

    assert by_partition(net.pairs) == expected(TILES)
    assert net.pairs.counts.sum() == n_pairs == 28


def test_sums_go_on_from_what_they_were_and_wrap_round():
    net = Net()
    net.pairs.counts[0], net.pairs.sums[0] = 5, np.uint64((1 << 64) - 1)

    net.train_all(TILES[:1])

    ((count, total),) = expected(TILES[:1]).values()
    assert by_partition(net.pairs) == {0: (count + 5, total - 1)}


def test_a_neighbour_that_has_no_row_is_no_pair():
    net = Net()
    net.rows.table_slots[net.rows.table_keys == KEYS[2]] = -1

    assert net.train(X, [2]) == 0

    assert by_partition(net.pairs) == {}


def test_without_room_for_sessions_none_is_kept():
    net = Net()
    net.train_all(TILES)
    assert net.pairs.used[0] == 0


def test_pairs_are_summed_by_the_session_of_their_window_across_partitions():
    net, sessions = Net(), [4, 1 << 63, 8, 4, 0]
    net.pairs = new_pairs(n_sessions=4)

    net.train_all(TILES, sessions)

    assert by_session(net.pairs) == expected(TILES, sessions, "key")
    assert 8 not in by_session(net.pairs)  # its only tile held no pair
    assert by_partition(net.pairs) == expected(TILES)
