"""Where reading begins, and what the policies make of what is lost."""

import time

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import NewPartitions

from state.deaths import Deaths, Quarantined
from state.offsets import Offsets, Partition
from streamer.errors import BrokerError
from streamer.settings.sources import KafkaSource
from streamer.sources.kafka_cluster import Topic
from streamer.sources.kafka_positions import Mark, Positions
from streamer.sources.kafka_watch import Sight
from tests.streamer.sources.topics import (
    PATIENCE_SECONDS,
    all_items,
    click,
    read,
    read_to_end,
    send,
)

pytestmark = pytest.mark.kafka


def test_a_topic_that_was_made_anew_is_refused(admin, new_topic, producer, open_source):
    topic = new_topic(2)
    for index in range(2):
        send(producer, topic, map(click, range(5)), index)
    source = open_source(topic)
    read_to_end(source)
    offsets, marks = source.position(), source.marks()
    assert set(marks) == set(offsets)
    again = open_source(topic, offsets=offsets, marks=marks)
    admin.delete_topics([topic])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while topic in admin.list_topics():
        assert time.monotonic() < deadline, "the topic is still there"
    admin.create_topics({topic: {"num_partitions": 2}}, wait_for_metadata=True)
    with KafkaProducer(bootstrap_servers=again._settings.bootstrap_servers) as fresh:
        for index in range(2):
            send(fresh, topic, map(click, range(5, 15)), index)

    anew = open_source(topic)  # from nothing it may be read

    assert len(all_items(read_to_end(anew))) == 20
    with pytest.raises(BrokerError, match=r"offset 5 of the topic with id .* was made anew since"):
        open_source(topic, offsets=offsets, marks=marks)


@pytest.mark.parametrize(
    ("offset", "complaint"),
    [
        (1, "holds 4 and later: clicks 1 to 3 were deleted before they were read"),
        (11, "the log was cut back to 10"),
    ],
)
def test_a_position_that_the_broker_does_not_hold_is_an_error(
    offset, complaint, admin, new_topic, producer, open_source
):
    topic = new_topic()
    send(producer, topic, map(click, range(10)))
    admin.delete_records({TopicPartition(topic, 0): 4})

    with pytest.raises(BrokerError) as caught:
        open_source(topic, offsets=Offsets({Partition(topic, 0): offset}))

    message = str(caught.value)
    assert f"{topic}[0]: expected to go on at offset {offset}" in message
    assert complaint in message


def test_what_is_deleted_before_it_is_read_is_an_error_and_never_skipped(
    admin, new_topic, producer, open_source
):
    topic = new_topic()
    source = open_source(topic)
    send(producer, topic, map(click, range(10)))
    admin.delete_records({TopicPartition(topic, 0): 10})

    with pytest.raises(BrokerError, match=rf"{topic}\[0\]: expected to go on at offset 0"):
        read(source, lambda: False)

    assert source.position() == Offsets({Partition(topic, 0): 0})


def test_a_partition_that_is_gone_is_an_error(new_topic, open_source):
    topic = new_topic()

    with pytest.raises(BrokerError, match=rf"{topic}\[5\]: expected to go on at offset 3"):
        open_source(topic, offsets=Offsets({Partition(topic, 5): 3}))


def test_a_first_start_reads_all_or_only_what_comes(new_topic, producer, open_source):
    topic = new_topic()
    send(producer, topic, [click(0)])

    earliest = open_source(topic, start="earliest")
    latest = open_source(topic, start="latest")
    send(producer, topic, [click(1)])

    assert all_items(read(earliest, lambda: earliest.position()[Partition(topic, 0)] == 2)) == [
        b"i0",
        b"i1",
    ]
    assert all_items(read(latest, lambda: latest.position()[Partition(topic, 0)] == 2)) == [b"i1"]


def test_a_partition_that_was_added_begins_at_its_beginning_whatever_start_says(
    new_topic, producer, open_source
):
    topic = new_topic(2)
    send(producer, topic, [click(0)], 0)
    send(producer, topic, [click(1)], 1)

    source = open_source(topic, start="latest", offsets=Offsets({Partition(topic, 0): 1}))

    assert source.position() == Offsets({Partition(topic, 0): 1, Partition(topic, 1): 0})


def test_a_first_start_may_begin_at_a_time(broker, new_topic, open_source):
    topic = new_topic(2)
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for n in range(10):
            producer.send(topic, click(n), partition=0, timestamp_ms=1_700_000_000_000 + 1000 * n)
        producer.send(topic, click(99), partition=1, timestamp_ms=1_600_000_000_000)
        producer.flush(PATIENCE_SECONDS)

    source = open_source(topic, start="2023-11-14T22:13:27Z")  # 1,700,000,007 s

    assert source.position() == Offsets({Partition(topic, 0): 7, Partition(topic, 1): 1})
    assert all_items(read_to_end(source)) == [b"i7", b"i8", b"i9"]


def test_what_retention_deleted_is_skipped_and_counted_where_that_is_wanted(
    admin, new_topic, producer, open_source
):
    topic = new_topic()
    send(producer, topic, map(click, range(10)))
    admin.delete_records({TopicPartition(topic, 0): 4})

    source = open_source(topic, offsets=Offsets({Partition(topic, 0): 1}), on_lost_offsets="skip")

    assert source.losses() == {"expired": 3}
    assert all_items(read_to_end(source)) == [b"i%d" % n for n in range(4, 10)]


def test_what_is_deleted_while_it_waits_is_skipped_and_counted_too(
    admin, new_topic, producer, open_source
):
    topic = new_topic()
    source = open_source(topic, on_lost_offsets="skip")
    send(producer, topic, map(click, range(10)))
    admin.delete_records({TopicPartition(topic, 0): 6})

    batches = read(source, lambda: source.position()[Partition(topic, 0)] == 10)

    assert source.losses() == {"expired": 6}
    assert all_items(batches) == [b"i%d" % n for n in range(6, 10)]


def test_a_topic_that_was_made_anew_is_read_from_its_beginning_where_that_is_wanted(
    admin, new_topic, producer, open_source
):
    topic = new_topic()
    send(producer, topic, map(click, range(5)))
    marks = {Partition(topic, 0): str(Mark("another id", 0, 7, 1_700_000_000_000))}

    source = open_source(
        topic,
        offsets=Offsets({Partition(topic, 0): 8}),
        marks=marks,
        on_recreated_topic="restart",
    )

    assert source.losses() == {"recreated": 0}
    assert all_items(read_to_end(source)) == [b"i%d" % n for n in range(5)]


def test_brokers_that_know_of_no_ids_say_nothing_of_another_topic(new_topic, producer, open_source):
    topic = new_topic()
    send(producer, topic, map(click, range(5)))
    partition = Partition(topic, 0)
    (own,) = open_source(topic).marks().values()

    source = open_source(topic, offsets=Offsets({partition: 3}), marks={partition: str(Mark(""))})

    assert source.position() == Offsets({partition: 3})
    assert source.marks() == {partition: own}  # from now on it is known


def test_a_click_is_quarantined_no_more_where_its_offset_is_another_clicks(tmp_path):
    policies = {"on_recreated_topic": "restart", "on_truncated_log": "resume"}
    settings = KafkaSource(bootstrap_servers=["a:1"], topics=["clicks"], **policies)
    cut, anew = Partition("clicks", 0), Partition("clicks", 1)
    quarantined = [Quarantined(one, at) for one in (cut, anew) for at in (3, 5)]
    deaths = Deaths(path=tmp_path / "deaths.json")
    deaths.record.quarantined = quarantined
    positions = Positions(settings, None)
    positions.watch(deaths)
    ends = {cut: 4, anew: 9}
    sight = Sight({"clicks": Topic("id", (cut, anew))}, {cut: 0, anew: 0}, ends, ends, {})
    marks = {cut: str(Mark("id")), anew: str(Mark("another id"))}

    positions.resolve(sight, Offsets({cut: 9, anew: 9}), marks)

    assert deaths.record.quarantined == [Quarantined(cut, 3)]


def position_of(open_source, topic):
    source = open_source(topic)
    read_to_end(source)
    return source.position(), source.marks()


def test_another_record_at_the_last_offset_is_another_log(new_topic, producer, open_source):
    topic = new_topic()
    send(producer, topic, map(click, range(5)))
    offsets, marks = position_of(open_source, topic)
    mark = Mark.parse(marks[Partition(topic, 0)])
    changed = {Partition(topic, 0): str(mark._replace(last_time_ms=mark.last_time_ms - 1))}

    with pytest.raises(BrokerError, match="offset 5, found that the log was cut back to 4"):
        open_source(topic, offsets=offsets, marks=changed)
    resumed = open_source(topic, offsets=offsets, marks=changed, on_truncated_log="resume")

    assert mark.last_offset == 4
    assert open_source(topic, offsets=offsets, marks=marks).position() == offsets
    assert all_items(read_to_end(resumed)) == [b"i4"]


def test_a_missing_topic_is_waited_for_where_that_is_wanted(
    admin, new_topic, producer, open_source
):
    topic, later = new_topic(), f"later-{time.time_ns()}"
    source = open_source(topic, later, on_missing_topic="ignore", start="latest")
    send(producer, topic, [click(0)])

    read(source, lambda: source.position().get(Partition(topic, 0)) == 1)
    trouble = source.trouble()
    admin.create_topics({later: {"num_partitions": 1}}, wait_for_metadata=True)
    send(producer, later, [click(1)])  # before the source has looked again
    batches = read(source, lambda: source.position().get(Partition(later, 0)) == 1)

    assert trouble is None  # it was said at the start, and that it may be missing is wanted
    assert all_items(batches) == [b"i1"]


def test_a_partition_that_is_added_is_read_from_its_beginning(
    admin, new_topic, producer, open_source
):
    topic = new_topic(1)
    send(producer, topic, [click(0)])
    source = open_source(topic, start="latest")
    read(source, lambda: source.lag().clicks == 0)

    admin.create_partitions({topic: NewPartitions(2)})
    producer.send(topic, value=click(1), partition=0).get(PATIENCE_SECONDS)
    with KafkaProducer(bootstrap_servers=source._settings.bootstrap_servers) as fresh:
        send(fresh, topic, [click(2)], 1)
    batches = read(source, lambda: source.position().get(Partition(topic, 1)) == 1)

    assert sorted(all_items(batches)) == [b"i1", b"i2"]
    assert source.partitions() == (Partition(topic, 0), Partition(topic, 1))
    assert set(source.marks()) == set(source.partitions())


def test_a_share_of_the_partitions_is_read_and_no_other(new_topic, producer, open_source):
    topic = new_topic(3)
    for index in range(3):
        send(producer, topic, [click(index)], index)

    source = open_source(topic, partitions=(0, 2))

    assert sorted(all_items(read_to_end(source))) == [b"i0", b"i2"]
    assert source.position() == Offsets({Partition(topic, 0): 1, Partition(topic, 2): 1})
    with pytest.raises(BrokerError, match=r"expected partitions \[3\] of topic"):
        open_source(topic, partitions=(0, 3))


def test_what_an_open_transaction_holds_back_is_told(broker, new_topic, producer, open_source):
    topic = new_topic()
    send(producer, topic, [click(0)])
    source = open_source(topic)
    partition = Partition(topic, 0)
    with KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=topic) as open_one:
        open_one.init_transactions()
        open_one.begin_transaction()
        send(open_one, topic, [click(1)])
        send(producer, topic, [click(2)])

        read(source, lambda: source.lag().held_back_seconds.get(partition, 0) > 0)
        held = source.lag()
        open_one.abort_transaction()
    batches = read(source, lambda: source.lag().clicks == 0 and source.position()[partition] == 4)

    assert (held.by_partition[partition], held.held_back[partition]) == (2, 2)
    assert not held.is_readable(partition)
    assert all_items(batches) == [b"i2"]
    assert source.lag().held_back == {partition: 0}
