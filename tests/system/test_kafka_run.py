"""`livevec run` over Kafka, as a process: it goes on where the manifest says, killed or drained."""

import socket
import time

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from state.offsets import Partition
from tests.system.runs import PATIENCE_SECONDS, adds_up, clicks, wait_for
from tests.system.topic import N_PARTITIONS, ends_of, has_committed, produce

pytestmark = pytest.mark.kafka

DEADLINE_SECONDS = 12.0


def test_a_second_run_goes_on_where_the_first_was_drained(over_kafka, producer, topic):
    rows = clicks(6000)
    produce(producer, topic, rows[:4000])

    running = over_kafka.start()
    wait_for(has_committed(over_kafka, 4000), "the first clicks")
    first = running.terminated()
    produce(producer, topic, rows[4000:])
    running = over_kafka.start()
    wait_for(has_committed(over_kafka, 6000), "the others")
    second = running.terminated()

    assert (first.code, second.code) == (0, 0)
    assert first.complaints == second.complaints == []
    assert first.summary["clicks"] == 4000
    (restored,) = second.events("restored")
    assert restored["clicks"] == 4000
    assert sorted(restored["position"]) == [
        f"{partition}:{end}" for partition, end in ends_of(topic, rows[:4000]).items()
    ]
    assert second.summary["clicks"] == 6000
    assert adds_up(second.summary)
    assert over_kafka.newest().manifest.offsets == ends_of(topic, rows)
    assert clicks_of_items(over_kafka) == second.summary["applied"]


@pytest.mark.crash
def test_a_run_that_was_killed_loses_nothing_and_reads_nothing_twice(over_kafka, producer, topic):
    rows = clicks(6000)
    over_kafka.configure({"source": {"max_clicks_per_second": 1500.0}})
    produce(producer, topic, rows[:4000])

    running = over_kafka.start()
    wait_for(lambda: over_kafka.committed() > 500, "a generation in the stream")
    running.kill()
    committed = over_kafka.committed()
    produce(producer, topic, rows[4000:])
    running = over_kafka.start()
    wait_for(has_committed(over_kafka, 6000), "all clicks")
    run = running.terminated()

    assert committed < 4000
    (restored,) = run.events("restored")
    assert restored["clicks"] == committed
    assert run.code == 0
    assert run.summary["clicks"] == 6000
    assert adds_up(run.summary)
    assert over_kafka.newest().manifest.offsets == ends_of(topic, rows)
    assert clicks_of_items(over_kafka) == run.summary["applied"]


def clicks_of_items(livevec) -> int:
    """Return how many clicks the rows of the store have been trained with."""
    sections = livevec.newest().sections
    shards = [section for name, section in sections.items() if name.startswith("shard-")]
    return int(sum(shard.arrays["clicks"].sum() for shard in shards))


def test_malformed_values_become_dead_letters_with_their_offsets(over_kafka, producer, topic):
    produce(producer, topic, clicks(500))
    broken = producer.send(topic, value=b"no click", partition=1).get(PATIENCE_SECONDS)
    empty = producer.send(topic, key=b"u", value=None, partition=2).get(PATIENCE_SECONDS)

    running = over_kafka.start()
    wait_for(has_committed(over_kafka, 502), "all records")
    run = running.terminated()

    assert run.code == 0
    assert adds_up(run.summary)
    assert run.summary["clicks"] == 502
    letters = [
        (one["partition"], one["offset"], one["reason"]) for one in over_kafka.dead_letters()
    ]
    assert sorted(letters) == [(1, broken.offset, "malformed"), (2, empty.offset, "empty")]


def test_offsets_of_the_group_follow_the_generations(over_kafka, broker, producer, topic):
    rows = clicks(2000)
    produce(producer, topic, rows)

    running = over_kafka.start()
    wait_for(has_committed(over_kafka, 2000), "all clicks")
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id=f"group-{topic}", enable_auto_commit=False
    )
    partitions = [TopicPartition(topic, number) for number in range(N_PARTITIONS)]

    def group() -> dict[Partition, int]:
        return {Partition(*one): consumer.committed(one) for one in partitions}

    wait_for(lambda: group() == ends_of(topic, rows), "the group's offsets")
    run = running.terminated()

    assert run.code == 0
    assert group() == over_kafka.newest().manifest.offsets
    consumer.close()


@pytest.mark.slow
def test_a_broker_that_cannot_be_reached_is_one_line_and_soon(livevec):
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*unheard.getsockname())
        livevec.configure({"source.kafka": {"bootstrap_servers": [address], "topics": ["clicks"]}})
        begun = time.monotonic()

        ended = livevec.run()

        took = time.monotonic() - begun

    assert ended.code == 3
    (line,) = ended.complaints
    assert line.startswith(f"livevec: source.kafka: expected a broker at {address}")
    assert took < DEADLINE_SECONDS + 5.0  # the interpreter's own start, on a busy machine


def test_a_missing_topic_is_named(over_kafka):
    over_kafka.configure({"source.kafka": {"topics": ["no-such-topic"]}})

    ended = over_kafka.run()

    assert ended.code == 3
    (line,) = ended.complaints
    assert line.startswith("livevec: source.kafka.topics: expected topic 'no-such-topic'")


@pytest.mark.slow
def test_a_topic_that_was_made_anew_is_one_line_and_its_offsets_are_not_believed(
    over_kafka, broker, admin, producer, topic
):
    rows = clicks(600)
    produce(producer, topic, rows)
    running = over_kafka.start()
    wait_for(has_committed(over_kafka, 600), "all clicks")
    running.terminated()

    admin.delete_topics([topic])
    wait_for(lambda: topic not in admin.list_topics(), "the end of the topic")
    admin.create_topics({topic: {"num_partitions": N_PARTITIONS}}, wait_for_metadata=True)
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as fresh:
        produce(fresh, topic, rows)
    ended = over_kafka.run()

    assert ended.code == 3
    (line,) = ended.complaints
    assert "was made anew since" in line
    assert line.endswith("to begin anew, name another store.directory")
    assert over_kafka.committed() == 600
