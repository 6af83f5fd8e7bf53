"""One unsorted stream of raw records in two partitions, and the batches it may be cut into."""

import json
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

from state.offsets import Offsets, Partition
from streamer.config import load
from streamer.pipeline import Pipeline, Start
from streamer.sources.dead_letters import DeadLetters
from streamer.sources.json_clicks import JsonDecoder

GAP_MS, MAX_JUMP_MS = 60_000, 3_600_000
N_USERS, N_ITEMS = 24, 60
_START_MS = 1_700_000_000_000
SHARE_OF_A_KIND = 0.02


class Record(NamedTuple):
    partition: int
    offset: int
    raw: bytes


def config(
    directory,
    emission="early",
    n_shards=1,
    max_items=400,
    audit=False,
    max_event_ids=1000,
    **sessions,
):
    return load(
        None,
        clicks={"max_event_ids": max_event_ids},
        sessions={
            "gap_seconds": GAP_MS / 1000,
            "emission": emission,
            "out_of_orderness_seconds": 5.0,
            "lateness_seconds": 30.0,
            "max_jump_seconds": MAX_JUMP_MS / 1000,
            "max_trained": 12,
            "max_kept": 6,
            **sessions,
        },
        training={
            "dim": 8,
            "window": 3,
            "negatives": 4,
            "noise_table_size": 256,
            "audit": audit,
        },
        store={"directory": directory, "max_items": max_items, "n_shards": n_shards},
    )


def stream(n, seed=1):
    """Clicks in a stream of one per second: late, merging, repeated, far ahead, by bots, broken.

    A user pauses for about as long as the gap, and a late click lies about as far back.
    """
    rng = np.random.default_rng(seed)
    records, offsets, last = [], [0, 0], {}
    while len(records) < n:
        partition = int(rng.integers(2))
        for _ in range(int(rng.integers(1, 60))):
            now = _START_MS + 1000 * len(records)
            offset, offsets[partition] = offsets[partition], offsets[partition] + 1
            raw = _raw(rng, now, partition, last)
            records.append(Record(partition, offset, raw))
    return records[:n]


def _raw(rng, now, partition, last):
    kind = rng.random()
    user = int(rng.integers(N_USERS)) if kind > 0.2 else N_USERS + partition  # a bot
    item = int(rng.integers(N_ITEMS) ** 2 // N_ITEMS)
    if rng.random() < 0.1:
        item = last.get(user, item)
    last[user] = item
    late = rng.random()
    if late < 0.2:
        now -= int(rng.choice([0, 0.5, 1, 1.5, 2.5]) * GAP_MS) + int(rng.integers(-1, 2))
    elif late < 0.2 + SHARE_OF_A_KIND:
        now += MAX_JUMP_MS + int(rng.integers(100_000))
    raw = json.dumps({"user_id": f"u{user}", "item_id": f"item-{item}", "ts": now}).encode()
    return raw[:-1] if rng.random() < SHARE_OF_A_KIND else raw


def parsed(record):
    """Return the click of a record as (user, item, time in ms), or None if it is none."""
    try:
        click = json.loads(record.raw)
    except json.JSONDecodeError:
        return None
    return click["user_id"], click["item_id"], click["ts"]


def partition_of(record):
    return Partition("clicks", record.partition)


def no_event(partition, offset):
    """Return the event key of a click that has no event id."""
    del partition, offset
    return 0


def batches(settings, records, sizes, event_of=no_event, decoder=None):
    """Cut the stream into batches of one partition each; `sizes` yields the next batch's bound.

    `event_of` says what the event key of the click at (partition, offset) is.
    """
    decoder = decoder or JsonDecoder(settings.clicks)
    for _, same in groupby(records, key=partition_of):
        run = list(same)
        while run:
            n = next(sizes)
            batch = _decoded(decoder, run[:n])
            keys = [event_of(batch.partition.number, offset) for offset in batch.offsets.tolist()]
            yield replace(batch, event_keys=np.array(keys, np.uint64))
            run = run[n:]


def _decoded(decoder, records):
    lengths = np.array([len(one.raw) for one in records], np.int64)
    return decoder.decode(
        partition_of(records[0]),
        np.frombuffer(bytearray(b"".join(one.raw for one in records)), np.uint8),
        np.cumsum(lengths) - lengths,
        lengths,
        np.array([one.offset for one in records], np.int64),
        records[-1].offset + 1,
    )


def pipeline(settings, directory, clock, start=None, deaths=None):
    directory.mkdir(parents=True, exist_ok=True)
    dead_letters = DeadLetters(directory / "dead_letters.jsonl", 1 << 30, 1.0)
    start = start or Start({}, Offsets(), "space")
    return Pipeline(settings, dead_letters, clock, start, deaths)
