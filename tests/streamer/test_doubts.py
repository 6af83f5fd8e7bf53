"""Clicks that can be read and cannot be right are told, once, and others never."""

from itertools import repeat

import pytest
from structlog.testing import capture_logs

from streamer.doubts import Doubts
from tests.streamer import streams

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


@pytest.fixture
def pipeline(tmp_path, manual_clock):
    one = streams.pipeline(streams.config(tmp_path, max_jump_seconds=1e9), tmp_path, manual_clock)
    yield one
    one._dead_letters.close()


def clicks(times):
    raw = b'{"user_id":"u%d","item_id":"i","ts":%d}'
    return [streams.Record(0, at, raw % (at % 50, time)) for at, time in enumerate(times)]


def told(doubts, pipeline, times):
    with capture_logs() as lines:
        for batch in streams.batches(pipeline._config, clicks(times), repeat(50)):
            pipeline.apply(batch)
            doubts.look()
    return lines


def test_clicks_in_order_are_not_doubted(pipeline, manual_clock):
    times = [START_MS + at * DAY_MS // 100 for at in range(700)]

    assert told(Doubts(pipeline, manual_clock, "ms"), pipeline, times) == []


def test_clicks_by_user_instead_of_time_are_told_once(pipeline, manual_clock):
    times = [START_MS + at % 100 * DAY_MS for at in range(700)]

    (line,) = told(Doubts(pipeline, manual_clock, "ms"), pipeline, times)

    assert line["event"] == "many_clicks_are_late"
    assert line["clicks"] == 150
    assert line["late"] == 50
    assert "order of time" in line["hint"]


def test_a_few_late_clicks_are_not_told(pipeline, manual_clock):
    times = [START_MS + at * 1000 for at in range(2000)]
    times[1000:1090] = [START_MS] * 90

    assert told(Doubts(pipeline, manual_clock, "ms"), pipeline, times) == []


def test_what_was_late_before_a_restart_is_not_told_again(pipeline, manual_clock):
    pipeline.ledger.filter("late", 1000)
    pipeline.ledger.read += 1000

    assert told(Doubts(pipeline, manual_clock, "ms"), pipeline, [START_MS]) == []


def visits(n, partition_of, n_users=50):
    """Clicks of users in turn, in the order of time, in the partitions that are said."""
    offsets, records = [0, 0], []
    for at in range(n):
        user = at % n_users
        partition = partition_of(at, user)
        raw = b'{"user_id":"u%d","item_id":"i%d","ts":%d}' % (user, at % 7, START_MS + at * 100)
        records.append(streams.Record(partition, offsets[partition], raw))
        offsets[partition] += 1
    return records


def told_of(doubts, pipeline, records):
    with capture_logs() as lines:
        for batch in streams.batches(pipeline._config, records, repeat(20)):
            pipeline.apply(batch)
            doubts.look()
    return lines


def test_a_topic_that_is_not_keyed_is_told_once(pipeline, manual_clock):
    records = visits(700, lambda at, user: (at // 50 + user) % 2)

    (line,) = told_of(Doubts(pipeline, manual_clock, "ms"), pipeline, records)

    assert line["event"] == "sessions_are_spread"
    assert line["log_level"] == "warning"
    assert (line["spread"], line["clicks"]) == (20, 70)
    assert "key the producer by session or user" in line["hint"]


def test_a_keyed_topic_is_not_doubted(pipeline, manual_clock):
    records = visits(700, lambda at, user: user % 2)

    assert told_of(Doubts(pipeline, manual_clock, "ms"), pipeline, records) == []
    assert pipeline.windows.counts()["spread"] == 0


def test_a_few_sessions_that_move_are_not_told(pipeline, manual_clock):
    records = visits(1400, lambda at, user: user % 2 if at < 1000 else (user + (user < 30)) % 2)

    assert told_of(Doubts(pipeline, manual_clock, "ms"), pipeline, records) == []
    assert pipeline.windows.counts()["spread"] == 30


def test_what_was_spread_before_a_restart_is_not_told_again(pipeline, manual_clock):
    records = visits(700, lambda at, user: (at // 50 + user) % 2 if at < 500 else user % 2)
    for batch in streams.batches(pipeline._config, records[:600], repeat(20)):
        pipeline.apply(batch)
    assert pipeline.windows.counts()["spread"] > 400

    assert told_of(Doubts(pipeline, manual_clock, "ms"), pipeline, records[600:]) == []


@pytest.mark.parametrize("time_ms", [START_MS // 1000, START_MS * 3])
def test_times_in_another_unit_are_told_once(pipeline, manual_clock, time_ms):
    (line,) = told(Doubts(pipeline, manual_clock, "ms"), pipeline, [time_ms] * 200)

    assert line["event"] == "event_times_look_wrong"
    assert line["event_time_ms"] == time_ms - 5000  # the out-of-orderness
    assert "'ms'" in line["hint"]
