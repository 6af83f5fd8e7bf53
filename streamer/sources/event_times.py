"""An event time, in whichever unit it was written, as milliseconds since 1970."""

import math
import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Event times lie between the years 1 and 9999, as datetime's do.
MIN_MS, MAX_MS = -62_135_596_800_000, 253_402_300_799_999

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = np.iinfo(np.int64)
_MS_PER_UNIT = {
    "s": Fraction(1000),
    "ms": Fraction(1),
    "us": Fraction(1, 1000),
    "ns": Fraction(1, 1_000_000),
}
_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def column_to_ms(times: NDArray[np.int64], flags: NDArray[np.uint8], unit: str) -> None:
    """Turn the times that are not flagged into milliseconds, in place; flag what is no time.

    All are flagged where the unit is not a number's.
    """
    scale = _MS_PER_UNIT.get(unit)
    if scale is None:
        flags[:] = 1
        return
    low = max(int(MIN_MS / scale), _INT64.min)
    high = min(int(MAX_MS / scale), _INT64.max)
    flags[(times < low) | (times > high)] = 1
    times[flags != 0] = 0  # so that nothing overflows
    if scale != 1:
        times *= scale.numerator
        times //= scale.denominator


def to_ms(value: Any, unit: str) -> int | None:
    """Return one time as milliseconds, rounded down, or None if it is no time.

    What has been read as a time already needs no unit.

    >>> to_ms("1506826800.026", "s"), to_ms("2017-10-01T03:00:00.026", "iso8601")
    (1506826800026, 1506826800026)
    """
    if isinstance(value, datetime):
        time_ms: int | None = _since_epoch(value)
    else:
        scale = _MS_PER_UNIT.get(unit)
        time_ms = _iso_ms(value) if scale is None else _number_ms(value, scale)
    return time_ms if time_ms is not None and MIN_MS <= time_ms <= MAX_MS else None


def _number_ms(value: Any, scale: Fraction) -> int | None:
    if isinstance(value, float) and math.isfinite(value):
        return int(Fraction(repr(value)) * scale // 1)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(Fraction(value) * scale // 1)
    if isinstance(value, int) and not isinstance(value, bool):
        return value * scale.numerator // scale.denominator
    return None


def _iso_ms(value: Any) -> int | None:
    """Read an ISO 8601 time; without a zone it is UTC."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return _since_epoch(time)


def _since_epoch(time: datetime) -> int:
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (time - _EPOCH) // timedelta(milliseconds=1)
