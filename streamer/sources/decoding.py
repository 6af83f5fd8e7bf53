"""Records into a `ClickBatch`: plain ones by a kernel, others one by one; bad ones as dead letters.

The fast path is a kernel that reads plain records (`kernels/clicks.py`). What it flags, and all
that no kernel knows, goes record by record through a reader of its format, and comes back as a
click in its place, as a dead letter, or filtered. Why a record is no click is one of `REASONS`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.hashing import hash_spans
from state.deaths import DEATHS, DECODING, Deaths
from state.offsets import Partition
from streamer.errors import InvalidEvent, StreamError
from streamer.settings.clicks import ClickMapping, is_template
from streamer.sources.clicks import (
    EMPTY,
    EVENT_SEED,
    ITEM_SEED,
    MALFORMED,
    MAX_RAW_BYTES,
    MAX_RECORD_BYTES,
    NOT_UTF8,
    POISON,
    SESSION_SEED,
    TOO_LONG,
    USER_SEED,
    ClickBatch,
    DeadLetter,
    Headers,
)
from streamer.sources.event_times import column_to_ms
from streamer.sources.mapping import Click, ClickReader, Filtered

T = TypeVar("T")

NO_VALUE = -1  # the length of a record without a value
_N_IDS = 4  # of a click: item, user, session, event
_N_KERNEL_IDS = 3  # of those that a kernel finds
_N_NAMES = 4  # of these and the time


class Records(NamedTuple):
    """The arguments of `decode` that are one row a record."""

    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    keys: Sequence[bytes | None]
    headers: Sequence[Headers]

    def raw(self, i: int) -> bytes:
        """Return the bytes of record i, or the head of one that is too long to hold."""
        start, length = int(self.starts[i]), int(self.lengths[i])
        length = MAX_RAW_BYTES if length == TOO_LONG else max(length, 0)
        return self.buffer[start : start + length].tobytes()

    def of_headers(self, i: int) -> Headers:
        """Return the headers of record i, if there are any."""
        return tuple(self.headers[i]) if self.headers else ()

    def dead_letter(self, i: int, partition: Partition, error: InvalidEvent) -> DeadLetter:
        """Return record i, which is no click, as a dead letter."""
        return DeadLetter(
            partition,
            int(self.offsets[i]),
            error.reason,
            error.detail,
            self.raw(i),
            self.keys[i] if self.keys else None,
            self.of_headers(i),
        )

    def only(self, i: int) -> "Records":
        """Return record i by itself."""
        here = slice(i, i + 1)
        starts, lengths, offsets = self.starts[here], self.lengths[here], self.offsets[here]
        return Records(self.buffer, starts, lengths, offsets, self.keys[here], self.headers[here])

    def without(self, rows: Sequence[int]) -> "Records":
        """Return the records, those of `rows` as if they had no value."""
        lengths = self.lengths.copy()
        lengths[rows] = NO_VALUE
        return self._replace(lengths=lengths)


class Columns(NamedTuple):
    """What is found of n records; see `kernels/clicks.py`."""

    spans: NDArray[np.int64]  # (8, n), start and length of item, user, session and event id
    times: NDArray[np.int64]  # (n,)
    weights: NDArray[np.float32]  # (n,)
    flags: NDArray[np.uint8]  # (n,), 1 where the record is no click, or none yet

    @property
    def of_kernel(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """The part that a kernel writes."""
        return self.spans[: 2 * _N_KERNEL_IDS], self.times, self.flags


class Decoder(ABC):
    """Records of one format into clicks; a subclass knows the format.

    Raises nothing for bytes, whatever they are: each record is a click, filtered or a dead letter.
    """

    def __init__(self, mapping: ClickMapping) -> None:
        self._mapping = mapping
        self.reader = ClickReader(mapping)
        self._deaths = Deaths()

    def decode(  # noqa: PLR0913, PLR0917 - a batch of records is these columns
        self,
        partition: Partition,
        buffer: NDArray[np.uint8],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        offsets: NDArray[np.int64],
        next_offset: int,
        keys: Sequence[bytes | None] = (),
        headers: Sequence[Headers] = (),
    ) -> ClickBatch:
        """Return the clicks among the records of `buffer` that begin at `starts`.

        A length of -1 is a record without a value, `TOO_LONG` one of which only the head is
        there. A buffer that cannot be written is copied: the kernels are compiled for others.
        `keys` and `headers` are those of Kafka records, one of each a record, or none at all:
        `headers` are none, too, where no record has any.
        """
        buffer = np.require(buffer, np.uint8, ["C", "W"])
        records = Records(buffer, starts, lengths, offsets, keys, headers)
        if not len(offsets):
            return self._decode(partition, records, next_offset, ())
        try:
            return self._decode_noted(partition, records, next_offset)
        except StreamError:
            self._deaths.clear(DECODING)  # told, not died of: a schema is still to come, say
            raise

    def _decode_noted(self, partition: Partition, records: Records, next_offset: int) -> ClickBatch:
        """Decode, so that a death on the way leaves a note of where it was."""
        offsets = records.offsets
        poison = self._deaths.refused(partition, offsets)
        for i in set(self._deaths.alone(DECODING, partition, offsets)) - set(poison):
            offset = int(offsets[i])
            self._deaths.note(DECODING, partition, offset, offset + 1)
            self._decode(partition, records.only(i), offset + 1, ())  # does it end the process?
        self._deaths.note(DECODING, partition, int(offsets[0]), int(offsets[-1]) + 1)
        batch = self._decode(partition, records, next_offset, poison)
        self._deaths.clear(DECODING)
        return batch

    def watch(self, deaths: Deaths) -> None:
        """Note from now on what is decoded, and leave out what is quarantined."""
        self._deaths = deaths

    def _decode(
        self, partition: Partition, records: Records, next_offset: int, poison: Sequence[int]
    ) -> ClickBatch:
        _, starts, lengths, offsets, keys, headers = records
        n = len(starts)
        columns = Columns(
            np.empty((2 * _N_IDS, n), np.int64),
            np.zeros(n, np.int64),
            np.ones(n, np.float32),
            np.empty(n, np.uint8),
        )
        self._parse(records.without(poison) if poison else records, columns)
        column_to_ms(columns.times, columns.flags, self._mapping.time_unit)
        buffer, dead_letters, filtered = self._read_flagged(partition, records, columns, poison)
        kept = np.flatnonzero(columns.flags == 0)
        n_ids = _N_IDS if self._mapping.event_id else _N_KERNEL_IDS
        spans = np.ascontiguousarray(columns.spans[: 2 * n_ids, kept])
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
            event_keys=_event_keys(buffer, spans),
            event_times_ms=columns.times[kept],
            weights=columns.weights[kept],
            offsets=offsets[kept],
            record_keys=_kept(keys, kept),
            record_headers=_kept(headers, kept),
            dead_letters=dead_letters,
            filtered=filtered,
        )

    def _read_flagged(
        self, partition: Partition, records: Records, columns: Columns, poison: Sequence[int]
    ) -> tuple[NDArray[np.uint8], tuple[DeadLetter, ...], Mapping[str, int]]:
        """Read what was flagged, one by one.

        Returns the buffer with the ids so found behind it, and what is no click.
        """
        rows, clicks, dead_letters = [], [], []
        filtered: Counter[str] = Counter()
        for i in np.flatnonzero(columns.flags).tolist():
            try:
                click = _refuse() if i in poison else self._read_one(records, i)
            except InvalidEvent as error:
                dead_letters.append(records.dead_letter(i, partition, error))
                continue
            if isinstance(click, Filtered):
                filtered[click.reason] += 1
                continue
            rows.append(i)
            clicks.append(click)
        buffer = _written(clicks, rows, records.buffer, columns) if clicks else records.buffer
        return buffer, tuple(dead_letters), filtered

    def _read_one(self, records: Records, i: int) -> Click | Filtered:
        length = int(records.lengths[i])
        if length == TOO_LONG:
            msg = f"expected at most {MAX_RECORD_BYTES} bytes, found more"
            raise InvalidEvent(MALFORMED, msg)
        value = records.raw(i) if length >= 0 else None
        return self.reader.read(self.fields(value, records.of_headers(i)))

    def _parse(self, records: Records, columns: Columns) -> None:
        """Read what is plain, and flag the rest; all of it where no kernel knows the format."""
        del records
        columns.flags[:] = 1

    @abstractmethod
    def fields(self, value: bytes | None, headers: Headers = ()) -> Mapping[str, Any]:
        """Return the fields of one record, plain or not. Raises `InvalidEvent`."""


def _refuse() -> NoReturn:
    msg = (
        f"the process died {DEATHS} times at this record; mend what it meets, then put it back: "
        "livevec replay --reason poison"
    )
    raise InvalidEvent(POISON, msg)


def plain_names(mapping: ClickMapping) -> tuple[str, ...] | None:
    """Return the names of item, user, session and time, if a click is these alone, else None.

    Each has one name then; without a session of its own a click's session has none.
    """
    if mapping.only or mapping.types or mapping.weight or mapping.event_id:
        return None
    session = "" if mapping.session == mapping.user else mapping.session
    names = [
        name
        for name in (mapping.item, mapping.user, session, mapping.time)
        if isinstance(name, str)
    ]
    return tuple(names) if len(names) == _N_NAMES and not is_template(names[0]) else None


def content(value: bytes | None) -> bytes:
    """Return the value of a record that has one. Raises `InvalidEvent`."""
    if not value:
        msg = "expected a click, found " + ("a null record" if value is None else "0 bytes")
        raise InvalidEvent(EMPTY, msg)
    return value


def as_text(value: bytes) -> str:
    """Return bytes as the text that they are in UTF-8. Raises `InvalidEvent`."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        msg = f"expected UTF-8, found byte {value[error.start]:#04x} at {error.start}"
        raise InvalidEvent(NOT_UTF8, msg) from error


def _written(
    clicks: Sequence[Click], rows: Sequence[int], buffer: NDArray[np.uint8], columns: Columns
) -> NDArray[np.uint8]:
    """Write clicks to their rows of the columns; return the buffer with their ids behind it."""
    texts = [text for click in clicks for text in click.ids]
    sizes = np.array([len(text) for text in texts], np.int64)
    starts = len(buffer) + np.cumsum(sizes) - sizes
    columns.spans[0::2, rows] = starts.reshape(-1, _N_IDS).T
    columns.spans[1::2, rows] = sizes.reshape(-1, _N_IDS).T
    columns.times[rows] = [click.time_ms for click in clicks]
    columns.weights[rows] = [click.weight for click in clicks]
    columns.flags[rows] = 0
    return np.concatenate((buffer, np.frombuffer(b"".join(texts), np.uint8)))


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


def _event_keys(buffer: NDArray[np.uint8], spans: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash the event id of each click; 0 says that it has none, so a hash of 0 is 1."""
    if len(spans) == 2 * _N_KERNEL_IDS:
        return np.zeros(spans.shape[1], np.uint64)
    keys = np.maximum(_hashes(buffer, spans[6], spans[7], EVENT_SEED), np.uint64(1))
    keys[spans[7] == 0] = 0
    return keys


def _kept(column: Sequence[T], kept: NDArray[np.intp]) -> Sequence[T]:
    is_all = len(column) in {0, len(kept)}
    return column if is_all else [column[i] for i in kept.tolist()]
