"""Records through a decoder, and the clicks of a batch one by one."""

from typing import NamedTuple

import numpy as np
import xxhash

from state.offsets import Partition

PARTITION = Partition("clicks", 3)
ITEM, SESSION, USER, EVENT = 0, 1, 2, 3  # the seeds of the kinds of ids, as the format states them


class Click(NamedTuple):
    item: str
    session: int
    event: int
    time_ms: int
    weight: float
    offset: int


def key(text, seed):
    return xxhash.xxh64_intdigest(text if isinstance(text, bytes) else text.encode(), seed)


def decoded(decoder, records, keys=(), headers=()):
    """Return the batch of some values, at offsets 0, 1, ...; each is accounted for once."""
    lengths = np.array([-1 if one is None else len(one) for one in records], np.int64)
    sizes = np.maximum(lengths, 0)
    buffer = np.frombuffer(bytearray(b"".join(one or b"" for one in records)), np.uint8)
    starts, offsets = np.cumsum(sizes) - sizes, np.arange(len(records), dtype=np.int64)
    batch = decoder.decode(PARTITION, buffer, starts, lengths, offsets, len(records), keys, headers)
    n_kept = len(batch)
    assert n_kept + len(batch.dead_letters) + sum(batch.filtered.values()) == len(records)
    for column in (batch.event_keys, batch.weights, batch.item_keys, batch.session_keys):
        assert len(column) == n_kept
    assert (batch.event_keys.dtype, batch.weights.dtype) == (np.uint64, np.float32)
    return batch


def clicks(batch):
    spans = zip(batch.item_starts, batch.item_lengths, strict=True)
    items = [batch.buffer[start : start + length].tobytes() for start, length in spans]
    assert batch.item_keys.tolist() == [key(item, ITEM) for item in items]
    columns = (
        [item.decode() for item in items],
        batch.session_keys.tolist(),
        batch.event_keys.tolist(),
        batch.event_times_ms.tolist(),
        batch.weights.tolist(),
        batch.offsets.tolist(),
    )
    return [Click(*row) for row in zip(*columns, strict=True)]


def one(batch):
    assert batch.dead_letters == ()
    (click,) = clicks(batch)
    return click


def reasons(batch):
    return [letter.reason for letter in batch.dead_letters]
