"""Partitions wait for each other in event time, and never for one that does not come."""

import pytest

from state.offsets import Partition
from streamer.windows.alignment import (
    FIRST_BATCH,
    SMALLEST_BATCH,
    STALLED_SECONDS,
    Alignment,
)

A, B, C = (Partition("clicks", number) for number in range(3))
MINUTE_MS = 60_000


POSITIONS = {A: 1, B: 1, C: 1}


def everything(partition):
    return True


@pytest.fixture
def alignment():
    return Alignment(max_ahead_seconds=600.0)


def test_who_is_more_than_ten_minutes_ahead_waits(alignment):
    times = {A: 0, B: 10 * MINUTE_MS, C: 10 * MINUTE_MS + 1}

    assert alignment.ahead(times, POSITIONS, everything, 0.0) == {C}


def test_who_waits_goes_on_when_the_others_have_come(alignment):
    alignment.ahead({A: 0, B: 20 * MINUTE_MS}, POSITIONS, everything, 0.0)

    assert (
        alignment.ahead({A: 10 * MINUTE_MS, B: 20 * MINUTE_MS}, POSITIONS, everything, 1.0) == set()
    )


def test_who_has_nothing_to_read_is_no_measure(alignment):
    times = {A: 0, B: 20 * MINUTE_MS, C: 25 * MINUTE_MS}

    assert alignment.ahead(times, POSITIONS, lambda partition: partition != A, 0.0) == set()
    assert alignment.ahead(times, POSITIONS, lambda partition: partition == C, 0.0) == set()


def test_who_could_be_read_and_does_not_come_holds_nobody_back_for_long(alignment):
    times = {A: 0, B: 20 * MINUTE_MS}

    for second in range(int(STALLED_SECONDS) + 1):
        assert alignment.ahead(times, POSITIONS, everything, second) == {B}
    assert alignment.ahead(times, POSITIONS, everything, STALLED_SECONDS + 1) == set()
    # It has come: the other waits again, however long it had waited before.
    came = {**POSITIONS, A: 2}
    assert alignment.ahead(times, came, everything, STALLED_SECONDS + 2) == {B}
    assert alignment.ahead(times, {**came, A: 3}, everything, STALLED_SECONDS + 3) == {B}


def test_a_time_in_which_nothing_was_read_is_no_partitions_fault(alignment):
    times = {A: 0, B: 20 * MINUTE_MS}
    alignment.ahead(times, POSITIONS, everything, 0.0)

    assert alignment.ahead(times, POSITIONS, everything, 10 * STALLED_SECONDS) == {B}


def test_batches_are_small_before_anyone_has_begun(alignment):
    alignment.ahead({A: None, B: None}, POSITIONS, everything, 0.0)

    assert alignment.max_clicks(10_000) == FIRST_BATCH


def test_batches_are_so_small_that_one_alone_runs_not_far_ahead(alignment):
    alignment.ahead({A: 0, B: 0}, POSITIONS, everything, 0.0)
    assert alignment.max_clicks(10_000) == FIRST_BATCH

    alignment.took(FIRST_BATCH, 10 * MINUTE_MS)
    assert alignment.max_clicks(10_000) == FIRST_BATCH // 4
    for _ in range(10):
        alignment.took(alignment.max_clicks(10_000), 100 * 60 * MINUTE_MS)
    assert alignment.max_clicks(10_000) == SMALLEST_BATCH
    for _ in range(10):
        alignment.took(alignment.max_clicks(10_000), 0)
    assert alignment.max_clicks(10_000) == 10_000


def test_a_stream_of_one_partition_is_read_in_large_batches(alignment):
    alignment.ahead({A: 0}, POSITIONS, everything, 0.0)

    assert alignment.max_clicks(10_000) == 10_000
