"""Generated traffic with a known truth: tastes, drift, births of items, bots, lateness.

Clicks are made in chunks of `CHUNK` records. A chunk is a function of (seed, its number), so a
seek goes anywhere at once, and polls may cut the stream anywhere. Every record exists as one line
of JSON of fixed width, from which a file of the same traffic can be written.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from kernels.hashing import hash_spans
from state.offsets import Offsets, Partition
from streamer.clock import Clock
from streamer.errors import ConfigError
from streamer.sources.clicks import ITEM_SEED, MALFORMED, USER_SEED, ClickBatch, DeadLetter
from streamer.sources.contract import Lag, LocalSource

TASTES = {
    "espresso": ("grinder", "kettle", "tamper", "filter", "cup"),
    "trail running": ("shoe", "vest", "headlamp", "gaiter", "flask"),
    "cycling": ("saddle", "helmet", "pump", "tyre", "jersey"),
    "climbing": ("rope", "harness", "chalk bag", "carabiner", "crash pad"),
    "sailing": ("winch", "life vest", "rope clutch", "anchor", "chart"),
    "fishing": ("rod", "reel", "lure", "net", "waders"),
    "gardening": ("spade", "seed tray", "trellis", "watering can", "shears"),
    "beekeeping": ("hive", "smoker", "veil", "frame", "extractor"),
    "baking": ("loaf tin", "whisk", "proofing basket", "scale", "rolling pin"),
    "sushi": ("knife", "bamboo mat", "rice cooker", "soy set", "chopsticks"),
    "chess": ("board", "clock", "opening book", "piece set", "score sheet"),
    "astronomy": ("telescope", "eyepiece", "star atlas", "tripod", "red torch"),
    "photography": ("lens", "strap", "tripod head", "flash", "film"),
    "vinyl": ("turntable", "stylus", "sleeve", "brush", "crate"),
    "guitar": ("string set", "capo", "pedal", "amplifier", "strap"),
    "piano": ("stool", "metronome", "score", "lamp", "pedal cover"),
    "knitting": ("needles", "merino yarn", "stitch marker", "swift", "pattern"),
    "woodwork": ("chisel", "plane", "clamp", "saw", "mallet"),
    "calligraphy": ("nib", "ink", "brush pen", "paper", "desk pad"),
    "aquarium": ("pump", "gravel", "heater", "plant", "test kit"),
    "dogs": ("leash", "bowl", "basket", "harness", "chew toy"),
    "yoga": ("mat", "block", "bolster", "belt", "wheel"),
    "skiing": ("goggles", "wax", "pole", "boot bag", "helmet"),
    "camping": ("tent", "stove", "sleeping bag", "lantern", "mess tin"),
}
_NAMES = tuple(TASTES)
_NUMBER_OF_TASTE = {name.encode(): number for number, name in enumerate(_NAMES)}
_BRANDS = ("Ridge", "Harbour", "Alder", "Fjäll", "Copper", "North", "Little", "Atlas", "Pine")

CHUNK = 1 << 15
_STRIDE = 4608  # users of a chunk; a chunk has 4,430 +- 25 sessions
_USERS = 50_000  # a user is back after 79 minutes of event time, beyond any sensible gap
_START_MS = 1_767_225_600_000  # the event clock starts on 2026-01-01T00:00:00Z
_BIRTH_INTERVAL = 2_000  # clicks
_YOUTH = 300_000  # clicks over which a newborn's popularity falls by e
_LIFETIME = 2_000_000  # clicks after which nobody looks at it any more
_NAME_BYTES = 48
_HEAD = b'{"user_id":"u000000","item_id":"'
_TIME_KEY = b',"ts":'
_RECORD = np.frombuffer(
    _HEAD + b" " * (_NAME_BYTES + 1) + _TIME_KEY + b"0" * 13 + b"}\n", dtype=np.uint8
)
_USER_AT, _USER_BYTES = _HEAD.index(b"u000000"), 7
_TIME_AT = len(_HEAD) + _NAME_BYTES + 1 + len(_TIME_KEY)
_LENGTH = len(_RECORD) - 1

Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrafficSettings:
    """What the traffic is like; shares are of clicks, or of sessions where it says so."""

    seed: int = 1
    limit: int | None = None  # records after which the stream has ended
    rate: float | None = None  # records per second of the clock; None: as fast as they are read
    items_per_taste: int = 60  # at the start
    clicks_per_event_second: float = 75.0
    foreign: float = 0.1  # clicks on anything at all
    two_tastes: float = 0.15  # sessions that mix two tastes
    repeats: float = 0.03
    late: float = 0.02
    too_late: float = 0.001
    bots: float = 0.015
    malformed: float = 0.001


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """The items that are looked at during one chunk."""

    taste_ends: Shares  # (n_tastes,), cumulated popularity of the tastes, to 1
    item_ends: Shares  # (n_items,), cumulated popularity; taste t lies in [t, t + 1)
    names: NDArray[np.uint8]  # (n_items, _NAME_BYTES + 1), the id, its quote, then spaces
    lengths: Numbers
    keys: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Chunk:
    buffer: NDArray[np.uint8]
    is_click: NDArray[np.bool_]  # (CHUNK,), False where the record is malformed
    item_lengths: Numbers
    item_keys: NDArray[np.uint64]
    session_keys: NDArray[np.uint64]
    event_times_ms: Numbers


def item_name(number: int) -> str:
    """Return the name of the `number`-th item that is ever born."""
    taste, serial = number % len(_NAMES), number // len(_NAMES)
    things = TASTES[_NAMES[taste]]
    thing, brand = things[serial % len(things)], _BRANDS[(serial + taste) % len(_BRANDS)]
    return f"{_NAMES[taste]}: {brand} {thing} {serial:02}"


def taste_of(item_id: bytes) -> int:
    """Return the true taste of an item. Raises `KeyError` for an id that was never generated."""
    return _NUMBER_OF_TASTE[item_id.partition(b":")[0]]


def named_items(n: int) -> tuple[bytes, ...]:
    """Return the best known items of `n` different tastes, spread over all tastes."""
    assert 0 < n <= len(_NAMES)
    return tuple(item_name(i * len(_NAMES) // n).encode() for i in range(n))


class SimulatedClicks(LocalSource):
    """A source of generated clicks, in one partition; see `streamer/sources/contract.py`."""

    def __init__(self, settings: TrafficSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._partition = Partition("simulated", 0)
        self._next = 0
        self._chunk_at = lru_cache(maxsize=1)(partial(_chunk, settings))
        self._is_paused = False
        self._is_caught_up = False
        self._begun: tuple[float, int] | None = None  # when, and at which offset

    def partitions(self) -> tuple[Partition, ...]:
        """Return the one partition."""
        return (self._partition,)

    def seek(self, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        """Go anywhere, at no cost. Raises `ConfigError` beyond the limit."""
        wanted, limit = offsets.get(self._partition, 0), self._settings.limit
        if limit is not None and wanted > limit:
            msg = f"{self._partition}: expected an offset up to the limit {limit}, found {wanted}"
            raise ConfigError(msg)
        self._next, self._begun = wanted, None

    def poll(self, timeout_seconds: float, max_clicks: int) -> ClickBatch | None:
        """Return the next clicks that are due; a batch never spans two chunks."""
        if self.is_exhausted():
            return None
        if self._is_paused:
            self._clock.sleep(timeout_seconds)
            return None
        wanted = min(max_clicks, CHUNK - self._next % CHUNK)
        n_read = min(wanted, self._wait(timeout_seconds, wanted), self._until_limit(wanted))
        self._is_caught_up = n_read <= 0
        if n_read <= 0:
            return None
        batch = self._batch(n_read)
        self._next = batch.next_offset
        return batch

    def ended(self) -> tuple[Partition, ...]:
        """Return the partition once the limit has been reached."""
        return self.partitions() if self.is_exhausted() else ()

    def is_exhausted(self) -> bool:
        """Tell whether the limit has been reached."""
        return self._next == self._settings.limit

    def caught_up(self) -> tuple[Partition, ...]:
        """Return the partition if nothing was due at the last poll, or ever will be."""
        return self.partitions() if self._is_caught_up or self.is_exhausted() else ()

    def pause(self) -> None:
        """Generate nothing until `resume`; with a rate, what is due piles up."""
        self._is_paused = True

    def resume(self) -> None:
        """Generate again."""
        self._is_paused = False

    def position(self) -> Offsets:
        """Return the next offset."""
        return Offsets({self._partition: self._next})

    def marks(self) -> Mapping[Partition, str]:
        """Return nothing: what is generated is known by its seed."""
        return {}

    def lag(self) -> Lag:
        """Return what is due, or with neither a rate nor a limit, that nobody knows."""
        limit = self._settings.limit
        if self._settings.rate is not None:
            due = self._due()
            return Lag(due if limit is None else min(due, limit - self._next))
        return Lag(None if limit is None else limit - self._next)

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def lines(self, n: int) -> Iterator[bytes]:
        """Yield the first `n` records, malformed ones too, as lines of JSON without their ends."""
        for first in range(0, n, CHUNK):
            records = self._chunk_at(first // CHUNK).buffer.reshape(CHUNK, -1)
            for record in records[: n - first, :_LENGTH]:
                yield record.tobytes()

    def rows(self, n: int) -> Iterator[dict[str, str | int]]:
        """Yield `user_id`, `item_id` and `ts` (ms) of each click among the first `n` records."""
        for first in range(0, n, CHUNK):
            chunk = self._chunk_at(first // CHUNK)
            records = chunk.buffer.reshape(CHUNK, -1)[: n - first, :_LENGTH]
            for record in records[chunk.is_click[: n - first]]:
                yield json.loads(record.tobytes())

    def _until_limit(self, wanted: int) -> int:
        limit = self._settings.limit
        return wanted if limit is None else limit - self._next

    def _due(self) -> int:
        assert self._settings.rate is not None
        if self._begun is None:
            self._begun = (self._clock.monotonic(), self._next)
        since, first = self._begun
        return first + int((self._clock.monotonic() - since) * self._settings.rate) - self._next

    def _wait(self, timeout_seconds: float, wanted: int) -> int:
        """Return how many records are due, after waiting for a batch worth 20 ms, if need be."""
        rate = self._settings.rate
        if rate is None:
            return wanted
        worthwhile = max(1, min(wanted, self._until_limit(wanted), int(rate * 0.02)))
        if (missing := worthwhile - self._due()) > 0:
            self._clock.sleep(min(timeout_seconds, missing / rate))
        return self._due()

    def _batch(self, n_read: int) -> ClickBatch:
        chunk = self._chunk_at(self._next // CHUNK)
        base = self._next - self._next % CHUNK
        records = np.arange(self._next - base, self._next - base + n_read)
        kept, dead = records[chunk.is_click[records]], records[~chunk.is_click[records]].tolist()
        starts = kept * len(_RECORD)
        return ClickBatch(
            partition=self._partition,
            n_read=n_read,
            next_offset=self._next + n_read,
            buffer=chunk.buffer,
            record_starts=starts,
            record_lengths=np.full(len(kept), _LENGTH),
            item_starts=starts + len(_HEAD),
            item_lengths=chunk.item_lengths[kept],
            item_keys=chunk.item_keys[kept],
            session_keys=chunk.session_keys[kept],
            event_keys=np.zeros(len(kept), dtype=np.uint64),
            event_times_ms=chunk.event_times_ms[kept],
            weights=np.ones(len(kept), dtype=np.float32),
            offsets=base + kept,
            dead_letters=tuple(self._dead_letter(chunk, base, at) for at in dead),
        )

    def _dead_letter(self, chunk: _Chunk, base: int, at: int) -> DeadLetter:
        raw = chunk.buffer[at * len(_RECORD) :][:_LENGTH].tobytes()
        detail = "expected a JSON object, found a line that breaks off"
        return DeadLetter(self._partition, base + at, MALFORMED, detail, raw)


def _chunk(settings: TrafficSettings, number: int) -> _Chunk:
    rng = np.random.default_rng((settings.seed, number))
    catalogue = _catalogue(settings, number)
    users, items, order = _sessions(settings, rng, number, catalogue)
    users, items = users[order], items[order]
    times = _event_times(settings, rng, number)
    is_click = rng.random(CHUNK) >= settings.malformed
    buffer = _records(users, catalogue.names[items], times, is_click)
    session_keys = np.empty(CHUNK, dtype=np.uint64)
    user_starts = np.arange(CHUNK) * len(_RECORD) + _USER_AT
    hash_spans(buffer, user_starts, np.full(CHUNK, _USER_BYTES), USER_SEED, session_keys)
    lengths, keys = catalogue.lengths[items], catalogue.keys[items]
    return _Chunk(buffer, is_click, lengths, keys, session_keys, times)


def _catalogue(settings: TrafficSettings, number: int) -> _Catalogue:
    now, n_first = number * CHUNK, settings.items_per_taste * len(_NAMES)
    births = np.arange(max(0, now - _LIFETIME) // _BIRTH_INTERVAL, now // _BIRTH_INTERVAL)
    numbers = np.concatenate((np.arange(n_first), n_first + births))
    tastes = numbers % len(_NAMES)
    rank = numbers // len(_NAMES) + 1.0
    swing = np.where(numbers % 10 == 9, 0.8, 0.1)  # one item in ten comes and goes
    popularity = rank**-0.8 * (1 + swing * np.sin(now / 1e6 + numbers))
    popularity[n_first:] = 0.5 * np.exp(-(now - births * _BIRTH_INTERVAL) / _YOUTH) + 0.005
    by_taste = np.argsort(tastes, kind="stable")
    numbers, tastes, popularity = numbers[by_taste], tastes[by_taste], popularity[by_taste]
    of_taste = np.bincount(tastes, popularity)
    before = np.cumsum(of_taste) - of_taste
    ends = tastes + (np.cumsum(popularity) - before[tastes]) / of_taste[tastes]
    drift = 1 + 0.7 * np.sin(now / 3e6 + 2.4 * np.arange(len(_NAMES)))
    ids = [_encoded(int(one)) for one in numbers]
    text = b"".join((one + b'"').ljust(_NAME_BYTES + 1) for one in ids)
    names = np.frombuffer(bytearray(text), dtype=np.uint8)
    lengths = np.array([len(one) for one in ids])
    keys = np.empty(len(ids), dtype=np.uint64)
    hash_spans(names, np.arange(len(ids)) * (_NAME_BYTES + 1), lengths, ITEM_SEED, keys)
    names = names.reshape(len(ids), -1)
    return _Catalogue(np.cumsum(drift) / drift.sum(), ends, names, lengths, keys)


@lru_cache(maxsize=1 << 13)
def _encoded(number: int) -> bytes:
    return item_name(number).encode()


def _sessions(
    settings: TrafficSettings, rng: np.random.Generator, number: int, catalogue: _Catalogue
) -> tuple[Numbers, Numbers, Numbers]:
    """Return each click's user and item, session by session, and the order of arrival.

    The first session is a bot's, which goes on for 32 chunks; a bot's user is negative.
    """
    sizes = rng.integers(3, 13, size=CHUNK // 3)
    sizes[0] = max(1, int(settings.bots * CHUNK))
    session = np.repeat(np.arange(len(sizes)), sizes)[:CHUNK]
    rank = np.arange(CHUNK) - np.searchsorted(session, session)
    users = np.where(session == 0, -1 - number // 32, (number * _STRIDE + session) % _USERS)
    items = _items(settings, rng, session, users, catalogue)
    is_fresh = (rank == 0) | (rng.random(CHUNK) >= settings.repeats)
    items = items[np.maximum.accumulate(np.where(is_fresh, np.arange(CHUNK), 0))]
    span = rng.uniform(0.2, 1.0, size=len(sizes))
    span[0] = 1.0
    begin = rng.random(len(sizes)) * (1 - span)
    moments = begin[session] + span[session] * rank / sizes[session]
    return users, items, np.argsort(moments, kind="stable")


def _items(
    settings: TrafficSettings,
    rng: np.random.Generator,
    session: Numbers,
    users: Numbers,
    catalogue: _Catalogue,
) -> Numbers:
    def draw(n: int) -> Numbers:
        return np.searchsorted(catalogue.taste_ends, rng.random(n), side="right")

    n_sessions = int(session[-1]) + 1
    home = users * 7919 % len(_NAMES)
    first = np.where(rng.random(n_sessions)[session] < 0.5, home, draw(n_sessions)[session])
    is_mixed = rng.random(n_sessions) < settings.two_tastes
    second = np.where(is_mixed, draw(n_sessions), -1)[session]
    tastes = np.where((second >= 0) & (rng.random(CHUNK) < 0.5), second, first)
    is_foreign = (rng.random(CHUNK) < settings.foreign) | (users < 0)
    tastes = np.where(is_foreign, rng.integers(0, len(_NAMES), size=CHUNK), tastes)
    found = np.searchsorted(catalogue.item_ends, tastes + rng.random(CHUNK), side="right")
    return np.minimum(found, len(catalogue.lengths) - 1)  # the last end may round to below 24


def _event_times(settings: TrafficSettings, rng: np.random.Generator, number: int) -> Numbers:
    """Return when each click happened; a late one did so earlier than it arrives."""
    offsets = number * CHUNK + np.arange(CHUNK)
    times = _START_MS + (offsets * (1000 / settings.clicks_per_event_second)).astype(np.int64)
    fate = rng.random(CHUNK)
    delay = np.minimum(rng.exponential(60_000.0, size=CHUNK), 280_000.0)
    delay[fate >= settings.late] = 0
    is_too_late = fate < settings.too_late
    delay[is_too_late] = rng.uniform(2_400_000.0, 3_000_000.0, size=CHUNK)[is_too_late]
    return times - delay.astype(np.int64)


def _records(
    users: Numbers, names: NDArray[np.uint8], times: Numbers, is_click: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    records = np.tile(_RECORD, (CHUNK, 1))
    records[:, _USER_AT] = np.where(users < 0, ord("b"), ord("u"))
    _write_digits(np.abs(users), records[:, _USER_AT + 1 : _USER_AT + _USER_BYTES])
    records[:, len(_HEAD) : len(_HEAD) + _NAME_BYTES + 1] = names
    _write_digits(times, records[:, _TIME_AT : _TIME_AT + 13])
    records[~is_click, _LENGTH - 1] = ord(" ")  # the closing brace
    return records.reshape(-1)


def _write_digits(numbers: Numbers, out: NDArray[np.uint8]) -> None:
    rest = numbers
    for column in range(out.shape[1] - 1, -1, -1):
        rest, digit = np.divmod(rest, 10)
        out[:, column] = digit + ord("0")
