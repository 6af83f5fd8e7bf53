"""`livevec run` whose dead letters go to a Kafka topic: killed, refused, and its broker away."""

import json
import signal
import urllib.request
import uuid
from collections import Counter

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from deploy.broker.broker import Broker
from tests.system.runs import PATIENCE_SECONDS, adds_up, clicks, wait_for

pytestmark = pytest.mark.kafka

N_PARTITIONS = 2


@pytest.fixture
def topics(admin):
    """Return the topics of clicks and of their dead letters."""
    names = [f"{kind}-{uuid.uuid4().hex}" for kind in ("clicks", "letters")]
    admin.create_topics(
        {name: {"num_partitions": N_PARTITIONS} for name in names}, wait_for_metadata=True
    )
    return names


def over(livevec, bootstrap, topics):
    livevec.configure(
        {
            "source.kafka": {"bootstrap_servers": [bootstrap], "topics": [topics[0]]},
            "dead_letters": {"topic": topics[1]},
            "clicks": {"max_dead_letter_share": 0.2},
            "sessions": {"lateness_seconds": 3600.0},
            "checkpoint": {"interval_seconds": 0.3},
        }
    )
    return livevec


def produce(bootstrap, topic, rows, broken):
    """Send rows to partitions in turn, some of them as what is no click."""
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        for at, row in enumerate(rows):
            value = b"what?" if at in broken else json.dumps(row).encode()
            key = str(row["user_id"]).encode()
            producer.send(topic, value, key=key, partition=at % N_PARTITIONS)
        producer.flush(PATIENCE_SECONDS)


def letters_in(bootstrap, topic, n):
    """Return the records of a topic once there are `n` different ones, by where they are from."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    consumer.assign([TopicPartition(topic, number) for number in range(N_PARTITIONS)])
    found = {}

    def are_there():
        for records in consumer.poll(100).values():
            for one in records:
                found.setdefault(place_of(one), []).append(one)
        return len(found) >= n

    wait_for(are_there, f"{n} letters")
    while any(consumer.poll(300).values()):
        pass
    consumer.close()
    return found


def place_of(record):
    said = {name: value.decode() for name, value in record.headers}
    return said["topic"], int(said["partition"]), int(said["offset"])


def ends_of(consumer, topic):
    places = [TopicPartition(topic, number) for number in range(N_PARTITIONS)]
    return sum(consumer.end_offsets(places).values())


def places(topic, broken):
    return {(topic, at % N_PARTITIONS, at // N_PARTITIONS) for at in broken}


def test_letters_of_a_run_are_in_the_topic_and_counted(livevec, broker, topics):
    rows, broken = clicks(600), {5, 6, 77, 300}
    produce(broker.bootstrap, topics[0], rows, broken)
    over(livevec, broker.bootstrap, topics)

    running = livevec.start()
    wait_for(lambda: livevec.committed() == 600, "all records")
    address = running.event("metrics_listening")["address"]

    def metrics():
        with urllib.request.urlopen(f"{address}/metrics") as answer:
            return answer.read().decode().splitlines()

    wait_for(lambda: "livevec_dead_letters_sent_total 4.0" in metrics(), "the count of letters")
    n_waiting = [line for line in metrics() if line.startswith("livevec_dead_letters_waiting")]
    run = running.terminated()

    assert run.code == 0
    assert run.complaints == []
    assert adds_up(run.summary)
    assert run.summary["dead_lettered"] == len(broken)
    found = letters_in(broker.bootstrap, topics[1], len(broken))
    assert found.keys() == places(topics[0], broken)
    (letter,) = found[topics[0], 1, 38]
    assert (letter.value, letter.key) == (b"what?", str(rows[77]["user_id"]).encode())
    assert n_waiting == ["livevec_dead_letters_waiting 0.0"]
    assert not (livevec.state / "dead-letters.jsonl").exists()


@pytest.mark.slow
@pytest.mark.crash
def test_a_kill_behind_letters_that_no_generation_counts_loses_none(livevec, broker, topics):
    rows, broken = clicks(4000), set(range(7, 4000, 40))
    produce(broker.bootstrap, topics[0], rows, broken)
    over(livevec, broker.bootstrap, topics)
    livevec.configure({"source": {"max_clicks_per_second": 2000.0}})

    with KafkaConsumer(bootstrap_servers=broker.bootstrap) as consumer:
        running = livevec.start()
        wait_for(lambda: livevec.committed() > 0, "a generation in the stream")
        before = ends_of(consumer, topics[1])
        wait_for(lambda: ends_of(consumer, topics[1]) > before, "more letters")
        running.kill()
    running = livevec.start()
    wait_for(lambda: livevec.committed() == 4000, "all records")
    run = running.terminated()

    assert run.code == 0
    assert run.summary["dead_lettered"] == len(broken)
    found = letters_in(broker.bootstrap, topics[1], len(broken))
    assert found.keys() == places(topics[0], broken)


def test_beyond_the_limit_the_letters_at_hand_are_delivered(livevec, broker, topics):
    rows, broken = clicks(400), set(range(100, 400))
    produce(broker.bootstrap, topics[0], rows, broken)
    over(livevec, broker.bootstrap, topics)
    livevec.configure({"checkpoint": {"interval_seconds": 60.0}})

    run = livevec.run()

    assert run.code == 5
    (line,) = run.complaints
    assert f"see topic '{topics[1]}' at {broker.bootstrap}" in line
    assert livevec.committed() == 0
    found = letters_in(broker.bootstrap, topics[1], 101)
    assert found.keys() <= places(topics[0], broken)
    assert Counter(len(one) for one in found.values()).keys() == {1}


def test_a_missing_topic_of_dead_letters_is_one_line(livevec, broker, topics):
    over(livevec, broker.bootstrap, [topics[0], "no-such-letters"])

    run = livevec.run()

    assert run.code == 3
    (line,) = run.complaints
    assert line.startswith("livevec: dead_letters.topic: expected topic 'no-such-letters'")


@pytest.mark.slow
@pytest.mark.crash
def test_while_the_broker_is_away_nothing_is_committed_and_then_all(livevec, broker, tmp_path):
    if broker.sasl_bootstrap is None:
        pytest.skip("the broker of LIVEVEC_TEST_BROKER is not ours to kill")
    (tmp_path / "broker").mkdir()
    own = Broker(tmp_path / "broker")
    own.start()
    topics = ["clicks", "letters"]
    with KafkaAdminClient(bootstrap_servers=own.bootstrap) as admin:
        admin.create_topics(
            {name: {"num_partitions": N_PARTITIONS} for name in topics}, wait_for_metadata=True
        )
    rows, broken = clicks(3000), set(range(0, 3000, 50))
    path = livevec.directory / "clicks.jsonl"
    lines = ["what?" if at in broken else json.dumps(row) for at, row in enumerate(rows)]
    path.write_text("".join(line + "\n" for line in lines))
    livevec.read_from(path, follow=True)
    livevec.configure(
        {
            "source": {"max_clicks_per_second": 500.0},
            "dead_letters": {"topic": "letters", "bootstrap_servers": [own.bootstrap]},
            "clicks": {"max_dead_letter_share": 0.2},
            "checkpoint": {"interval_seconds": 0.3},
        }
    )

    running = livevec.start()
    wait_for(lambda: livevec.committed() > 0, "a generation in the stream")
    own._process.send_signal(signal.SIGSTOP)
    running.event("commit_failed")
    while_away = livevec.committed()
    own.kill()
    own.start()
    wait_for(lambda: livevec.committed() == 3000, "all clicks")
    run = running.terminated()
    found = letters_in(own.bootstrap, "letters", len(broken))
    own.stop()

    assert while_away < 3000
    assert run.code == 0
    assert len(run.events("commit_failed")) == 1
    assert run.summary["dead_lettered"] == len(broken)
    assert found.keys() == {("clicks.jsonl", 0, at) for at in broken}
