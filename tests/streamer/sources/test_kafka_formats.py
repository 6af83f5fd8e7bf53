"""Several topics with several kinds of click, from a real broker and a registry that comes back."""

import json
import socket
import time
import uuid

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from state.offsets import Offsets, Partition
from streamer.clock import SystemClock
from streamer.errors import ConfigError
from streamer.settings.sources import Clicks, KafkaSource
from streamer.sources import avro, schema_registry
from streamer.sources.kafka import KafkaClicks
from tests.streamer.sources.decoded import EVENT, clicks, key
from tests.streamer.sources.registry import CLICK_SCHEMA, Registry, value

pytestmark = pytest.mark.kafka

PATIENCE_SECONDS = 20.0


@pytest.fixture
def topics(broker):
    names = [f"formats-{uuid.uuid4().hex}" for _ in range(2)]
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        admin.create_topics(names, wait_for_metadata=True)
    return names


@pytest.fixture
def produce(broker):
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:

        def send(topic, *values, **more):
            for one in values:
                producer.send(topic, value=one, partition=0, **more)
            producer.flush(PATIENCE_SECONDS)

        yield send


@pytest.fixture
def opened(broker, topics):
    made = []

    def make(**settings):
        kafka = KafkaSource(bootstrap_servers=(broker.bootstrap,), topics=topics)
        made.append(KafkaClicks(kafka, Clicks(**settings), SystemClock()))
        made[-1].seek(Offsets(), {})
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(schema_registry, "RETRY_SECONDS", 0.01)
    one = Registry()
    yield one
    one.close()


def read(source, n_records):
    """Return the batches with as many records, by topic."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    found, n_read = {}, 0
    while n_read < n_records:
        assert time.monotonic() < deadline, f"gave up at {source.position()}"
        batch = source.poll(0.1, 1000)
        if batch is not None:
            found.setdefault(batch.partition.topic, []).append(batch)
            n_read += batch.n_read
    return found


def test_each_topic_has_its_mapping_and_records_have_their_keys_and_headers(
    topics, produce, opened
):
    flat, events = topics
    produce(flat, b'{"uid":"u","sku":"a","kind":"buy","at":1}', b"no click", key=b"k-1")
    produce(flat, b'{"uid":"u","sku":"b","kind":"scroll","at":2}')
    produce(flat, None, key=b"k-3")
    told = {"specversion": "1.0", "source": "/s", "id": "1", "type": "t", "time": "1970-01-01"}
    produce(
        events,
        json.dumps({"item_id": "c", "user_id": "u"}).encode(),
        headers=[(f"ce_{name}", one.encode()) for name, one in told.items()],
    )
    produce(events, b"no event", key=b"k-2", headers=[("trace", b"7")])

    found = read(
        opened(
            user="uid",
            item="sku",
            time="at",
            type="kind",
            types={"buy": 3},
            topics={events: {"preset": "cloudevents"}},
        ),
        6,
    )

    of_flat, of_events = found[flat], found[events]
    assert [c[0::4] for batch in of_flat for c in clicks(batch)] == [("a", 3.0)]
    assert [one for batch in of_flat for one in batch.record_keys] == [b"k-1"]
    assert sum(batch.filtered.get("unlisted_type", 0) for batch in of_flat) == 1
    letters = [one for batch in of_flat for one in batch.dead_letters]
    assert [(one.offset, one.reason, one.raw, one.key) for one in letters] == [
        (1, "malformed", b"no click", b"k-1"),
        (3, "empty", b"", b"k-3"),
    ]
    assert [c[:4] for batch in of_events for c in clicks(batch)] == [
        ("c", clicks(of_events[0])[0].session, key(b"/s\x001", EVENT), 0)
    ]
    (letter,) = [one for batch in of_events for one in batch.dead_letters]
    assert (letter.partition, letter.reason) == (Partition(events, 0), "malformed")
    assert (letter.key, letter.headers) == (b"k-2", (("trace", b"7"),))


def test_records_wait_for_their_schema_while_others_are_read(topics, produce, opened, registry):
    waiting, flat = topics
    registry.status = 503
    registry.put(7, CLICK_SCHEMA)
    produce(waiting, *(value(7, CLICK_SCHEMA, _click(n)) for n in range(5)))
    produce(flat, json.dumps(_click(9)).encode())
    source = opened(topics={waiting: {"format": "avro", "schema_registry": registry.url}})

    assert [*read(source, 1)] == [flat]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while source.trouble() is None:
        assert time.monotonic() < deadline, "nothing was told"
        assert source.poll(0.02, 1000) is None
    told = source.trouble()
    produce(flat, json.dumps(_click(10)).encode())
    assert [*read(source, 1)] == [flat]
    assert source.position()[Partition(waiting, 0)] == 0
    registry.status = None
    found = read(source, 5)
    produce(waiting, value(7, CLICK_SCHEMA, _click(5)))
    found[waiting] += read(source, 1)[waiting]

    assert f"expected schema 7 from {registry.url}, found: HTTP status 503" in told
    assert source.trouble() is None
    items = [c.item for batch in found[waiting] for c in clicks(batch)]
    assert items == [f"i{n}" for n in range(6)]


def test_a_poll_does_not_wait_for_a_schema_beyond_its_timeout(topics, produce, opened):
    waiting, _ = topics
    produce(waiting, value(7, CLICK_SCHEMA, _click(1)))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        source = opened(format="avro", schema_registry=url)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not source._fetches.n_waiting:
            assert time.monotonic() < deadline, "nothing was fetched"
            source.poll(0.1, 1000)

        begun = time.monotonic()
        assert source.poll(0.05, 1000) is None
        assert 0.05 <= time.monotonic() - begun < 1.0


def test_a_source_without_what_its_format_needs_does_not_start(opened, monkeypatch):
    monkeypatch.setattr(avro, "_is_installed", False)

    with pytest.raises(ConfigError, match=r"livevec\[avro\]"):
        opened(format="avro", schema_registry="http://localhost:8081")


def _click(n):
    return {"user_id": "u", "item_id": f"i{n}", "ts": n}
