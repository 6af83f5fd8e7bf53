"""Replays into topics of a real broker."""

import json
import uuid
from collections import Counter
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from structlog.testing import capture_logs

from state.offsets import Partition
from streamer import config as settings
from streamer.clock import SystemClock
from streamer.errors import BrokerError, ConfigError
from streamer.replay import replay as replays
from streamer.replay.options import ReplayOptions
from streamer.replay.replay import Replay
from streamer.sources import kafka_client
from streamer.sources.clicks import DeadLetter
from streamer.sources.dead_letter_topic import DeadLetterTopic
from streamer.sources.dead_letters import from_line, to_line
from tests.system.runs import clicks, wait_for, write_csv, write_json

pytestmark = pytest.mark.kafka

N_PARTITIONS = 3


@pytest.fixture(scope="module")
def admin(broker):
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as client:
        yield client


@pytest.fixture
def new_topic(admin):
    def make(**configs):
        name = f"replayed-{uuid.uuid4().hex}"
        topic = {"num_partitions": N_PARTITIONS, "configs": configs}
        admin.create_topics({name: topic}, wait_for_metadata=True)
        return name

    return make


@pytest.fixture
def replay(broker):
    """Run a replay to its end; return its summary."""

    def run(source, config=None, **options):
        kafka = {"bootstrap_servers": [broker.bootstrap], "topics": ["clicks"]}
        config = config or settings.load(None, source={"kafka": kafka})
        return Replay(config, ReplayOptions(str(source), **options), SystemClock()).run()

    return run


def records(bootstrap, topic):
    """Return the records of a topic, partition by partition."""
    places = [TopicPartition(topic, number) for number in range(N_PARTITIONS)]
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    consumer.assign(places)
    ends = consumer.end_offsets(places)
    found = {place: [] for place in places}

    def are_read():
        for place, some in consumer.poll(100).items():
            found[place] += some
        return all(consumer.position(place) >= ends[place] for place in places)

    wait_for(are_read, "the end of the topic")
    consumer.close()
    return [one for place in places for one in found[place]]


def letter(topic, offset=7, user="ann", reason="future", **members):
    click = {"user_id": user, "item_id": "i", "ts": 5000, **members}
    place = Partition(topic, offset % N_PARTITIONS)
    return DeadLetter(place, offset, reason, "why", json.dumps(click).encode(), b"key")


def write_letters(path, letters):
    path.write_bytes(b"".join(map(to_line, letters)))
    return path


def test_letters_of_a_file_go_back_to_their_place_and_the_rest_is_kept(
    tmp_path, broker, new_topic, replay
):
    topic = new_topic()
    letters = [letter(topic, 1), letter(topic, 2, ts="soon"), letter(topic, 5)]
    path = write_letters(tmp_path / "letters.jsonl", letters)

    summary = replay(path, rest=tmp_path / "rest.jsonl")

    found = records(broker.bootstrap, topic)
    assert [(one.partition, one.key) for one in found] == [(1, b"key"), (2, b"key")]
    assert all(json.loads(one.value)["ts"] > 1_700_000_000_000 for one in found)
    assert {name: summary[name] for name in ("read", "usable", "published", "left", "next")} == {
        "read": 3,
        "usable": 2,
        "published": 2,
        "left": 1,
        "next": 3,
    }
    assert summary["left_by_reason"] == {"bad_time": 1}
    assert summary["published_by_topic"] == {topic: 2}
    (rest,) = (tmp_path / "rest.jsonl").read_bytes().splitlines()
    kept, _ = from_line(rest)
    assert (kept.offset, kept.reason, kept.raw) == (2, "bad_time", letters[1].raw)


def test_a_line_that_is_no_click_has_no_time_and_waits_for_none(
    tmp_path, broker, new_topic, manual_clock
):
    path = tmp_path / "clicks.csv"
    lines = ["ts,user_id,item_id", "soon,u,a", "6000000,u,b", "later,u,c", "6060000,u,d"]
    path.write_text("\n".join(lines))
    kafka = {"bootstrap_servers": [broker.bootstrap], "topics": ["clicks"]}
    config = settings.load(None, source={"kafka": kafka})
    options = ReplayOptions(str(path), topic=new_topic(), speed=60.0)

    summary = Replay(config, options, manual_clock).run()

    assert (summary["published"], summary["left_by_reason"]) == (2, {"bad_time": 2})
    assert manual_clock.monotonic() == pytest.approx(1.0, abs=0.2)


def test_a_reason_that_no_letter_has_is_told(tmp_path, replay):
    path = write_letters(tmp_path / "letters.jsonl", [letter("clicks")])

    with capture_logs() as told:
        summary = replay(path, reason=["futur", "future"], dry_run=True)

    assert summary["usable"] == 1
    assert told == [
        {
            "event": "no_such_letters",
            "reason": "futur",
            "found": ["future"],
            "log_level": "warning",
        }
    ]


def test_a_partition_that_the_topic_has_not_is_left_to_the_key(tmp_path, broker, new_topic, replay):
    topic = new_topic()
    raw = letter(topic).raw
    far = DeadLetter(Partition(topic, 99), 1, "future", "why", raw, b"key")
    path = write_letters(tmp_path / "letters.jsonl", [far])

    assert replay(path)["published"] == 1
    assert len(records(broker.bootstrap, topic)) == 1


def test_letters_of_a_topic_are_put_back(broker, new_topic, replay):
    letters_topic, topic = new_topic(), new_topic()
    config = settings.load(
        None,
        source={"kafka": {"bootstrap_servers": [broker.bootstrap], "topics": [topic]}},
        dead_letters={"topic": letters_topic},
    )
    letters = DeadLetterTopic(config, SystemClock())
    letters.append([letter(topic, at, user=f"u{at}") for at in range(20)])
    letters.append([letter(topic, 3, user="u3"), letter(topic, 30, item_id=None)])
    letters.close()

    summary = replay(f"topic:{letters_topic}", config, keep_times=True)
    later = replay(f"topic:{letters_topic}", config, since=summary["since"])

    assert summary["left_by_reason"] == {"no_item": 1, "repeated": 1}
    found = {json.loads(one.value)["user_id"]: one for one in records(broker.bootstrap, topic)}
    assert len(found) == summary["published"] == 20
    assert all(found[f"u{at}"].partition == at % N_PARTITIONS for at in range(20))
    assert found["u3"].value == letter(topic, 3, user="u3").raw
    assert summary["late"] == 20
    assert later["read"] == 0


def test_letters_that_come_meanwhile_are_left_to_the_next_replay(
    tmp_path, broker, new_topic, replay, monkeypatch
):
    topic = new_topic()
    replay(write_json(tmp_path / "clicks.jsonl", clicks(30)), topic=topic)
    ends = kafka_client.Consumer.end_offsets

    def some_time_ago(self, places, **settings):
        return {place: end // 2 for place, end in ends(self, places, **settings).items()}

    monkeypatch.setattr(kafka_client.Consumer, "end_offsets", some_time_ago)

    assert 10 < replay(f"topic:{topic}")["read"] <= 15


def test_a_record_that_is_no_letter_is_left(broker, new_topic, replay, tmp_path):
    topic = new_topic()
    path = write_json(tmp_path / "clicks.jsonl", clicks(3))
    replay(path, topic=topic)

    assert replay(f"topic:{topic}")["left_by_reason"] == {"no_letter": 3}


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_file_of_clicks_is_published_in_order_and_by_user(
    tmp_path, broker, new_topic, replay, codec
):
    rows, topic = clicks(500), new_topic()

    summary = replay(write_csv(tmp_path / "clicks.csv", rows), topic=topic, compression=codec)

    found = records(broker.bootstrap, topic)
    assert summary["published"] == len(found) == 500
    by_user = {row["user_id"]: [] for row in rows}
    for one in found:
        click = json.loads(one.value)
        assert one.key == click["user_id"].encode()
        by_user[click["user_id"]].append(click)
    assert {user: [row for row in rows if row["user_id"] == user] for user in by_user} == by_user
    partitions = {(one.key, one.partition) for one in found}
    assert len(partitions) == len(by_user)
    assert len({partition for _, partition in partitions}) == N_PARTITIONS


def test_a_dry_run_counts_and_publishes_nothing(tmp_path, broker, new_topic, replay):
    topic = new_topic()
    path = tmp_path / "clicks.jsonl"
    write_json(path, clicks(20))
    with path.open("a") as file:
        file.write("{\n")

    summary = replay(path, topic=topic, dry_run=True, rest=tmp_path / "rest.jsonl")

    assert (summary["read"], summary["usable"], summary["published"]) == (21, 20, 0)
    assert summary["left_by_reason"] == {"malformed": 1}
    assert len((tmp_path / "rest.jsonl").read_text().splitlines()) == 1
    assert records(broker.bootstrap, topic) == []


def test_a_dry_run_needs_no_broker(tmp_path, replay):
    path = write_json(tmp_path / "clicks.jsonl", clicks(5))

    assert replay(path, settings.load(None), topic="clicks", dry_run=True)["usable"] == 5


def test_what_its_topic_does_not_take_is_left(tmp_path, broker, new_topic, replay):
    topic = new_topic(**{"max.message.bytes": "2000"})
    letters = [letter(topic, 1), letter(topic, 2, note="x" * 3000), letter(topic, 3)]
    path = write_letters(tmp_path / "letters.jsonl", letters)

    summary = replay(path, rest=tmp_path / "rest.jsonl")

    assert (summary["usable"], summary["published"]) == (2, 2)
    assert summary["left_by_reason"] == {"too_large": 1}
    (rest,) = (tmp_path / "rest.jsonl").read_bytes().splitlines()
    assert from_line(rest)[0] == letters[1]
    assert len(records(broker.bootstrap, topic)) == 2


def test_a_replay_that_is_stopped_says_where_to_go_on(tmp_path, broker, new_topic, replay):
    rows, topic = clicks(300), new_topic()
    path = write_json(tmp_path / "clicks.jsonl", rows)
    kafka = {"bootstrap_servers": [broker.bootstrap], "topics": ["clicks"]}
    config = settings.load(None, source={"kafka": kafka})
    one = Replay(config, ReplayOptions(str(path), topic=topic), SystemClock())
    is_due, n_asked = one._tempo.is_due, Counter()

    def stopped_on_the_way(time_ms):
        n_asked[""] += 1
        if n_asked[""] == 124:
            one.stop()
        return is_due(time_ms)

    one._tempo.is_due = stopped_on_the_way
    first = one.run()
    second = replay(path, topic=topic, skip=first["next"])

    assert (first["published"], first["next"]) == (123, 123)
    assert second["published"] == 177
    found = [json.loads(one.value) for one in records(broker.bootstrap, topic)]
    assert sorted(found, key=str) == sorted(rows, key=str)


def test_letters_behind_a_stop_are_part_of_the_rest(tmp_path, broker, new_topic):
    topic = new_topic()
    letters = [letter(topic, at) for at in range(10)]
    path = write_letters(tmp_path / "letters.jsonl", letters)
    kafka = {"bootstrap_servers": [broker.bootstrap], "topics": ["clicks"]}
    config = settings.load(None, source={"kafka": kafka})
    one = Replay(config, ReplayOptions(str(path), rest=tmp_path / "rest.jsonl"), SystemClock())
    one.stop()

    summary = one.run()

    rest = (tmp_path / "rest.jsonl").read_bytes().splitlines()
    assert summary["published"] == 0
    assert [from_line(line)[0] for line in rest] == letters


def test_a_broker_that_takes_nothing_more_is_told_with_how_far_it_got(
    tmp_path, broker, new_topic, replay, monkeypatch
):
    topic = new_topic()
    letters = [letter(topic, at) for at in range(10)]
    path = write_letters(tmp_path / "letters.jsonl", letters)
    send, sent = replays.Producer.send, Counter()

    def away_after_four(self, record):
        sent[topic] += 1
        sending = send(self, record)
        if sent[topic] > 4:
            sending._outcome = KafkaTimeoutError("away")
        return sending

    monkeypatch.setattr(replays.Producer, "send", away_after_four)

    with pytest.raises(
        BrokerError, match=r"; 4 records have been taken, .*; go on with .*rest.jsonl"
    ):
        replay(path, rest=tmp_path / "rest.jsonl")

    rest = (tmp_path / "rest.jsonl").read_bytes().splitlines()
    assert [from_line(line)[0].offset for line in rest] == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("is_away", [True, False])
def test_what_could_not_even_be_begun_is_all_left(tmp_path, broker, replay, is_away):
    """No broker, or no topic: `--rest` of an earlier replay is not emptied."""
    letters = [letter("no-such-topic", at) for at in range(3)]
    path = write_letters(tmp_path / "letters.jsonl", letters)
    where = "127.0.0.1:1" if is_away else broker.bootstrap
    kafka = {"bootstrap_servers": [where], "topics": ["x"], "connect_timeout_seconds": 0.5}
    config = settings.load(None, source={"kafka": kafka})

    with pytest.raises(BrokerError):
        replay(path, config, rest=tmp_path / "rest.jsonl")

    assert (tmp_path / "rest.jsonl").read_bytes() == path.read_bytes()


def test_what_is_left_goes_into_no_device_and_not_over_what_is_read(tmp_path, replay):
    path = write_letters(tmp_path / "letters.jsonl", [letter("clicks")])
    (tmp_path / "link").symlink_to(path)

    for rest, fault in (
        (tmp_path, "a file, or nothing yet, found neither"),
        ("/dev/null", "a file, or nothing yet, found neither"),
        (path, "another file than the one that is read"),
        (tmp_path / "link", "another file than the one that is read"),
        (tmp_path / "none" / "rest", "a directory for it, found none"),
    ):
        with pytest.raises(ConfigError, match=f"expected {fault}"):
            replay(path, rest=Path(rest))


def test_a_dry_run_leaves_no_letters(tmp_path, replay):
    path = write_letters(tmp_path / "letters.jsonl", [letter("clicks")])

    with pytest.raises(ConfigError, match="expected one of --rest and --dry-run"):
        replay(path, rest=tmp_path / "rest.jsonl", dry_run=True)


def test_an_empty_file_of_letters_has_none(tmp_path, replay):
    path = write_letters(tmp_path / "letters.jsonl", [])

    assert replay(path)["read"] == 0
    assert replay(path, topic="clicks", speed=60.0)["read"] == 0
    with capture_logs() as told:
        assert replay(path, skip=7)["read"] == 0
    assert told == [{"event": "nothing_behind_skip", "skip": 7, "log_level": "warning"}]


class NeverTaken:
    """What is said of a record of which the broker has said nothing."""

    is_done = False

    def get(self, seconds):
        raise KafkaTimeoutError


def test_what_was_taken_behind_a_record_that_was_not_is_not_left(
    tmp_path, broker, new_topic, replay, monkeypatch
):
    topic = new_topic()
    path = write_letters(tmp_path / "letters.jsonl", [letter(topic, at) for at in range(10)])
    send, sent = replays.Producer.send, Counter()

    def away_for_the_fifth(self, record):
        sent[topic] += 1
        sending = send(self, record)
        if sent[topic] == 5:
            sending._outcome = NeverTaken()
        return sending

    monkeypatch.setattr(replays.Producer, "send", away_for_the_fifth)

    with pytest.raises(
        BrokerError, match=r"; 9 records have been taken, .*; go on with .*rest.jsonl"
    ):
        replay(path, rest=tmp_path / "rest.jsonl")

    rest = (tmp_path / "rest.jsonl").read_bytes().splitlines()
    assert [from_line(line)[0].offset for line in rest] == [4]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({}, "expected --topic with a file of clicks"),
        ({"topic": "t", "rate": 5.0, "speed": 2.0}, "expected one of --rate and --speed"),
        ({"topic": "t", "reason": ["future"]}, "expected --reason with dead letters only"),
        ({"topic": "t", "keep_times": True}, "expected --keep-times with dead letters only"),
        ({"topic": "t", "since": "2026-01-01"}, "expected --since with a topic only"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path, replay, options, fault):
    path = write_json(tmp_path / "clicks.jsonl", clicks(1))

    with pytest.raises(ConfigError, match=fault):
        replay(path, **options)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"skip": 3}, "expected --since with a topic, found --skip"),
        ({"speed": 3.0}, "expected --speed with clicks"),
        ({"since": "soon"}, "expected --since in ISO 8601, found 'soon'"),
    ],
)
def test_what_does_not_go_with_a_topic_is_told(replay, options, fault):
    with pytest.raises(ConfigError, match=fault):
        replay("topic:letters", **options)


def test_without_a_broker_in_the_configuration_the_sections_are_named(tmp_path, replay):
    path = write_json(tmp_path / "clicks.jsonl", clicks(1))

    for source in (path, "topic:letters"):
        with pytest.raises(ConfigError, match=r"expected \[source\.kafka\] with"):
            replay(source, settings.load(None), topic="clicks")


def test_a_place_that_is_not_there_is_told(tmp_path, replay):
    path = write_json(tmp_path / "clicks.jsonl", clicks(1))

    with pytest.raises(ConfigError, match="expected a directory for it, found none"):
        replay(path, topic="clicks", rest=tmp_path / "nowhere" / "rest.jsonl")
    with pytest.raises(ConfigError, match="expected a file that can be read"):
        replay(tmp_path / "gone.jsonl", topic="clicks")


def test_missing_topics_are_named(tmp_path, replay):
    path = write_json(tmp_path / "clicks.jsonl", clicks(1))

    with pytest.raises(BrokerError, match="replay: expected topic 'no-such-topic'"):
        replay(path, topic="no-such-topic")
    with pytest.raises(BrokerError, match="expected topic 'no-such-letters'"):
        replay("topic:no-such-letters")
