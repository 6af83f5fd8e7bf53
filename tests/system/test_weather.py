"""Brokers that hang, die and come back, while a daemon reads; and the signals that end it."""

import json
import signal
import time

import httpx
import pytest
from kafka import KafkaAdminClient, KafkaProducer

from deploy.broker.broker import Broker
from tests.system.runs import adds_up, clicks, wait_for
from tests.system.topic import N_PARTITIONS, ends_of, has_committed, produce

pytestmark = [pytest.mark.kafka, pytest.mark.crash]


@pytest.fixture
def own_broker(broker, tmp_path):
    del broker  # where none can be had at all, this is skipped
    directory = tmp_path / "broker"
    directory.mkdir()
    one = Broker(directory)
    one.start()
    with KafkaAdminClient(bootstrap_servers=one.bootstrap) as admin:
        admin.create_topics({"clicks": {"num_partitions": N_PARTITIONS}}, wait_for_metadata=True)
    yield one
    one.stop()


def produce_to(broker, rows):
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        produce(producer, "clicks", rows)


def metric(address, name):
    """Return {series: value} of the metrics whose name begins so."""
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith(name))
    return {series: float(value) for series, _, value in found}


@pytest.mark.slow
def test_a_broker_that_hangs_and_one_that_dies_are_waited_for(own_broker, livevec):
    rows = clicks(3000)
    livevec.configure(
        {
            "source.kafka": {"bootstrap_servers": [own_broker.bootstrap], "topics": ["clicks"]},
            "sessions": {"lateness_seconds": 3600.0},
            "checkpoint": {"interval_seconds": 0.3},
        }
    )
    produce_to(own_broker, rows[:1000])
    running = livevec.start()
    address = running.event("metrics_listening")["address"]
    wait_for(has_committed(livevec, 1000), "the first clicks")

    def is_ready():
        return httpx.get(f"{address}/readyz").status_code == 200

    def until_back(n):
        wait_for(lambda: not is_ready(), "readiness to fail")
        seen = httpx.get(f"{address}/readyz").text, metric(address, "livevec_broker_up")
        assert httpx.get(f"{address}/healthz").status_code == 200
        yield seen
        wait_for(is_ready, "readiness to come back")
        produce_to(own_broker, rows[n : n + 1000])
        wait_for(has_committed(livevec, n + 1000), "the clicks after it")

    wait_for(is_ready, "readiness")
    own_broker._process.send_signal(signal.SIGSTOP)
    hung = until_back(1000)
    said = [next(hung)]
    own_broker._process.send_signal(signal.SIGCONT)
    assert next(hung, None) is None
    own_broker.kill()
    dead = until_back(2000)
    said.append(next(dead))
    own_broker.start()
    assert next(dead, None) is None
    run = running.terminated()

    assert all("no answer from the brokers for" in text for text, _ in said)
    assert all(up == {"livevec_broker_up": 0.0} for _, up in said)
    assert run.code == 0
    assert adds_up(run.summary)
    assert run.summary["clicks"] == 3000
    assert livevec.newest().manifest.offsets == ends_of("clicks", rows)
    assert len(run.events("broker_away")) == len(run.events("broker_back")) == 2
    assert run.complaints == []


def test_lag_is_what_the_broker_says(over_kafka, admin, producer, topic):
    rows = clicks(2000)
    produce(producer, topic, rows)
    over_kafka.configure({"source": {"max_clicks_per_second": 100.0}})
    running = over_kafka.start()
    address = running.event("metrics_listening")["address"]
    running.event("polling")

    def lag():
        found = metric(address, "livevec_source_partition_lag_clicks{")
        return sum(found.values()), len(found)

    wait_for(lambda: lag()[1] == N_PARTITIONS and lag()[0] < 2000, "the lag")
    begun = time.monotonic()
    read = metric(address, "livevec_clicks_read_total")["livevec_clicks_read_total"]
    lagging, _ = lag()
    seconds = time.monotonic() - begun + 1.0  # which the metric may be old
    running.terminated()

    assert lagging == pytest.approx(2000 - read, abs=100 * seconds + 10)


def cut_back(broker, partition, share):
    """Cut the log of a partition of a broker that is down, as an unclean election would."""
    data = broker._directory / "data"
    (log,) = (data / partition).glob("*.log")
    with log.open("r+b") as file:
        file.truncate(int(log.stat().st_size * share))
    doomed = [*(data / partition).glob("*index"), *(data / partition).glob("*.snapshot")]
    for path in [*doomed, *data.glob(".kafka_cleanshutdown"), *data.glob("*recovery-point*")]:
        path.unlink()


@pytest.mark.slow
def test_a_log_that_is_cut_back_goes_on_where_it_was_cut(own_broker, livevec):
    rows = clicks(1300)
    livevec.configure(
        {
            "source.kafka": {
                "bootstrap_servers": [own_broker.bootstrap],
                "topics": ["clicks"],
                "on_truncated_log": "resume",
            },
            "sessions": {"lateness_seconds": 3600.0},
            "checkpoint": {"interval_seconds": 0.3},
        }
    )

    def produce_alone(n_from, n_until):
        with KafkaProducer(bootstrap_servers=own_broker.bootstrap, linger_ms=0) as producer:
            for at in range(n_from, n_until):
                producer.send("clicks", json.dumps(rows[at]).encode(), partition=0)
                if at % 100 == 99:  # a log is cut between batches
                    producer.flush()

    def cut(share):
        own_broker.kill()
        cut_back(own_broker, "clicks-0", share)
        own_broker.start()

    produce_alone(0, 1000)
    running = livevec.start()
    wait_for(has_committed(livevec, 1000), "the first clicks")
    cut(0.65)
    produce_alone(1000, 1100)
    wait_for(has_committed(livevec, 1100), "what came behind the cut")
    running.kill()
    cut(0.5)
    produce_alone(1100, 1200)
    running = livevec.start()
    wait_for(has_committed(livevec, 1200), "what came behind the second cut")
    run = running.terminated()

    assert run.code == 0
    assert run.summary["clicks"] == 1200
    assert run.events("log_was_truncated")[-1]["resumed_at"] < 700
    assert run.complaints == []


@pytest.mark.slow
def test_a_topic_that_is_made_anew_while_it_is_read_is_read_again(
    over_kafka, admin, broker, producer, topic
):
    rows = clicks(900)
    over_kafka.configure({"source.kafka": {"on_recreated_topic": "restart"}})
    produce(producer, topic, rows[:600])
    running = over_kafka.start()
    wait_for(has_committed(over_kafka, 600), "all clicks")

    admin.delete_topics([topic])
    wait_for(lambda: topic not in admin.list_topics(), "the end of the topic")
    admin.create_topics({topic: {"num_partitions": N_PARTITIONS}}, wait_for_metadata=True)
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as fresh:
        produce(fresh, topic, rows[600:])
    wait_for(has_committed(over_kafka, 900), "the clicks of the new one")
    run = running.terminated()

    assert run.code == 0
    assert over_kafka.newest().manifest.offsets == ends_of(topic, rows[600:])
    assert len(run.events("topic_was_made_anew")) == N_PARTITIONS


N_LOAD = 20_000


@pytest.mark.slow
def test_a_sigterm_under_full_load_drains_commits_and_loses_nothing(over_kafka, producer, topic):
    rows = clicks(N_LOAD)
    produce(producer, topic, rows)
    over_kafka.configure({"checkpoint": {"interval_seconds": 60.0, "every_clicks": 1_000_000}})

    running = over_kafka.start()
    running.event("polling")
    begun = time.monotonic()
    first = running.terminated()
    took = time.monotonic() - begun
    committed = over_kafka.committed()
    second = over_kafka.start()
    wait_for(has_read(second, N_LOAD), "the rest")
    last = second.terminated()

    assert first.code == 0
    assert took < 20.0  # checkpoint.drain_seconds
    assert first.summary["clicks"] == committed < N_LOAD
    assert first.complaints == []
    assert last.summary["clicks"] == N_LOAD
    assert adds_up(last.summary)
    assert over_kafka.newest().manifest.offsets == ends_of(topic, rows)


@pytest.mark.slow
def test_a_second_sigterm_ends_at_once_and_the_next_start_loses_nothing(
    over_kafka, producer, topic
):
    rows = clicks(N_LOAD)
    produce(producer, topic, rows)

    running = over_kafka.start()
    running.event("polling")
    # Stopped, it finds both waiting when it goes on: no drain is quick enough between.
    running.send(signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT)
    forced = running.ended()
    second = over_kafka.start()
    wait_for(has_read(second, N_LOAD), "all of it")
    last = second.terminated()

    assert forced.code == 1
    assert forced.complaints == ["forced by a second signal"]
    assert last.summary["clicks"] == N_LOAD
    assert adds_up(last.summary)
    assert over_kafka.newest().manifest.offsets == ends_of(topic, rows)


def has_read(running, n):
    address = running.event("metrics_listening")["address"]
    running.event("polling")

    def read() -> bool:
        name = "livevec_clicks_read_total"
        found = metric(address, name)[name]
        restored = sum(one["clicks"] for one in running.events("restored"))
        return restored + found >= n

    return read
