"""Clicks for topics, and what a source makes of them."""

import json
import time
from collections.abc import Callable

from kafka import KafkaProducer

from streamer.sources.clicks import ClickBatch
from streamer.sources.kafka import KafkaClicks

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 20.0


def click(n: int) -> bytes:
    return json.dumps({"user_id": f"u{n % 3}", "item_id": f"i{n}", "ts": 1000 + n}).encode()


def send(producer: KafkaProducer, topic: str, values, partition: int = 0) -> None:
    for value in values:
        producer.send(topic, value=value, partition=partition)
    producer.flush(PATIENCE_SECONDS)


def items(batch: ClickBatch) -> list[bytes]:
    spans = zip(batch.item_starts, batch.item_lengths, strict=True)
    return [batch.buffer[start : start + length].tobytes() for start, length in spans]


def read(source: KafkaClicks, until: Callable[[], bool], max_clicks: int = 1000):
    """Return the batches that come until a condition holds, each position already behind it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    batches: list[ClickBatch] = []
    while not until():
        assert time.monotonic() < deadline, f"gave up at {source.position()}"
        batch = source.poll(POLL_SECONDS, max_clicks)
        if batch is not None:
            assert source.position()[batch.partition] == batch.next_offset
            batches.append(batch)
    return batches


def read_to_end(source: KafkaClicks, max_clicks: int = 1000) -> list[ClickBatch]:
    return read(source, lambda: source.lag().clicks == 0, max_clicks)


def all_items(batches) -> list[bytes]:
    return [item for batch in batches for item in items(batch)]
