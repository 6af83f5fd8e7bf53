"""`livevec replay` as a process: what it puts back is trained, and every end is one line."""

import json
import signal
import time
import uuid

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from deploy.broker.broker import Broker
from tests.system.runs import PATIENCE_SECONDS, adds_up, clicks, wait_for, write_csv, write_json

pytestmark = pytest.mark.kafka

N_PARTITIONS = 2
DAY_MS = 86_400_000


@pytest.fixture
def new_topic(admin):
    def make():
        name = f"clicks-{uuid.uuid4().hex}"
        admin.create_topics({name: {"num_partitions": N_PARTITIONS}}, wait_for_metadata=True)
        return name

    return make


@pytest.fixture
def over_kafka(livevec, broker):
    def configure(topic, letters=None):
        livevec.configure(
            {
                "source.kafka": {"bootstrap_servers": [broker.bootstrap], "topics": [topic]},
                "dead_letters": {"topic": letters} if letters else {},
                "clicks": {"max_dead_letter_share": 0.5},
                "checkpoint": {"interval_seconds": 0.3},
            }
        )
        return livevec

    return configure


def learn(livevec, n):
    """Run until so many records have been read; return the summary."""
    running = livevec.start()
    wait_for(lambda: livevec.committed() == n, f"{n} records")
    run = running.terminated()
    assert run.code == 0
    assert adds_up(run.summary)
    return run.summary


def live_rows(n):
    """Return clicks of the last minute."""
    now_ms = time.time_ns() // 1_000_000
    return [
        {"user_id": f"u{at % 20}", "item_id": f"i{at % 37}", "ts": now_ms - 60_000 + 200 * at}
        for at in range(n)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file", "topic"])
def test_letters_that_are_put_back_are_trained_by_the_next_run(
    over_kafka, broker, new_topic, place
):
    topic, letters = new_topic(), new_topic()
    livevec = over_kafka(topic, letters if place == "topic" else None)
    rows, far = live_rows(200), range(100, 200, 10)
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for at, row in enumerate(rows):
            row["ts"] += 10 * DAY_MS if at in far else 0  # a clock that is wrong
            value = b"what?" if at % 50 == 7 else json.dumps(row).encode()
            producer.send(topic, value, partition=at % N_PARTITIONS)
        producer.flush(PATIENCE_SECONDS)
    first = learn(livevec, 200)

    source = f"topic:{letters}" if place == "topic" else str(livevec.state / "dead-letters.jsonl")
    replay = livevec.run("replay", "--json", source)
    second = learn(livevec, 210)

    assert first["dead_lettered_by_reason"] == {"future": len(far), "malformed": 4}
    assert replay.code == 0
    assert replay.complaints == []
    assert replay.summary["published_by_topic"] == {topic: len(far)}
    assert replay.summary["left_by_reason"] == {"malformed": 4}
    assert second["dead_lettered_by_reason"] == first["dead_lettered_by_reason"]
    assert second["filtered"] == 0
    assert second["applied"] == first["applied"] + len(far)


def records_in(bootstrap, topic, n_partitions=N_PARTITIONS):
    with KafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        places = [TopicPartition(topic, number) for number in range(n_partitions)]
        return sum(consumer.end_offsets(places).values())


@pytest.mark.slow
def test_a_replay_that_is_interrupted_goes_on_and_all_is_learned(over_kafka, broker, new_topic):
    topic = new_topic()
    livevec = over_kafka(topic)
    path = write_csv(livevec.directory / "clicks.csv.gz", live_rows(1000))
    arguments = ("replay", str(path), "--topic", topic, "--json", "--compression", "lz4")

    running = livevec.start(*arguments, "--rate", "300")
    wait_for(lambda: records_in(broker.bootstrap, topic) > 0, "the first records")
    running.send(signal.SIGINT)
    first = running.ended()
    second = livevec.run(*arguments, "--skip", str(first.summary["next"]))
    summary = learn(livevec, 1000)

    assert (first.code, second.code) == (1, 0)
    (told,) = first.events("stopped_before_the_end")
    assert told["then"] == f"go on with --skip {first.summary['next']}"
    assert 0 < first.summary["published"] < 1000
    assert first.summary["published"] + second.summary["published"] == 1000
    assert summary["applied"] == 1000


@pytest.mark.slow
def test_lines_of_a_mapping_of_their_own_are_learned_and_their_letters_put_back(
    over_kafka, broker, new_topic
):
    topic, rows = new_topic(), live_rows(300)
    livevec = over_kafka(topic)
    mapping = {
        "item": "{kind}:{page.id}",
        "user": ["login", "cookie"],
        "time": "meta.at",
        "time_unit": "s",
        "event_id": ["cookie", "nr"],
    }
    table = f"clicks.topics.{topic}"
    livevec.configure({table: mapping, f"{table}.only": {"kind": "news"}})
    lines = ["kind,page.id,login,cookie,nr,meta.at"]
    for at, row in enumerate(rows):
        kind = "ad" if at % 10 == 0 else "news"
        seconds = row["ts"] / 1000 + (10 * DAY_MS / 1000 if at % 50 == 49 else 0)
        lines.append(f"{kind},{row['item_id']},,{row['user_id']},{at},{seconds:.3f}")
    path = livevec.directory / "clicks.csv"
    path.write_text("\n".join(lines) + "\n")

    published = livevec.run("replay", str(path), "--topic", topic, "--json")
    first = learn(livevec, 270)
    letters = str(livevec.state / "dead-letters.jsonl")
    back = livevec.run("replay", letters, "--json")
    second = learn(livevec, 276)

    assert (published.code, back.code) == (0, 0)
    assert published.summary["left_by_reason"] == {"other_kind": 30}
    assert first["dead_lettered_by_reason"] == {"future": 6}
    assert (first["applied"], second["applied"]) == (264, 270)
    assert second["filtered"] == 0
    assert back.summary["published_by_topic"] == {topic: 6}


def test_every_fault_is_one_line_and_an_exit_code(over_kafka, new_topic):
    topic = new_topic()
    livevec = over_kafka(topic)
    path = str(write_json(livevec.directory / "clicks.jsonl", clicks(3)))
    cases = [
        ((path,), 2, "replay: expected --topic"),
        ((path, "--topic", "no-such-topic"), 3, "expected topic 'no-such-topic'"),
    ]

    started = [livevec.start("replay", *arguments) for arguments, _, _ in cases]

    for running, (_, code, said) in zip(started, cases, strict=True):
        ended = running.ended()
        assert ended.code == code
        (line,) = ended.complaints
        assert said in line


@pytest.mark.slow
@pytest.mark.crash
def test_a_broker_that_dies_on_the_way_is_told_with_how_to_go_on(livevec, broker, tmp_path):
    if broker.sasl_bootstrap is None:
        pytest.skip("the broker of LIVEVEC_TEST_BROKER is not ours to kill")
    (tmp_path / "broker").mkdir()
    own = Broker(tmp_path / "broker")
    own.start()
    with KafkaAdminClient(bootstrap_servers=own.bootstrap) as admin:
        admin.create_topics({"clicks": {"num_partitions": 1}}, wait_for_metadata=True)
    path = write_json(livevec.directory / "clicks.jsonl", clicks(20_000))
    livevec.configure({"source.kafka": {"bootstrap_servers": [own.bootstrap], "topics": ["x"]}})
    arguments = ("replay", str(path), "--topic", "clicks", "--json")

    running = livevec.start(*arguments, "--rate", "1000")
    wait_for(lambda: records_in(own.bootstrap, "clicks", 1) > 500, "the first records")
    own.kill()
    first = running.ended()
    own.start()
    *progress, line = first.complaints
    _, _, rest = line.partition("go on with --skip ")
    second = livevec.run(*arguments, "--skip", rest)
    own.stop()

    assert first.code == 3
    assert all(one.startswith("replaying: ") for one in progress)
    assert 0 < int(rest) < 20_000
    assert (second.code, second.summary["published"]) == (0, 20_000 - int(rest))
