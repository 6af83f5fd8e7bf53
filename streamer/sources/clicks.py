"""`ClickBatch`, and decoding bytes into it; bytes that are no click become reasoned dead letters.

The fast path is a kernel that reads plain records (`kernels/clicks.py`). What it flags goes
record by record through msgspec or csv, and comes back as a click in its place or a dead letter.
Why a record is no click is one of `REASONS`.
"""

import csv
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from kernels.clicks import MAX_ITEM_BYTES, parse_json, split_csv
from kernels.hashing import hash_spans
from state.offsets import Partition
from streamer.errors import ConfigError, InvalidEvent
from streamer.settings import sources as config
from streamer.sources.event_times import column_to_ms, to_ms

# Ids of different kinds are hashed under different seeds: user "5" is not session "5".
ITEM_SEED = np.uint64(0)
SESSION_SEED = np.uint64(1)
USER_SEED = np.uint64(2)

# Why a record is no click.
EMPTY = "empty"
NOT_UTF8 = "not_utf8"
MALFORMED = "malformed"
NO_ITEM = "no_item"
LONG_ITEM = "long_item"
NO_USER = "no_user"
BAD_TIME = "bad_time"
REASONS = (EMPTY, NOT_UTF8, MALFORMED, NO_ITEM, LONG_ITEM, NO_USER, BAD_TIME)

# A source gives this length to a record that it did not want to hold: only its head is there.
TOO_LONG = -2
MAX_RECORD_BYTES = 16 << 20
MAX_RAW_BYTES = 4096  # of a record that is too long to hold, and of a dead letter in a file

_DEFAULT_SESSION = config.Clicks.model_fields["session"].default


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Bytes that are no usable click; (partition, offset) is its key."""

    partition: Partition
    offset: int
    reason: str
    detail: str
    raw: bytes  # whole, but for a record of over `MAX_RECORD_BYTES`
    key: bytes | None = None  # of the Kafka record


def _no_key(offset: int) -> None:
    """Return the key of a record that is none of Kafka's."""


@dataclass(frozen=True, slots=True)
class ClickBatch:
    """Clicks of one partition as columns, in offset order; n clicks out of `n_read` records.

    n + len(dead_letters) + sum(filtered) == n_read (nothing-vanishes).
    `next_offset` is where reading goes on once this batch is applied.
    """

    partition: Partition
    n_read: int
    next_offset: int
    buffer: NDArray[np.uint8]  # (n_bytes,), holds the records and the ids
    record_starts: NDArray[np.int64]  # (n,), the raw record of each click, for a late dead letter
    record_lengths: NDArray[np.int64]  # (n,)
    item_starts: NDArray[np.int64]  # (n,), the item's id in `buffer`: UTF-8
    item_lengths: NDArray[np.int64]  # (n,), > 0
    item_keys: NDArray[np.uint64]  # (n,), XXH64 of the id under ITEM_SEED
    session_keys: NDArray[np.uint64]  # (n,), XXH64 of the session id, else of the user id
    event_times_ms: NDArray[np.int64]  # (n,)
    weights: NDArray[np.float32]  # (n,), scales the gradient of the click's pairs
    offsets: NDArray[np.int64]  # (n,)
    dead_letters: tuple[DeadLetter, ...] = ()
    key_at: Callable[[int], bytes | None] = _no_key  # of the record at an offset
    filtered: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets)


class Click(NamedTuple):
    """One click that was read by itself; an absent id is empty."""

    item: bytes
    user: bytes
    session: bytes
    time_ms: int


class _Records(NamedTuple):
    """The arguments of `decode` that are one row a record."""

    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def raw(self, i: int) -> bytes:
        """Return the bytes of record i, or the head of one that is too long to hold."""
        start, length = int(self.starts[i]), int(self.lengths[i])
        length = MAX_RAW_BYTES if length == TOO_LONG else max(length, 0)
        return self.buffer[start : start + length].tobytes()


class _Columns(NamedTuple):
    """What a kernel writes of n records; see `kernels/clicks.py`."""

    spans: NDArray[np.int64]  # (6, n)
    times: NDArray[np.int64]  # (n,)
    flags: NDArray[np.uint8]  # (n,)


class Decoder(ABC):
    """Records of one format into clicks; a subclass knows the format.

    Raises nothing for bytes, whatever they are: each record is a click or a dead letter.
    """

    def __init__(self, settings: config.Clicks) -> None:
        self._settings = settings

    def decode(  # noqa: PLR0913, PLR0917 - a batch of records is these columns
        self,
        partition: Partition,
        buffer: NDArray[np.uint8],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        offsets: NDArray[np.int64],
        next_offset: int,
    ) -> ClickBatch:
        """Return the clicks among the records of `buffer` that begin at `starts`.

        A length of -1 is a record without a value, `TOO_LONG` one of which only the head is
        there. A buffer that cannot be written is copied: the kernels are compiled for others.
        """
        buffer = np.require(buffer, np.uint8, ["C", "W"])
        records = _Records(buffer, starts, lengths, offsets)
        n = len(starts)
        columns = _Columns(np.empty((6, n), np.int64), np.zeros(n, np.int64), np.empty(n, np.uint8))
        self._parse(records, columns)
        column_to_ms(columns.times, columns.flags, self._settings.time_unit)
        buffer, dead_letters = self._read_flagged(partition, records, columns)
        kept = np.flatnonzero(columns.flags == 0)
        spans = np.ascontiguousarray(columns.spans[:, kept])
        return ClickBatch(
            partition=partition,
            n_read=n,
            next_offset=next_offset,
            buffer=buffer,
            record_starts=starts[kept],
            record_lengths=lengths[kept],
            item_starts=spans[0],
            item_lengths=spans[1],
            item_keys=_hashes(buffer, spans[0], spans[1], ITEM_SEED),
            session_keys=_session_keys(buffer, spans),
            event_times_ms=columns.times[kept],
            weights=np.ones(len(kept), np.float32),
            offsets=offsets[kept],
            dead_letters=dead_letters,
        )

    def read(self, raw: bytes) -> Click:
        """Return one record as a click. Raises `InvalidEvent`."""
        return self._read_one(raw, len(raw))

    def _read_flagged(
        self, partition: Partition, records: _Records, columns: _Columns
    ) -> tuple[NDArray[np.uint8], tuple[DeadLetter, ...]]:
        """Read what was flagged, one by one; return the buffer with the ids so found behind it."""
        found = bytearray()
        dead_letters = []
        n_bytes = len(records.buffer)
        for i in np.flatnonzero(columns.flags).tolist():
            raw = records.raw(i)
            try:
                click = self._read_one(raw, int(records.lengths[i]))
            except InvalidEvent as error:
                offset = int(records.offsets[i])
                dead_letters.append(DeadLetter(partition, offset, error.reason, error.detail, raw))
                continue
            for row, text in enumerate(click[:3]):
                columns.spans[2 * row : 2 * row + 2, i] = n_bytes + len(found), len(text)
                found += text
            columns.times[i] = click.time_ms
            columns.flags[i] = 0
        if not found:
            return records.buffer, tuple(dead_letters)
        joined = np.concatenate((records.buffer, np.frombuffer(found, np.uint8)))
        return joined, tuple(dead_letters)

    def _read_one(self, raw: bytes, length: int) -> Click:
        if length == TOO_LONG:
            msg = f"expected at most {MAX_RECORD_BYTES} bytes, found more"
            raise InvalidEvent(MALFORMED, msg)
        if length <= 0:
            msg = "expected a click, found " + ("0 bytes" if length == 0 else "a null record")
            raise InvalidEvent(EMPTY, msg)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            msg = f"expected UTF-8, found byte {raw[error.start]:#04x} at {error.start}"
            raise InvalidEvent(NOT_UTF8, msg) from error
        return self._read(text)

    def _click(self, item: bytes, user: bytes, session: bytes, time: Any) -> Click:
        names = self._settings
        if not item:
            msg = f"expected an item in {names.item!r}, found none"
            raise InvalidEvent(NO_ITEM, msg)
        if len(item) > MAX_ITEM_BYTES:
            msg = f"expected an item of at most {MAX_ITEM_BYTES} bytes, found {len(item)}"
            raise InvalidEvent(LONG_ITEM, msg)
        if not user and not session:
            where = " or ".join(repr(name) for name in (names.user, names.session) if name)
            msg = f"expected a user or a session in {where}, found none"
            raise InvalidEvent(NO_USER, msg)
        return Click(item, user, session, self._time_ms(time))

    def _time_ms(self, value: Any) -> int:
        unit = self._settings.time_unit
        time_ms = to_ms(value, unit)
        if time_ms is None:
            found = reprlib.repr(value)
            msg = f"expected a time ({unit}) in {self._settings.time!r}, found {found}"
            raise InvalidEvent(BAD_TIME, msg)
        return time_ms

    @abstractmethod
    def _parse(self, records: _Records, columns: _Columns) -> None:
        """Read what is plain, and flag the rest."""

    @abstractmethod
    def _read(self, text: str) -> Click:
        """Read one record, plain or not. Raises `InvalidEvent`."""


class JsonDecoder(Decoder):
    """Each record is a JSON object with the fields of `settings` at its top."""

    def __init__(self, settings: config.Clicks) -> None:
        super().__init__(settings)
        # A session field that is the user field says nothing more than the user.
        self._session = "" if settings.session == settings.user else settings.session
        names = [settings.item, settings.user, self._session, settings.time]
        encoded = [name.encode() for name in names]
        self._names = np.frombuffer(bytearray(b"".join(encoded)), np.uint8)
        self._name_ends = np.cumsum([len(name) for name in encoded]).astype(np.int64)
        self._json = msgspec.json.Decoder()

    def _parse(self, records: _Records, columns: _Columns) -> None:
        parse_json(*records[:3], self._names, self._name_ends, *columns)

    def _read(self, text: str) -> Click:
        try:
            record = self._json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            msg = f"expected a JSON object: {reprlib.repr(str(error))}"
            raise InvalidEvent(MALFORMED, msg) from error
        if not isinstance(record, dict):
            msg = f"expected a JSON object, found {reprlib.repr(record)}"
            raise InvalidEvent(MALFORMED, msg)
        settings = self._settings
        item, user, session = (
            _id_bytes(record, name) for name in (settings.item, settings.user, self._session)
        )
        return self._click(item, user, session, record.get(settings.time))


class CsvDecoder(Decoder):
    """Each record is a line under `header`; `where` names the file in errors.

    A line is one record: a quoted line feed is not supported, and its line is malformed.
    """

    def __init__(
        self, settings: config.Clicks, header: list[str], delimiter: str, where: str = "CSV"
    ) -> None:
        super().__init__(settings)
        if not delimiter.isascii() or delimiter in '"\r\n' or len(delimiter) != 1:
            msg = f"{where}: expected one ASCII character as delimiter, found {delimiter!r}"
            raise ConfigError(msg)
        self._delimiter = delimiter
        self._n_columns = len(header)
        self._columns = _csv_columns(settings, header, where)
        self._layout = np.array([*self._columns, len(header)], np.int64)
        # One limit for the process, 128 KiB by default; the source's bound is the one that holds.
        csv.field_size_limit(MAX_RECORD_BYTES)

    def _parse(self, records: _Records, columns: _Columns) -> None:
        delimiter = np.uint8(ord(self._delimiter))
        split_csv(*records[:3], self._layout, delimiter, *columns)

    def _read(self, text: str) -> Click:
        try:
            rows = list(csv.reader([text], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            msg = f"expected one line of CSV: {error}"
            raise InvalidEvent(MALFORMED, msg) from error
        found = len(rows[0]) if len(rows) == 1 else 0
        if found != self._n_columns:
            msg = f"expected {self._n_columns} columns, found {found}"
            raise InvalidEvent(MALFORMED, msg)
        item, user, session = (
            rows[0][column].encode() if column >= 0 else b"" for column in self._columns[:3]
        )
        return self._click(item, user, session, rows[0][self._columns[3]])


def _csv_columns(settings: config.Clicks, header: Sequence[str], where: str) -> list[int]:
    """Return the columns of item, user, session and time; -1 where there is none."""
    session = "" if settings.session == settings.user else settings.session
    names = {"item": settings.item, "user": settings.user, "session": session}
    names["time"] = settings.time
    twice = sorted({name for name in names.values() if header.count(name) > 1})
    absent = [key for key, name in names.items() if name and name not in header]
    faults = [f"{key} column {names[key]!r}" for key in ("item", "time") if key in absent]
    has_session = bool(session) and "session" not in absent
    if "user" in absent and not has_session:
        faults.append(f"user column {settings.user!r}")
    elif "session" in absent and session != _DEFAULT_SESSION:
        faults.append(f"session column {session!r}")
    if twice or faults:
        expected = f"{' and '.join(faults)}" if faults else f"column {twice[0]!r} once"
        fields = " and ".join(f"clicks.{fault.split()[0]}" for fault in faults) or "the header"
        msg = (
            f"{where}: expected {expected}, found columns {list(header)!r}; set {fields}; or is"
            " source.files.delimiter not right, or the first line no header?"
        )
        raise ConfigError(msg)
    return [header.index(name) if name in header else -1 for name in names.values()]


def _hashes(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    seed: np.uint64,
) -> NDArray[np.uint64]:
    hashes = np.empty(len(starts), np.uint64)
    hash_spans(buffer, starts, lengths, seed, hashes)
    return hashes


def _session_keys(buffer: NDArray[np.uint8], spans: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash the session of each click, or its user where it has none."""
    keys = _hashes(buffer, spans[4], spans[5], SESSION_SEED)
    alone = np.flatnonzero(spans[5] == 0)
    if len(alone):
        keys[alone] = _hashes(buffer, spans[2, alone], spans[3, alone], USER_SEED)
    return keys


def _id_bytes(record: Mapping[str, Any], name: str) -> bytes:
    """Return the id under `name` as text; null, absent or nameless is empty."""
    value = record.get(name) if name else None
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value).encode()
    msg = f"expected a string or an integer in {name!r}, found {reprlib.repr(value)}"
    raise InvalidEvent(MALFORMED, msg)
