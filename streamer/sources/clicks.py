"""`ClickBatch`: clicks of one partition as columns, and the dead letters among their records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from state.offsets import Partition

Headers = Sequence[tuple[str, bytes | None]]  # of a Kafka record

# Ids of different kinds are hashed under different seeds: user "5" is not session "5".
ITEM_SEED = np.uint64(0)
SESSION_SEED = np.uint64(1)
USER_SEED = np.uint64(2)
EVENT_SEED = np.uint64(3)

# Why a record is no click.
EMPTY = "empty"
NOT_UTF8 = "not_utf8"
MALFORMED = "malformed"
NO_SCHEMA = "no_schema"
NO_ITEM = "no_item"
LONG_ITEM = "long_item"
NO_USER = "no_user"
BAD_TIME = "bad_time"
BAD_WEIGHT = "bad_weight"
POISON = "poison"
REASONS = (
    EMPTY, NOT_UTF8, MALFORMED, NO_SCHEMA, NO_ITEM, LONG_ITEM, NO_USER, BAD_TIME, BAD_WEIGHT,
    POISON,
)  # fmt: skip

# Why a record that is no fault of its producer's is left out.
OTHER_KIND = "other_kind"
UNLISTED_TYPE = "unlisted_type"

# A source gives this length to a record that it did not want to hold: only its head is there.
TOO_LONG = -2
MAX_RECORD_BYTES = 16 << 20
MAX_RAW_BYTES = 4096  # of a dead letter in a file, and of a record that is too long to hold


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Bytes that are no usable click; (partition, offset) is its key."""

    partition: Partition
    offset: int
    reason: str
    detail: str
    raw: bytes  # the whole record, or the head of one that was too long to hold
    key: bytes | None = None  # of the Kafka record
    headers: Headers = ()  # of the Kafka record


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
    event_keys: NDArray[np.uint64]  # (n,), XXH64 of the event id under EVENT_SEED, 0 without one
    event_times_ms: NDArray[np.int64]  # (n,)
    weights: NDArray[np.float32]  # (n,), > 0, scales the gradient of the click's pairs
    offsets: NDArray[np.int64]  # (n,)
    record_keys: Sequence[bytes | None] = ()  # (n,), of the Kafka records; () of a file's
    record_headers: Sequence[Headers] = ()  # (n,), of the Kafka records; () where none has any
    dead_letters: tuple[DeadLetter, ...] = ()
    filtered: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets)

    def dead_letter(self, click: int, reason: str, detail: str) -> DeadLetter:
        """Return a click that turns out to be unusable as the dead letter of its record."""
        start, length = self.record_starts[click], self.record_lengths[click]
        raw = self.buffer[start : start + length].tobytes()
        key = self.record_keys[click] if self.record_keys else None
        headers = tuple(self.record_headers[click]) if self.record_headers else ()
        offset = int(self.offsets[click])
        return DeadLetter(self.partition, offset, reason, detail, raw, key, headers)
