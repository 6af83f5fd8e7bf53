"""Event times that are moved to now, in their own unit and to the last digit."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Context, Decimal
from itertools import pairwise

from streamer.sources.mapping import Click

_PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
_FRACTION = re.compile(r"[.,]\d+")
_DATE_END = len("2026-01-31")
_SECONDS_END = len("2026-01-31T12:00:00")
_EXACT = Context(prec=100)  # more digits than a time may have


def is_number(unit: str) -> bool:
    """Tell whether times of a unit are numbers."""
    return unit in _PER_SECOND


def moved_time(text: str, unit: str, seconds: int) -> str:
    """Return a time so many whole seconds later, its fraction, zone and separator as they were.

    >>> moved_time("1506826800.026", "s", 10), moved_time("2017-10-01T03:00:00.026Z", "iso8601", 1)
    ('1506826810.026', '2017-10-01T03:00:01.026Z')
    """
    if is_number(unit):
        return f"{_EXACT.add(Decimal(text), Decimal(seconds * _PER_SECOND[unit])):f}"
    # Whole seconds leave what is behind the point alone, however many digits it has.
    fraction = _FRACTION.search(text)
    time = datetime.fromisoformat(text).replace(microsecond=0) + timedelta(seconds=seconds)
    plain = time.isoformat()
    zone = "Z" if text[-1] in "Zz" else plain[_SECONDS_END:]
    between = text[_DATE_END] if text[_DATE_END:].startswith(("t", " ")) else "T"
    plain = plain[:_DATE_END] + between + plain[_DATE_END + 1 :]
    return plain[:_SECONDS_END] + (fraction[0] if fraction else "") + zone


def seconds_to_now(clicks: Sequence[Click], now_ms: int, gap_ms: int) -> list[int]:
    """Return by how many seconds to move each click, so that its session ends now.

    Clicks of a session are moved alike: the distances between them stay. A gap that ends a
    session window ends a session here, too. Whole seconds, so that every unit can hold them.
    """
    seconds = [0] * len(clicks)
    for session in _sessions(clicks, gap_ms):
        last_ms = clicks[session[-1]].time_ms
        for at in session:
            seconds[at] = (now_ms - last_ms) // 1000
    return seconds


def _sessions(clicks: Sequence[Click], gap_ms: int) -> Iterable[list[int]]:
    """Yield the clicks of each session, in the order of their times."""
    of_key = defaultdict(list)
    for at, click in enumerate(clicks):
        # A user's name is not that of a session.
        of_key[bool(click.session), click.session or click.user].append(at)
    for members in of_key.values():
        members.sort(key=lambda at: clicks[at].time_ms)
        session = members[:1]
        for before, at in pairwise(members):
            if clicks[at].time_ms - clicks[before].time_ms > gap_ms:
                yield session
                session = []
            session.append(at)
        yield session
