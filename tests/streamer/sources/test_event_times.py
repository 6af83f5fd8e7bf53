"""One event time as milliseconds, whatever it was read as."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from streamer.sources.event_times import to_ms

UNITS = ["s", "ms", "us", "ns", "iso8601"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "zone", [UTC, None, timezone(timedelta(hours=2))], ids=["utc", "none", "+2"]
)
def test_what_is_a_time_already_needs_no_unit(unit, zone):
    hours = 2 if zone not in (UTC, None) else 0

    time = datetime(1970, 1, 1, hours, 0, 1, 999_999, tzinfo=zone)

    assert to_ms(time, unit) == 1999


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, None, b"5"])
def test_what_is_no_time_is_none_in_any_unit(unit, value):
    assert to_ms(value, unit) is None
