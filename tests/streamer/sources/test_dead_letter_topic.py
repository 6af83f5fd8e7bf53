"""Dead letters in a topic of a real broker: what they hold, and that they leave before a commit."""

import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from state import lease, recovery
from state.checkpoint import Checkpoints
from state.deaths import Deaths
from state.offsets import Offsets, Partition
from state.publication import Publications
from streamer import config as settings
from streamer.clock import SystemClock
from streamer.deadline import Deadline
from streamer.errors import BrokerError, ConfigError, DeadLetterLimit, NotDelivered
from streamer.pipeline import Pipeline, Start
from streamer.publishing.publisher import RETRY_SECONDS, Publisher
from streamer.settings.sources import KafkaSource
from streamer.sources import dead_letter_topic
from streamer.sources.clicks import DeadLetter
from streamer.sources.dead_letter_topic import DeadLetterTopic, from_headers
from streamer.sources.json_clicks import JsonDecoder
from streamer.sources.kafka_producer import Sending
from streamer.sources.opening import check_source, open_dead_letters

pytestmark = pytest.mark.kafka

PARTITION = Partition("clicks", 2)
PATIENCE_SECONDS = 20.0


@pytest.fixture(scope="module")
def admin(broker):
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as client:
        yield client


@pytest.fixture
def new_topic(admin):
    def make(name=None, **configs):
        name = name or f"letters-{uuid.uuid4().hex}"
        topic = {"num_partitions": 1, "configs": configs}
        admin.create_topics({name: topic}, wait_for_metadata=True)
        return name

    return make


def configured(bootstrap, topic, **sections):
    letters = {"topic": topic, "bootstrap_servers": [bootstrap], **sections.pop("letters", {})}
    return settings.load(None, dead_letters=letters, **sections)


@pytest.fixture
def open_letters(broker):
    opened = []

    def make(topic, **sections):
        config = configured(broker.bootstrap, topic, **sections)
        opened.append(DeadLetterTopic(config, SystemClock()))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def letter(offset=7, raw=b"{", key=None, reason="malformed", headers=()):
    return DeadLetter(PARTITION, offset, reason, "expected a JSON object", raw, key, headers)


def records(bootstrap, topic):
    """Return what a topic of one partition holds."""
    place = TopicPartition(topic, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    consumer.assign([place])
    end = consumer.end_offsets([place])[place]
    found = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while consumer.position(place) < end:
        assert time.monotonic() < deadline, f"{len(found)} records of {end}"
        found += consumer.poll(100).get(place, [])
    consumer.close()
    return found


def headers(record):
    return {name: value.decode() for name, value in record.headers}


def places(found):
    return [(h["topic"], int(h["partition"]), int(h["offset"])) for h in map(headers, found)]


def test_a_letter_has_its_bytes_its_key_and_where_it_came_from(broker, new_topic, open_letters):
    letters = open_letters(topic := new_topic())
    letters.append([letter(raw=b"\xff{", key=b"ann"), letter(8, b"", None, "empty")])
    before = (letters.n_sent, letters.n_waiting)

    assert letters.sync() == 0
    letters.deliver()

    first, second = records(broker.bootstrap, topic)
    assert (first.value, first.key) == (b"\xff{", b"ann")
    assert headers(first) == {
        "reason": "malformed",
        "detail": "expected a JSON object",
        "topic": "clicks",
        "partition": "2",
        "offset": "7",
    }
    assert (second.value, second.key, headers(second)["reason"]) == (b"", None, "empty")
    assert (before, letters.n_sent, letters.n_waiting) == ((0, 2), 2, 0)


def test_only_what_was_there_at_the_cut_is_delivered(broker, new_topic, open_letters):
    letters = open_letters(topic := new_topic())
    letters.append([letter(1)])
    letters.sync()
    letters.append([letter(2)])

    letters.deliver()
    letters.deliver()

    assert places(records(broker.bootstrap, topic)) == [("clicks", 2, 1)]
    assert letters.n_waiting == 1


def test_what_is_at_hand_is_delivered_at_the_close(broker, new_topic, open_letters):
    letters = open_letters(topic := new_topic())
    letters.append([letter(1), letter(2)])
    letters.sync()
    letters.append([letter(3)])

    letters.close()
    letters.close()

    assert [at for _, _, at in places(records(broker.bootstrap, topic))] == [1, 2, 3]


def test_many_letters_keep_their_order(broker, new_topic, open_letters):
    letters = open_letters(topic := new_topic())
    letters.append(letter(at, b"x" * 20_000) for at in range(600))
    letters.sync()

    letters.deliver()

    found = places(records(broker.bootstrap, topic))
    assert [at for _, _, at in found] == list(range(600))


def test_a_letter_that_is_too_large_is_cut_and_says_so(broker, new_topic, open_letters):
    letters = open_letters(topic := new_topic(**{"max.message.bytes": "20000"}))
    raw = bytes(np.random.default_rng(1).integers(256, size=100_000, dtype=np.uint8))
    letters.append([letter(1), letter(2, raw, b"k" * 5000), letter(3)])
    letters.sync()

    letters.deliver()

    found = {headers(one)["offset"]: one for one in records(broker.bootstrap, topic)}
    assert sorted(found) == ["1", "2", "3"]
    assert (found["2"].value, found["2"].key) == (raw[:4096], b"k" * 4096)
    said = headers(found["2"])
    assert (said["raw_bytes"], said["key_bytes"]) == ("100000", "5000")
    assert "raw_bytes" not in headers(found["1"])


def test_where_next_to_nothing_fits_the_headers_still_do(broker, new_topic, open_letters):
    letters = open_letters(topic := new_topic(**{"max.message.bytes": "1000"}))
    letters.append([letter(1, b"x" * 5000, b"k" * 5000)])
    letters.sync()

    letters.deliver()

    (found,) = records(broker.bootstrap, topic)
    assert (found.value, found.key, headers(found)["raw_bytes"]) == (b"", b"", "5000")


def test_a_letter_is_read_back_from_its_record(broker, new_topic, open_letters):
    letters = open_letters(topic := new_topic(**{"max.message.bytes": "20000"}))
    told = (("reason", b"its own"), ("bytes", b"\xff"), ("without a value", None))
    long = (("h", b"x" * 5000),)
    sent = [
        letter(1, b"{", b"ann", headers=told),
        letter(2, b"x" * 30_000, b"k" * 5000, headers=long),
    ]
    letters.append(sent)
    letters.close()

    whole, cut = [
        from_headers(one.headers, one.value, one.key) for one in records(broker.bootstrap, topic)
    ]

    assert whole == (replace(sent[0], headers=told[:2]), 1)
    assert cut == (replace(sent[1], raw=b"x" * 4096, key=None, headers=()), 30_000)
    with pytest.raises(ValueError, match=r"found no detail, topic, partition, offset"):
        from_headers([("reason", b"r"), ("topic ", None)], b"{", None)


def test_where_the_topic_is_gone_a_try_asks_for_it_once(admin, new_topic, open_letters):
    letters = open_letters(new_topic())
    producer, asked = letters._producer, []

    def send(record):
        asked.append(record)
        return Sending(KafkaTimeoutError("no metadata"), "the topic to take a record", str)

    producer.send = send
    letters.append([letter(1), letter(2), letter(3)])
    letters.sync()

    with pytest.raises(NotDelivered, match=r"no metadata; is the topic there\? 3 wait in memory"):
        letters.deliver()

    assert len(asked) == 1
    letters._due.clear()


def test_so_many_bytes_may_wait_and_then_reading_must(new_topic, open_letters):
    letters = open_letters(new_topic(), letters={"max_waiting_bytes": 1 << 20})

    letters.append([letter(raw=b"x" * 600_000)])
    early = letters.is_full
    letters.append([letter(raw=b"x" * 600_000)])
    full = letters.is_full
    letters.sync()
    still = letters.is_full
    letters.deliver()

    assert (early, full, still, letters.is_full) == (False, True, True, False)


def test_a_missing_topic_is_named_at_the_start(broker):
    config = configured(broker.bootstrap, "no-such-letters")

    with pytest.raises(BrokerError, match=r"dead_letters\.topic: expected topic 'no-such-letters'"):
        DeadLetterTopic(config, SystemClock())


def test_brokers_of_their_own_are_named_by_their_section(monkeypatch):
    quick = partial(KafkaSource, connect_timeout_seconds=0.5)
    monkeypatch.setattr(dead_letter_topic, "KafkaSource", quick)
    config = configured("127.0.0.1:1", "letters", letters={"client": {"nosuch": 1}})

    with pytest.raises(ConfigError, match=r"^dead_letters\.client\.nosuch: expected a setting"):
        DeadLetterTopic(config, SystemClock())
    nobody = configured("127.0.0.1:1", "letters")
    with pytest.raises(BrokerError, match=r"^dead_letters: .* dead_letters\.bootstrap_servers$"):
        DeadLetterTopic(nobody, SystemClock())


def test_a_password_that_is_refused_is_told_by_its_section_and_not_shown(broker):
    if broker.sasl_bootstrap is None:
        pytest.skip("the broker of LIVEVEC_TEST_BROKER has no password of ours")
    client = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "livevec",
        "sasl_plain_password": "not-the-word",
    }
    config = configured(broker.sasl_bootstrap, "letters", letters={"client": client})

    with pytest.raises(BrokerError, match=r"^dead_letters: expected a broker at .* user name") as e:
        DeadLetterTopic(config, SystemClock())
    assert "not-the-word" not in str(e.value) + str(config.public()) + repr(config.dead_letters)


def test_what_is_wrong_with_the_client_is_known_before_anything_is_opened():
    client = {"security_protocol": "SASL_SSL", "sasl_mechanism": "GUESS", "nosuch": 1}
    config = configured("127.0.0.1:1", "letters", letters={"client": client})

    with pytest.raises(ConfigError, match=r"dead_letters\.client\.sasl_mechanism: expected") as e:
        check_source(config)

    assert all(one.startswith("dead_letters.client.") for one in e.value.faults)


def test_settings_of_the_client_are_those_of_the_source(broker, new_topic):
    if broker.sasl_bootstrap is None:
        pytest.skip("the broker of LIVEVEC_TEST_BROKER has no password of ours")
    client = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "livevec",
        "sasl_plain_password": "secret",
        "fetch_max_wait_ms": "100",  # a consumer's
    }
    kafka = {"bootstrap_servers": [broker.sasl_bootstrap], "topics": ["clicks"], "client": client}
    letters = {"topic": new_topic()}
    config = settings.load(None, source={"kafka": kafka}, dead_letters=letters)
    one = DeadLetterTopic(config, SystemClock())
    one.append([letter(1)])
    one.close()

    assert len(records(broker.bootstrap, letters["topic"])) == 1


def test_the_message_of_the_limit_says_where_the_letters_are(broker, new_topic, open_letters):
    letters = open_letters(topic := new_topic(), clicks={"max_dead_letters": 0})
    letters.append([letter()])

    with pytest.raises(DeadLetterLimit, match=f"see topic '{topic}' at {broker.bootstrap}"):
        letters.check(1, 1)


@pytest.mark.parametrize("is_contested", [False, True])
def test_the_file_is_cut_back_and_kept_while_letters_go_to_a_topic(
    tmp_path, broker, new_topic, is_contested
):
    store = {"directory": str(tmp_path)}
    in_a_file = settings.load(None, store=store)
    file = open_dead_letters(in_a_file, SystemClock())
    file.truncate_to(0)
    file.append([letter(1)])
    committed = file.sync()
    file.append([letter(2)])
    file.close()

    config = configured(broker.bootstrap, new_topic(), store=store)
    topic = open_dead_letters(config, SystemClock())
    topic.truncate_to(committed, is_contested=is_contested)
    stated = topic.sync()
    topic.close()

    path = tmp_path / "dead-letters.jsonl"
    assert [json.loads(line)["offset"] for line in path.read_text().splitlines()] == [1]
    assert (stated, topic.is_rotated) == (committed, False)
    again = open_dead_letters(in_a_file, SystemClock())
    again.truncate_to(stated)
    assert not again.is_rotated
    again.close()


def test_a_file_that_was_rotated_away_is_stated_as_it_is(tmp_path, broker, new_topic):
    (tmp_path / "dead-letters.jsonl").write_bytes(b"")
    config = configured(broker.bootstrap, new_topic(), store={"directory": str(tmp_path)})

    topic = open_dead_letters(config, SystemClock())
    topic.truncate_to(500)
    stated = topic.sync()
    topic.close()

    assert (stated, topic.is_rotated) == (0, True)


def test_no_file_is_made_for_letters_that_go_to_a_topic(tmp_path, broker, new_topic):
    config = configured(broker.bootstrap, new_topic(), store={"directory": str(tmp_path)})

    topic = open_dead_letters(config, SystemClock())
    topic.truncate_to(0)
    topic.close()

    assert not (tmp_path / "dead-letters.jsonl").exists()


class Died(Exception):
    """Raised where a process dies."""


class Life:
    """A pipeline and its publisher over one state directory, from its newest generation on."""

    def __init__(self, directory, bootstrap, topic, clock, **sections):
        self.config = configured(
            bootstrap,
            topic,
            store={"directory": directory, "max_items": 1000},
            checkpoint={"every_clicks": 10, "interval_seconds": 1e6, **sections},
            clicks={"max_dead_letter_share": 1.0},
        )
        self.clock = clock
        self.dies_at = 0
        self.hold = lease.hold(directory)
        found = recovery.newest(directory, self.config.fingerprint())
        tenure = self.hold.begin_term(found.name if found else None)
        checkpoints = Checkpoints(directory, tenure, 3, self._on_step)
        checkpoints.adopt(found)
        publications = Publications(self.config.published, tenure, 3)
        publications.adopt(found.name if found else None)
        self.letters = DeadLetterTopic(self.config, SystemClock())
        self.pipeline = Pipeline(
            self.config,
            self.letters,
            clock,
            Start(found.sections, found.manifest.offsets, "")
            if found
            else Start({}, Offsets(), "space"),
        )
        self.publisher = Publisher(self.config, self.pipeline, checkpoints, publications, clock)
        if found:
            self.publisher.adopt(found)
        self.publisher.begin(is_new=False)

    @property
    def position(self):
        return self.pipeline.offsets.get(Partition("clicks", 0), 0)

    def read(self, raw, deaths=None, keys=()):
        """Apply the records of `raw` from the position on, one batch."""
        rest = raw[self.position :]
        lengths = np.array([len(one) for one in rest], np.int64)
        offsets = self.position + np.arange(len(rest), dtype=np.int64)
        data = np.frombuffer(bytearray(b"".join(rest)), np.uint8)
        decoder = JsonDecoder(self.config.clicks)
        decoder.watch(deaths or Deaths())
        place = Partition("clicks", 0)
        starts = np.cumsum(lengths) - lengths
        self.pipeline.apply(decoder.decode(place, data, starts, lengths, offsets, len(raw), keys))

    def settle(self):
        """Tick until what is due is over."""
        self.publisher.tick()
        while busy := [one for one in self._beside() if one.is_busy]:
            busy[0]._thread.join(0.05)
            self.publisher.tick()

    def end(self):
        for one in self._beside():
            if one.is_busy:
                one._thread.join(PATIENCE_SECONDS)
        self.letters.close()
        self.hold.release()

    def _beside(self):
        return self.publisher._writer, self.publisher._builder

    def _on_step(self, step):
        if step == self.dies_at:
            raise Died


def stream(n, broken):
    click = b'{"user_id":"u%d","item_id":"i%d","ts":%d}'
    return [b"what?" if at in broken else click % (at % 7, at % 30, at) for at in range(n)]


class Quarantine(Deaths):
    """Deaths that have condemned the click at offset 2."""

    def refused(self, partition, offsets):
        return np.flatnonzero(np.asarray(offsets) == 2).tolist()


def test_clicks_from_the_future_and_those_that_kill_go_the_same_way(
    tmp_path, broker, new_topic, manual_clock
):
    topic = new_topic()
    raw = stream(5, set())
    raw[3] = b'{"user_id":"u","item_id":"%s","ts":%d}' % (b"i" * 200, 10**12)
    life = Life(tmp_path, broker.bootstrap, topic, manual_clock)
    life.read([*raw, b"x" * 9000], Quarantine(), [b"k%d" % at for at in range(6)])
    before = life.publisher.committed.clicks

    life.publisher.finish(Deadline(manual_clock, PATIENCE_SECONDS), publish=False, is_changed=False)
    life.end()

    found = [
        (headers(one)["offset"], headers(one)["reason"], one.key, one.value)
        for one in records(broker.bootstrap, topic)
    ]
    assert sorted(found) == [
        ("2", "poison", b"k2", raw[2]),
        ("3", "future", b"k3", raw[3]),
        ("5", "malformed", b"k5", b"x" * 9000),
    ]
    assert (before, life.publisher.committed.clicks) == (0, 6)


@pytest.mark.crash
def test_a_death_between_letters_and_commit_repeats_letters_and_loses_none(
    tmp_path, broker, new_topic, manual_clock
):
    topic, broken = new_topic(), {3, 11, 12, 19, 25}
    raw = stream(30, broken)
    first = Life(tmp_path, broker.bootstrap, topic, manual_clock)
    first.read(raw[:15])
    first.settle()
    first.dies_at = 1
    first.read(raw[:20])
    first.read(raw[:26])
    with pytest.raises(Died):
        first.settle()
    first.end()

    second = Life(tmp_path, broker.bootstrap, topic, manual_clock)
    went_on_at = second.position
    second.read(raw)
    second.settle()
    second.end()

    found = Counter(at for _, _, at in places(records(broker.bootstrap, topic)))
    assert went_on_at == 15
    assert found == {3: 1, 11: 1, 12: 1, 19: 2, 25: 2}
    assert second.pipeline.ledger.dead_lettered == {"malformed": len(broken)}
    assert second.publisher.committed.clicks == 30


def test_a_topic_that_takes_nothing_delays_the_commit_and_loses_nothing(
    tmp_path, broker, admin, new_topic, manual_clock, monkeypatch
):
    topic, broken = new_topic(), {3, 14}
    raw = stream(25, broken)
    life = Life(tmp_path, broker.bootstrap, topic, manual_clock, max_uncommitted=20)
    told = []
    monkeypatch.setattr("streamer.publishing.publisher.log.error", lambda *a, **k: told.append(a))
    is_away = threading.Event()
    is_away.set()
    send = life.letters._producer.send

    def away(record):
        patience_ms = 50 if is_away.is_set() else 5000
        monkeypatch.setitem(life.letters._producer._producer.config, "max_block_ms", patience_ms)
        return send(record._replace(topic="no-such-topic") if is_away.is_set() else record)

    monkeypatch.setattr(life.letters._producer, "send", away)
    life.read(raw[:12])
    for _ in range(3):
        life.settle()
        manual_clock.advance(RETRY_SECONDS + 0.1)
    before = (life.publisher.committed, life.publisher.must_wait)
    life.read(raw)
    must_wait = life.publisher.must_wait
    is_away.clear()
    life.settle()
    life.settle()
    life.end()

    assert before[0].clicks == 0
    assert not before[1]
    assert told == [("commit_failed",)]
    assert must_wait
    assert not life.publisher.must_wait
    assert life.publisher.committed.clicks == 25
    assert [at for _, _, at in places(records(broker.bootstrap, topic))] == [3, 14]
