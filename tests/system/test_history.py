"""Half of a stream from a file and half from Kafka: one stream."""

import pytest

from tests.oracles import Click, KeyedSessions, PairSums
from tests.system.runs import adds_up, clicks, wait_for, write_csv
from tests.system.topic import N_PARTITIONS, RULES, hash_of, produce, session_key

pytestmark = pytest.mark.kafka

N = 4000


@pytest.fixture
def rows():
    return clicks(N)


def expected(rows):
    """Return {session: (count, sum)} of all pairs, the first half being a file's."""
    oracle = KeyedSessions(RULES, 1 + N_PARTITIONS)
    for at, row in enumerate(rows):
        partition = 0 if at < N // 2 else 1 + hash_of(row) % N_PARTITIONS
        oracle.arrive(Click(session_key(row["user_id"]), row["item_id"], row["ts"], partition, at))
    return PairSums(lambda click: click.key).add(oracle.tiles).found()


def found(livevec):
    arrays = livevec.newest().sections["pairs"].arrays
    columns = (arrays[name].tolist() for name in ("keys", "counts", "sums"))
    return {key: (count, total) for key, count, total in zip(*columns, strict=True) if count}


def straddling(rows):
    before, after = ({row["user_id"] for row in half} for half in (rows[: N // 2], rows[N // 2 :]))
    return before & after


def test_a_file_and_then_a_topic_in_one_run_train_the_pairs_of_one_stream(
    over_kafka, producer, topic, rows
):
    path = write_csv(over_kafka.directory / "history.csv", rows[: N // 2])
    over_kafka.read_from(path)
    over_kafka.configure({"training": {"audit": True}})
    produce(producer, topic, rows[N // 2 :])

    running = over_kafka.start()
    wait_for(lambda: over_kafka.committed() == N, "all clicks")
    run = running.terminated()

    assert run.code == 0
    assert adds_up(run.summary)
    assert len(straddling(rows)) > 20
    assert found(over_kafka) == expected(rows)


@pytest.mark.slow
def test_a_run_over_a_file_and_another_over_a_topic_train_the_pairs_of_one_stream(
    over_kafka, producer, topic, rows
):
    kafka = over_kafka.settings.pop("source.kafka")
    over_kafka.configure({"training": {"audit": True}})
    over_kafka.read_from(write_csv(over_kafka.directory / "history.csv", rows[: N // 2]))
    assert over_kafka.run().code == 0
    produce(producer, topic, rows[N // 2 :])

    del over_kafka.settings["source.files"]
    over_kafka.configure({"source.kafka": kafka})
    running = over_kafka.start()
    wait_for(lambda: over_kafka.committed() == N, "all clicks")
    run = running.terminated()

    assert run.code == 0
    assert found(over_kafka) == expected(rows)
