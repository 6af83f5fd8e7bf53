"""Sums of trained pairs keep their place, their room and their values over a restart."""

import numpy as np
import pytest

from kernels.table import find, insert
from state.offsets import Partition
from state.sections import Section
from streamer.training.pairs import TrainedPairs
from streamer.windows.watermark import Watermarks

A, B, C = Partition("clicks", 0), Partition("clicks", 1), Partition("other", 0)
N_SESSIONS = 5000


def watermarks(*partitions):
    found = Watermarks(Section())
    for one in partitions:
        found.index_of(one)
    return found


def filled(marks, *, is_audited=False):
    found = TrainedPairs(marks, Section(), is_audited=is_audited)
    arrays = found.with_room(1)
    arrays.counts[:] = [7, 0]
    arrays.sums[:] = [(1 << 64) - 1, 255]
    return found


def sessions_of(pairs):
    arrays = pairs.snapshot().arrays
    rows = (arrays[name].tolist() for name in ("keys", "counts", "sums"))
    return list(zip(*rows, strict=True))


def test_each_partition_has_a_row_for_outsiders():
    assert filled(watermarks(A, C)).by_partition() == [
        ["clicks", 0, 7, "ffffffffffffffff"],
        ["other", 0, 0, "00000000000000ff"],
    ]


def test_a_partition_that_comes_later_begins_with_nothing():
    marks = watermarks(A, C)
    found = filled(marks)
    marks.index_of(B)
    assert found.by_partition()[2] == ["clicks", 1, 0, "0" * 16]
    assert found.with_room(1).counts.tolist() == [7, 0, 0]


def test_restored_sums_belong_to_their_partitions_whatever_the_order():
    snapshot = filled(watermarks(A, C)).snapshot()

    again = TrainedPairs(watermarks(C, B, A), snapshot, is_audited=False)

    assert again.with_room(1).counts.tolist() == [0, 0, 7]
    assert again.with_room(1).sums.tolist() == [255, 0, (1 << 64) - 1]


def test_a_generation_that_was_written_without_sums_begins_with_nothing():
    found = TrainedPairs(watermarks(A), Section(), is_audited=True)
    assert found.by_partition() == [["clicks", 0, 0, "0" * 16]]
    assert sessions_of(found) == []


def add(pairs, keys):
    """Give each session its count and sum, as the kernel does it."""
    arrays = pairs.with_room(len(keys))
    for key in keys:
        at = arrays.used[0]
        arrays.used[0] += 1
        arrays.sessions[at] = key
        arrays.session_counts[at] = key % np.uint64(97)
        arrays.session_sums[at] = key ^ np.uint64(5)
        insert(arrays.table_keys, arrays.table_slots, key, at)


@pytest.fixture
def keys():
    return np.random.default_rng(1).integers(0, 1 << 64, N_SESSIONS, np.uint64)


def test_sessions_are_found_again_whatever_their_number(keys):
    found = TrainedPairs(watermarks(A), Section(), is_audited=True)
    for begin in range(0, N_SESSIONS, 700):
        add(found, keys[begin : begin + 700])

    again = TrainedPairs(watermarks(A), found.snapshot(), is_audited=True)

    truth = sorted((int(key), int(key) % 97, int(key) ^ 5) for key in keys)
    assert sessions_of(found) == sessions_of(again) == truth
    for one in (found, again):
        arrays = one.with_room(1000)
        assert len(arrays.sessions) >= N_SESSIONS + 1000
        assert len(arrays.table_slots) >= 2 * len(arrays.sessions)
        assert [find(arrays.table_keys, arrays.table_slots, key) for key in keys[::100]] == [
            np.flatnonzero(arrays.sessions[: arrays.used[0]] == key)[0] for key in keys[::100]
        ]


def test_without_an_audit_no_session_is_kept_nor_restored(keys):
    audited = TrainedPairs(watermarks(A), Section(), is_audited=True)
    add(audited, keys[:10])
    plain = TrainedPairs(watermarks(A), audited.snapshot(), is_audited=False)
    assert len(plain.with_room(10).sessions) == 0
    assert plain.snapshot().arrays == {}


def test_a_snapshot_is_not_touched_by_what_comes_later(keys):
    found = TrainedPairs(watermarks(A), Section(), is_audited=True)
    add(found, keys[:10])
    snapshot = found.snapshot()
    kept = {name: values.copy() for name, values in snapshot.arrays.items()}
    arrays = found.with_room(1)
    for one in (arrays.counts, arrays.sessions, arrays.session_counts, arrays.session_sums):
        one[:] = 1
    assert snapshot.values == {"partitions": [["clicks", 0, 0, "0" * 16]]}
    for name, values in kept.items():
        assert np.array_equal(snapshot.arrays[name], values)
