"""Partitions keep their order, their watermark, and how long they have had nothing to read."""

import numpy as np

from kernels.windows import IDLE, NEVER, ROOT, SETTLED, STRAY_TIMES, STRAYS, TOPIC, WATERMARK
from state.offsets import Partition
from state.sections import Section
from streamer.windows.watermark import UNWATCHED_SECONDS, Watermarks

A, B, C = Partition("clicks", 0), Partition("clicks", 1), Partition("other", 0)


def watermarks(*partitions):
    found = Watermarks(Section())
    for one in partitions:
        found.index_of(one)
    return found


def idle(found):
    return {one for at, one in enumerate(found.partitions) if found.rows[at, IDLE]}


def test_a_partition_keeps_its_row():
    found = watermarks(B, A)
    assert [found.index_of(one) for one in (A, B, C, A)] == [1, 0, 2, 1]
    assert found.partitions == [B, A, C]


def test_a_new_partition_has_seen_nothing():
    found = watermarks(A)
    assert found.rows[0, [WATERMARK, STRAYS, IDLE, ROOT]].tolist() == [NEVER, 0, 0, -1]
    assert found.event_times_ms() == {}


def test_a_partition_is_keyed_by_its_name_and_not_by_its_order():
    one, other = watermarks(A, B, C), watermarks(C, B, A)
    assert one.keys.tolist() == other.keys[::-1].tolist()
    assert len(set(one.keys.tolist())) == 3


def test_the_partitions_of_a_topic_have_its_number():
    found = watermarks(B, C, A, Partition("third", 7))
    again = Watermarks(found.snapshot())
    for one in (found, again):
        assert one.rows[:, TOPIC].tolist() == [0, 1, 0, 2]


def look(found, caught_up, since, until, timeout=60):
    """Look twice a second, as a stream does that goes on."""
    for now in np.arange(since, until + 0.25, 0.5):
        found.idle_for(caught_up, now=float(now), timeout=timeout)


def test_a_partition_is_idle_once_it_has_had_nothing_to_read_for_the_timeout():
    found = watermarks(A, B)
    look(found, [A], 100, 158)
    look(found, [A, B], 158.5, 159.5)
    assert idle(found) == set()
    look(found, [A, B], 160, 218)
    assert idle(found) == {A}
    look(found, [A, B], 218.5, 218.5)
    assert idle(found) == {A, B}


def test_the_timeout_begins_again_when_a_partition_has_had_something_to_read():
    found = watermarks(A)
    look(found, [A], 0, 50)
    look(found, [], 50.5, 50.5)
    look(found, [A], 51, 110.5)
    assert idle(found) == set()
    look(found, [A], 111, 111)
    assert idle(found) == {A}


def test_time_in_which_nobody_looked_is_no_time_of_quiet():
    found = watermarks(A)
    look(found, [A], 0, 50)
    look(found, [A], 50 + UNWATCHED_SECONDS + 1, 115)
    assert idle(found) == set()
    look(found, [A], 115.5, 116)
    assert idle(found) == {A}


def test_an_ended_partition_is_idle_at_once():
    found = watermarks(A, B)
    found.declare_idle([B])
    assert idle(found) == {B}


def test_event_times_are_the_watermarks_of_those_that_have_one():
    found = watermarks(A, B)
    found.rows[1, WATERMARK] = 1234
    assert found.event_times_ms() == {B: 1234}


def test_a_restored_one_has_equal_rows_keys_and_order():
    found = watermarks(B, A, C)
    found.rows[:, WATERMARK] = [5, NEVER, 7]
    found.rows[2, [SETTLED, STRAYS, STRAY_TIMES, ROOT - 1]] = 13, 21, 99, 77
    found.declare_idle([A])

    again = Watermarks(found.snapshot())

    assert again.partitions == found.partitions
    assert np.array_equal(again.rows, found.rows)
    assert np.array_equal(again.keys, found.keys)
    assert again.index_of(C) == 2


def test_a_restored_one_has_forgotten_how_long_a_partition_was_quiet():
    found = watermarks(A)
    found.idle_for([A], now=0, timeout=60)
    again = Watermarks(found.snapshot())
    again.idle_for([A], now=100, timeout=60)
    assert idle(again) == set()


def test_a_snapshot_is_not_touched_by_what_comes_later():
    found = watermarks(A)
    snapshot = found.snapshot()
    found.rows[0, WATERMARK] = 99
    found.index_of(B)
    assert Watermarks(snapshot).event_times_ms() == {}
    assert Watermarks(snapshot).partitions == [A]
