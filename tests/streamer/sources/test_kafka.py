"""The source over Kafka, against a real broker."""

import signal
import socket
import time

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from structlog.testing import capture_logs

from deploy.broker.broker import Broker
from state.offsets import Offsets, Partition
from streamer.errors import BrokerError, ConfigError
from streamer.settings.sources import Clicks, KafkaSource
from streamer.sources import kafka_places
from streamer.sources.kafka import KafkaClicks
from streamer.sources.kafka_client import check_client, connect
from tests.streamer.sources.topics import (
    PATIENCE_SECONDS,
    POLL_SECONDS,
    all_items,
    click,
    read,
    read_to_end,
    send,
)

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_read(codec, broker, new_topic, open_source):
    topic = new_topic()
    with KafkaProducer(bootstrap_servers=broker.bootstrap, compression_type=codec) as producer:
        send(producer, topic, map(click, range(300)))

    batches = read_to_end(open_source(topic))

    assert all_items(batches) == [b"i%d" % n for n in range(300)]
    assert [int(o) for batch in batches for o in batch.offsets] == list(range(300))


def test_a_batch_is_of_one_partition_and_partitions_take_turns(new_topic, producer, open_source):
    topic = new_topic(3)
    for index in range(3):
        send(producer, topic, map(click, range(1000 * index, 1000 * index + 40)), index)

    batches = read_to_end(open_source(topic), max_clicks=10)

    for index in range(3):
        of_one = [batch for batch in batches if batch.partition == Partition(topic, index)]
        assert all_items(of_one) == [b"i%d" % (1000 * index + n) for n in range(40)]
    assert all(batch.n_read <= 10 for batch in batches)


def test_records_without_key_or_value_are_counted(new_topic, producer, open_source):
    topic = new_topic()
    producer.send(topic, key=None, value=click(1), partition=0)
    producer.send(topic, key=b"k", value=None, partition=0)
    producer.send(topic, key=b"k", value=click(3), partition=0)
    producer.flush()

    batches = read_to_end(open_source(topic))

    assert all_items(batches) == [b"i1", b"i3"]
    letters = [letter for batch in batches for letter in batch.dead_letters]
    assert [(letter.offset, letter.raw) for letter in letters] == [(1, b"")]
    assert "null" in letters[0].detail
    assert sum(batch.n_read for batch in batches) == 3


def test_a_batch_knows_the_keys_of_its_records(new_topic, producer, open_source):
    topic = new_topic()
    keys = [b"a", None, b"", b"d"]
    for number, key in enumerate(keys):
        value = click(number) if number != 3 else b"{"
        producer.send(topic, key=key, value=value, partition=0)
    producer.flush()

    batches = read_to_end(open_source(topic), max_clicks=3)

    found = [
        pair
        for batch in batches
        for pair in zip(batch.offsets.tolist(), batch.record_keys, strict=True)
    ]
    assert found == [(0, b"a"), (1, None), (2, b"")]
    (letter,) = [letter for batch in batches for letter in batch.dead_letters]
    assert (letter.offset, letter.key) == (3, b"d")


def test_what_is_no_click_becomes_a_dead_letter_with_its_place(new_topic, producer, open_source):
    topic = new_topic(2)
    send(producer, topic, [click(0), b"{no json", click(2)], 1)

    batches = read_to_end(open_source(topic))

    (letter,) = [letter for batch in batches for letter in batch.dead_letters]
    assert (letter.partition, letter.offset) == (Partition(topic, 1), 1)
    assert letter.raw == b"{no json"
    assert all_items(batches) == [b"i0", b"i2"]


def test_an_aborted_transaction_is_not_read_and_its_offsets_are_passed(
    broker, new_topic, open_source
):
    topic = new_topic()
    with KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=topic) as producer:
        producer.init_transactions()
        for numbers, is_kept in ((range(5), True), (range(5, 10), False)):
            producer.begin_transaction()
            send(producer, topic, map(click, numbers))
            if is_kept:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    source = open_source(topic)

    batches = read_to_end(source)

    assert all_items(batches) == [b"i%d" % n for n in range(5)]
    # Ten records and a marker behind each transaction.
    assert source.position()[Partition(topic, 0)] == 12
    assert batches[-1].next_offset == 12


def abort(bootstrap: str, topic: str, values, partition: int = 0) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        send(producer, topic, values, partition)
        producer.abort_transaction()


def test_where_all_is_aborted_the_position_reaches_the_end(broker, new_topic, open_source):
    topic = new_topic()
    abort(broker.bootstrap, topic, map(click, range(3)))
    source = open_source(topic)

    batches = read(source, lambda: set(source.caught_up()) == set(source.partitions()))

    assert [(batch.n_read, batch.next_offset) for batch in batches] == [(0, 4)]
    assert source.lag().clicks == 0


def test_a_busy_partition_does_not_hide_that_another_has_moved(
    broker, new_topic, producer, open_source
):
    topic = new_topic(2)
    for n in range(0, 300, 100):
        send(producer, topic, map(click, range(n, n + 100)), 0)
    abort(broker.bootstrap, topic, [click(0)], 1)
    # A fetch brings one record batch of a partition, so that the first has more all the time.
    source = open_source(topic, client={"max_partition_fetch_bytes": 1000})

    read(source, lambda: source.position()[Partition(topic, 1)] == 2, max_clicks=1)

    assert source.position()[Partition(topic, 0)] < 300


def test_polls_may_ask_for_fewer_clicks_than_were_fetched(new_topic, producer, open_source):
    topic = new_topic(2)
    for index in range(2):
        send(producer, topic, map(click, range(100 * index, 100 * index + 50)), index)
    source = open_source(topic)

    batches = read(source, lambda: source.lag().clicks < 100)
    batches += read_to_end(source, max_clicks=3)

    for index in range(2):
        of_one = [batch for batch in batches if batch.partition == Partition(topic, index)]
        assert all_items(of_one) == [b"i%d" % (100 * index + n) for n in range(50)]


def test_clicks_of_an_open_transaction_wait_for_its_end(broker, new_topic, open_source):
    topic = new_topic()
    with KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=topic) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        send(producer, topic, [click(0)])
        source = open_source(topic)

        # Longer than the broker holds back an empty answer.
        before = source.poll(1.0, 10)
        lag_before = source.lag().clicks
        producer.commit_transaction()
        batches = read_to_end(source)

    assert before is None
    assert lag_before == 1
    assert all_items(batches) == [b"i0"]


def test_a_second_source_goes_on_at_the_position_of_the_first(new_topic, producer, open_source):
    topic = new_topic(2)
    for index in range(2):
        send(producer, topic, map(click, range(100 * index, 100 * index + 50)), index)
    first = open_source(topic)
    batches = [first.poll(PATIENCE_SECONDS, 7) for _ in range(3)]
    offsets = first.position()
    first.close()

    batches += read_to_end(open_source(topic, offsets=offsets))

    assert sorted(all_items(batches)) == sorted(
        b"i%d" % (100 * index + n) for index in range(2) for n in range(50)
    )


def test_the_position_counts_what_was_handed_out_not_what_was_fetched(
    new_topic, producer, open_source
):
    topic = new_topic()
    send(producer, topic, map(click, range(20)))
    source = open_source(topic)

    batch = source.poll(PATIENCE_SECONDS, 5)

    assert batch is not None
    assert batch.n_read == batch.next_offset == 5
    assert source.position() == Offsets({Partition(topic, 0): 5})
    assert source.lag().clicks == 15


def test_the_position_keeps_what_belongs_to_other_sources(new_topic, open_source):
    topic = new_topic()
    other = Offsets({Partition("/data/history.csv", 0): 123})

    source = open_source(topic, offsets=other)

    assert source.position() == Offsets(
        {Partition("/data/history.csv", 0): 123, Partition(topic, 0): 0}
    )


def test_lag_is_known_at_the_start_and_zero_at_the_end(new_topic, producer, open_source):
    topic = new_topic(2)
    send(producer, topic, map(click, range(5)))
    source = open_source(topic)
    before = source.lag().clicks, tuple(source.caught_up())

    read(source, lambda: len(tuple(source.caught_up())) == 2)

    assert before == (5, ())
    assert source.lag().clicks == 0
    assert not source.is_exhausted()
    assert tuple(source.ended()) == ()


def test_a_paused_source_returns_nothing_until_it_is_resumed(
    broker, new_topic, producer, manual_clock
):
    topic = new_topic()
    send(producer, topic, [click(0)])
    settings = KafkaSource(bootstrap_servers=(broker.bootstrap,), topics=(topic,))
    source = KafkaClicks(settings, Clicks(), manual_clock)
    source.seek(Offsets(), {})

    source.pause()
    source.pause()
    paused = source.poll(5.0, 10)
    waited = manual_clock.monotonic()
    source.resume()
    batches = read_to_end(source)
    source.close()

    assert paused is None
    assert waited == 5.0
    assert all_items(batches) == [b"i0"]


def test_a_poll_of_an_empty_topic_ends_at_its_timeout(new_topic, open_source):
    source = open_source(new_topic())
    source.poll(POLL_SECONDS, 10)

    before = time.monotonic()
    batch = source.poll(0.1, 10)

    assert batch is None
    # The fetch that waits at the broker takes up to 0.5 s; the poll does not wait for it.
    assert time.monotonic() - before < 0.4


def test_a_missing_topic_is_named(broker, open_source):
    with pytest.raises(BrokerError, match=r"expected topic 'no-such-topic' at .*, found none"):
        open_source("no-such-topic")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_where_nobody_listens_the_error_comes_in_time_and_says_why():
    settings = KafkaSource(
        bootstrap_servers=(f"127.0.0.1:{free_port()}",), topics=("x",), connect_timeout_seconds=1
    )
    before = time.monotonic()

    with pytest.raises(BrokerError) as caught:
        connect(settings)

    assert time.monotonic() - before < 3
    assert "within 1 s" in str(caught.value)
    assert "ECONNREFUSED" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_password_is_an_error_in_time_that_names_the_password(broker):
    if broker.sasl_bootstrap is None:
        pytest.skip("the broker of LIVEVEC_TEST_BROKER has no listener with a known password")
    login = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "livevec",
    }
    settings = {
        "bootstrap_servers": (broker.sasl_bootstrap,),
        "topics": ("x",),
        "connect_timeout_seconds": 1,
    }
    connect(KafkaSource(client={**login, "sasl_plain_password": "secret"}, **settings)).close()

    with pytest.raises(BrokerError, match="password"):
        connect(KafkaSource(client={**login, "sasl_plain_password": "wrong"}, **settings))


def test_settings_of_the_client_are_checked_all_at_once():
    client = {"fetch_max_byte": 1, "group_id": "mine", "fetch_max_bytes": 1000}
    settings = KafkaSource(bootstrap_servers=("h:1",), topics=("x",), client=client)

    with pytest.raises(ConfigError) as caught:
        check_client(settings)

    one, two = caught.value.faults
    assert one.startswith("source.kafka.client.fetch_max_byte: ")
    assert one.endswith("did you mean fetch_max_bytes")
    assert two.startswith("source.kafka.client.group_id: cannot be set here")


@pytest.mark.parametrize("protocol", ["SASL-SSL", "ssl", "TLS"])
def test_a_misspelt_protocol_is_not_taken_for_plain_text(protocol):
    client = {"security_protocol": protocol}
    settings = KafkaSource(bootstrap_servers=("h:1",), topics=("x",), client=client)

    with pytest.raises(ConfigError, match=f"one of PLAINTEXT, SSL, .* found '{protocol}'"):
        check_client(settings)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("max_poll_records", 0, "expected at least 1, found 0"),
        ("max_poll_records", "many", "expected a whole number, found 'many'"),
        ("fetch_max_bytes", [1], r"expected a whole number, found \[1\]"),
        ("check_crcs", "perhaps", "expected true or false, found 'perhaps'"),
    ],
)
def test_a_setting_of_the_client_has_its_type(name, value, fault):
    settings = KafkaSource(bootstrap_servers=("h:1",), topics=("x",), client={name: value})

    with pytest.raises(ConfigError, match=f"^source.kafka.client.{name}: {fault}$"):
        check_client(settings)


def test_settings_of_the_client_may_come_from_the_environment(new_topic, open_source):
    client = {"max_poll_records": "7", "check_crcs": "false"}
    source = open_source(new_topic(1), client=client)

    assert source._consumer.config["max_poll_records"] == 7
    assert source._consumer.config["check_crcs"] is False


def test_a_setting_that_the_client_cannot_use_is_a_configuration_error():
    client = {"fetch_max_wait_ms": 60_000}
    settings = KafkaSource(bootstrap_servers=("127.0.0.1:1",), topics=("x",), client=client)

    with pytest.raises(ConfigError, match=r"source.kafka: expected settings .* fetch_max_wait_ms"):
        connect(settings)


@pytest.mark.crash
@pytest.mark.slow
def test_a_broker_that_hangs_dies_and_comes_back_blocks_no_poll_and_loses_nothing(
    broker, tmp_path, open_source
):
    if broker.sasl_bootstrap is None:
        pytest.skip("the broker of LIVEVEC_TEST_BROKER is not ours to kill")
    own = Broker(tmp_path)
    own.start()
    with KafkaAdminClient(bootstrap_servers=own.bootstrap) as admin:
        admin.create_topics({"clicks": {"num_partitions": 2}}, wait_for_metadata=True)
    with KafkaProducer(bootstrap_servers=own.bootstrap) as producer:
        send(producer, "clicks", [click(0)])
    source = open_source("clicks", bootstrap_servers=(own.bootstrap,))
    batches = read_to_end(source)

    slowest = 0.0
    for one in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
        own._process.send_signal(one)
        before = time.monotonic()
        assert source.poll(POLL_SECONDS, 10) is None
        source.publish_position(source.position())
        assert source.lag().clicks == 0
        slowest = max(slowest, time.monotonic() - before)
    own.kill()
    own.start()
    with KafkaProducer(bootstrap_servers=own.bootstrap) as producer:
        send(producer, "clicks", [click(1)])
    batches += read(source, lambda: source.position()[Partition("clicks", 0)] == 2)
    source.close()
    own.stop()

    assert slowest < POLL_SECONDS + 0.3
    assert all_items(batches) == [b"i0", b"i1"]


def test_a_partition_that_the_client_has_forgotten_is_asked_for_anew(
    new_topic, producer, open_source, monkeypatch
):
    monkeypatch.setattr(kafka_places, "ASK_ANEW_SECONDS", 0.5)
    topic = new_topic(2)
    source = open_source(topic)
    read_to_end(source)
    source._consumer.pause(TopicPartition(topic, 1))
    send(producer, topic, [click(0)], 0)
    send(producer, topic, [click(1)], 1)

    with capture_logs() as lines:
        batches = read(source, lambda: set(source.position().values()) == {1})

    assert sorted(all_items(batches)) == [b"i0", b"i1"]
    stalled = [line["partition"] for line in lines if line["event"] == "partition_stalled"]
    assert stalled == [f"{topic}[1]"]


def test_what_is_held_back_comes_when_it_is_released_in_order_and_once(
    new_topic, producer, open_source
):
    topic = new_topic(3)
    for index in range(3):
        send(producer, topic, map(click, range(100 * index, 100 * index + 60)), index)
    source = open_source(topic)
    held = {Partition(topic, 0), Partition(topic, 1)}

    batches = [source.poll(PATIENCE_SECONDS, 7) for _ in range(4)]
    source.hold_back(held)
    others = read(source, lambda: source.position()[Partition(topic, 2)] == 60, max_clicks=7)
    nothing = [source.poll(0.1, 7) for _ in range(3)]
    source.hold_back({Partition(topic, 1)})
    batches += read(source, lambda: source.position()[Partition(topic, 0)] == 60, max_clicks=7)
    source.hold_back(())
    batches += read_to_end(source, max_clicks=7)

    assert {batch.partition for batch in others} == {Partition(topic, 2)}
    assert nothing == [None] * 3
    for index in range(3):
        mine = [one for one in [*batches, *others] if one.partition == Partition(topic, index)]
        mine.sort(key=lambda batch: batch.next_offset)
        assert all_items(mine) == [b"i%d" % (100 * index + n) for n in range(60)]


def test_closing_twice_is_quick(new_topic, open_source):
    source = open_source(new_topic())
    source.poll(0.01, 10)
    before = time.monotonic()

    source.close()
    source.close()

    assert time.monotonic() - before < 1
