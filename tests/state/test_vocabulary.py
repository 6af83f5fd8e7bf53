"""Ids keep their rows through growth and a restore."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.hashing import hash_spans
from kernels.vocabulary import COLLISION, FULL, UNKNOWN, Ids
from state.vocabulary import Vocabulary


def ids(*texts, keys=None):
    lengths = np.array([len(one) for one in texts], np.int64)
    data = np.frombuffer(bytearray(b"".join(texts) + b"."), np.uint8)
    starts = np.cumsum(lengths) - lengths
    found = np.empty(len(texts), np.uint64)
    hash_spans(data, starts, lengths, np.uint64(0), found)
    return Ids(found if keys is None else np.array(keys, np.uint64), starts, lengths, data)


def names(n, prefix=b"item"):
    return [prefix + b"-%d" % i for i in range(n)]


def restored(vocabulary, n_shards):
    other = Vocabulary(vocabulary.max_items, n_shards)
    for shard in range(n_shards):
        begin = shard * vocabulary.rows_per_shard
        keys = vocabulary.arrays.keys[begin : begin + vocabulary.shard_size(shard)].copy()
        other.restore(shard, keys, *vocabulary.ids(shard))
    return other


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(st.lists(st.binary(min_size=1, max_size=9), max_size=8), max_size=8),
    n_shards=st.sampled_from((1, 3)),
)
def test_an_id_keeps_its_row_and_no_two_share_one(batches, n_shards):
    vocabulary, model = Vocabulary(1000, n_shards), {}
    for batch in batches:
        for one, row in zip(batch, vocabulary.admit(ids(*batch)).tolist(), strict=True):
            assert model.setdefault(one, row) == row

    assert len(vocabulary) == len(model) == len(set(model.values()))
    assert vocabulary.look_up(ids(*model)).tolist() == list(model.values())


@pytest.mark.parametrize("n_shards", [1, 8])
def test_a_restored_vocabulary_has_equal_ids_and_an_equal_future(n_shards):
    one = Vocabulary(500, n_shards)
    one.admit(ids(*names(300)))

    other = restored(one, n_shards)

    assert len(other) == 300
    for shard in range(n_shards):
        for found, truth in zip(other.ids(shard), one.ids(shard), strict=True):
            assert np.array_equal(found, truth)
    later = ids(*names(90, b"new"), *names(5))
    assert np.array_equal(other.admit(later), one.admit(later))
    assert np.array_equal(other.look_up(ids(*names(300))), one.look_up(ids(*names(300))))


def test_ids_grow_beyond_the_first_room_for_their_bytes():
    vocabulary, long = Vocabulary(100, 2), [bytes([i]) * 3000 for i in range(1, 60)]
    rows = vocabulary.admit(ids(*long[:10]))
    more = vocabulary.admit(ids(*long))
    assert np.array_equal(rows, more[:10])
    assert np.array_equal(vocabulary.look_up(ids(*long)), more)


def test_a_planted_collision_is_seen_before_and_after_a_restore():
    vocabulary = Vocabulary(10, 2)
    vocabulary.admit(ids(b"one", keys=[7]))
    for each in (vocabulary, restored(vocabulary, 2)):
        assert each.look_up(ids(b"two", b"one", b"two", keys=[7, 7, 8])).tolist()[::2] == [
            COLLISION,
            UNKNOWN,
        ]
        assert each.admit(ids(b"two", keys=[7])).tolist() == [COLLISION]


def test_shards_have_a_tenth_of_slack_so_that_the_bound_is_the_stores():
    vocabulary = Vocabulary(4000, 8)
    rows = vocabulary.admit(ids(*names(4001)))
    assert (rows[:4000] >= 0).all()
    assert rows[4000] == FULL
    assert len(vocabulary) == 4000


def test_a_shard_holds_the_keys_of_its_remainder():
    vocabulary = Vocabulary(400, 8)
    wanted = ids(*names(200))
    rows = vocabulary.admit(wanted)
    assert np.array_equal(rows // vocabulary.rows_per_shard, wanted.keys % np.uint64(8))
