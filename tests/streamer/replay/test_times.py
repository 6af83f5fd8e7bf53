"""Times moved by whole seconds, and sessions that end now."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.replay.times import moved_time, seconds_to_now
from streamer.sources.event_times import to_ms
from streamer.sources.mapping import Click

NOW_MS = 1_800_000_000_123
GAP_MS = 1000 * 60


@pytest.mark.parametrize(
    ("text", "unit", "seconds", "expected"),
    [
        ("1506826800", "s", 5, "1506826805"),
        ("1506826800.026", "s", 5, "1506826805.026"),
        ("1506826800.10", "s", -800, "1506826000.10"),
        ("1506826800026", "ms", 5, "1506826805026"),
        ("1506826800026.0", "ms", 5, "1506826805026.0"),
        ("1506826800026001", "us", 5, "1506826805026001"),
        ("1506826800026000007", "ns", 5, "1506826805026000007"),
        ("1.5e9", "s", 5, "1500000005"),
        ("007", "s", 5, "12"),
        ("2017-10-01T03:00:00Z", "iso8601", 60, "2017-10-01T03:01:00Z"),
        ("2017-10-01T03:00:00.026Z", "iso8601", 60, "2017-10-01T03:01:00.026Z"),
        ("2017-10-01T03:00:00.5", "iso8601", -3600, "2017-10-01T02:00:00.5"),
        ("2017-10-01 03:00:00,123456789", "iso8601", 1, "2017-10-01 03:00:01,123456789"),
        ("2017-10-01T23:59:59.9+02:00", "iso8601", 1, "2017-10-02T00:00:00.9+02:00"),
        ("2017-10-01", "iso8601", 1, "2017-10-01T00:00:01"),
        ("20171001T030000Z", "iso8601", 1, "2017-10-01T03:00:01Z"),
    ],
)
def test_a_time_keeps_its_unit_its_fraction_and_its_zone(text, unit, seconds, expected):
    assert moved_time(text, unit, seconds) == expected


@given(
    st.integers(0, 4_000_000_000),
    st.integers(0, 999_999),
    st.integers(-86_400, 86_400),
    st.sampled_from([None, 0, 330, -480]),
)
def test_a_moved_time_reads_as_so_many_seconds_later(seconds, micros, by, zone):
    zone = None if zone is None else timezone(timedelta(minutes=zone))
    iso = datetime.fromtimestamp(seconds + 86_400, zone or timezone.utc)  # noqa: UP017 - beside timezone
    text = iso.replace(tzinfo=zone, microsecond=micros).isoformat()
    decimal = f"{seconds}.{micros:06d}"

    for one, unit in ((text, "iso8601"), (decimal, "s"), (str(seconds * 1000), "ms")):
        assert to_ms(moved_time(one, unit, by), unit) == to_ms(one, unit) + 1000 * by


def click(time_ms, user="u", session=""):
    return Click(b"i", user.encode(), session.encode(), b"", time_ms, 1.0)


def moved(clicks):
    seconds = seconds_to_now(clicks, NOW_MS, GAP_MS)
    return [one.time_ms + 1000 * by for one, by in zip(clicks, seconds, strict=True)]


def test_a_session_ends_now_and_keeps_its_distances():
    times = moved([click(30_500), click(1_000), click(5_000)])

    assert NOW_MS - 1000 < times[0] <= NOW_MS
    assert (times[0] - times[1], times[0] - times[2]) == (29_500, 25_500)


def test_each_session_is_moved_by_itself():
    times = moved([click(0, "a"), click(90_000_000, "b"), click(GAP_MS, "a")])

    assert NOW_MS - 1000 < times[1] <= NOW_MS
    assert NOW_MS - 1000 < times[2] <= NOW_MS
    assert times[2] - times[0] == GAP_MS


def test_a_gap_ends_a_session_and_one_of_exactly_its_length_does_not():
    together = moved([click(0), click(GAP_MS)])
    apart = moved([click(0), click(GAP_MS + 1)])

    assert together[1] - together[0] == GAP_MS
    assert all(NOW_MS - 1000 < one <= NOW_MS for one in apart)


def test_a_session_is_known_by_its_id_before_its_user():
    times = moved([click(0, "a", "s"), click(500, "b", "s"), click(20_000, "s")])

    assert times[1] - times[0] == 500
    assert NOW_MS - 1000 < times[1] <= NOW_MS
    assert NOW_MS - 1000 < times[2] <= NOW_MS


def test_a_time_ahead_of_now_comes_back():
    (time,) = moved([click(NOW_MS + 86_400_000_000)])

    assert NOW_MS - 1000 < time <= NOW_MS


def test_nothing_is_moved_where_there_is_nothing():
    assert seconds_to_now([], NOW_MS, GAP_MS) == []
