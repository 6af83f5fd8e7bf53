"""A topic of generated clicks, keyed by user, and what must be learned of it."""

import json
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace

import xxhash
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from state.offsets import Offsets, Partition
from streamer.clock import SystemClock
from streamer.sources.simulated import SimulatedClicks, TrafficSettings
from tests.oracles import Click, KeyedSessions, PairSums

N_PARTITIONS = 3  # of a test's own topic
PATIENCE_SECONDS = 120.0
SLICE_SECONDS = 0.05
USER_SEED = 2

# What livevec does by default (README), in milliseconds.
RULES = SimpleNamespace(
    gap=1_800_000,
    lateness=300_000,
    out_of_orderness=10_000,
    max_jump=86_400_000,
    max_kept=200,
    max_trained=2000,
    max_open=1_000_000,
    window=5,
    is_early=1,
)


class Topic:
    """Produces generated clicks to a topic, beside the caller and at a pace, each once.

    Partitions take the codecs in turn.
    """

    def __init__(
        self,
        bootstrap: str,
        name: str,
        n_partitions: int,
        codecs: Sequence[str | None] = (None,),
        seed: int = 1,
    ) -> None:
        self.name = name
        self.bootstrap = bootstrap
        self.n_partitions = n_partitions
        self._lines = _records(seed)
        self._wanted, self._rate = 0, 0.0
        self._is_closed = False
        self._error: BaseException | None = None
        self.n_produced = 0
        with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
            admin.create_topics({name: {"num_partitions": n_partitions}}, wait_for_metadata=True)
        self._producers = [
            KafkaProducer(
                bootstrap_servers=bootstrap,
                compression_type=codec,
                enable_idempotence=True,
                linger_ms=5,
                delivery_timeout_ms=int(PATIENCE_SECONDS * 1000),
                reconnect_backoff_max_ms=500,
            )
            for codec in codecs
        ]
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)
        self._thread.start()

    def produce_until(self, n: int, rate: float) -> None:
        """Go on to the n-th click, at `rate` clicks a second; returns at once."""
        self._wanted, self._rate = n, rate

    def abort(self, n: int) -> None:
        """Send `n` clicks in a transaction that is aborted: nobody may train them."""
        if not n:
            return
        transaction = f"aborted-{self.name}"
        with KafkaProducer(bootstrap_servers=self.bootstrap, transactional_id=transaction) as one:
            one.init_transactions()
            one.begin_transaction()
            for at in range(n):
                click = {
                    "user_id": f"u{at % 50:06d}",
                    "item_id": "aborted",
                    "ts": 1_800_000_000_000,
                }
                one.send(self.name, json.dumps(click).encode(), partition=at % self.n_partitions)
            one.abort_transaction()

    def ends(self) -> Offsets:
        """Return the ends of the partitions once everything that was asked for is there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.n_produced < self._wanted:
            self._check()
            assert time.monotonic() < deadline, f"{self.n_produced} of {self._wanted} produced"
            time.sleep(SLICE_SECONDS)
        for producer in self._producers:
            producer.flush(PATIENCE_SECONDS)
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        ends = consumer.end_offsets(self._partitions())
        consumer.close()
        return Offsets({Partition(*key): end for key, end in ends.items()})

    def records(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (partition, offset, value) of what the topic holds and was not aborted."""
        ends = {TopicPartition(*key): end for key, end in self.ends().items()}
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        consumer.assign(list(ends))
        while any(consumer.position(key) < end for key, end in ends.items()):
            for key, records in consumer.poll(200, max_records=20_000).items():
                for one in records:
                    yield key.partition, one.offset, one.value
        consumer.close()

    def close(self) -> None:
        self._is_closed = True
        self._thread.join(PATIENCE_SECONDS)
        for producer in self._producers:
            producer.close(1)

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.name, number) for number in range(self.n_partitions)]

    def _run(self) -> None:
        try:
            while not self._is_closed:
                begun = time.monotonic()
                left = self._wanted - self.n_produced
                for _ in range(int(min(left, max(1.0, self._rate * SLICE_SECONDS), 20_000))):
                    user, value = next(self._lines)
                    number = zlib.crc32(user) % self.n_partitions
                    producer = self._producers[number % len(self._producers)]
                    sent = producer.send(self.name, value, key=user, partition=number)
                    sent.add_errback(self._fail)
                    self.n_produced += 1
                pause = SLICE_SECONDS - (time.monotonic() - begun)
                if self._rate < float("inf") or left <= 0:
                    time.sleep(max(0.0, pause))
        except BaseException as error:  # told to who waits
            self._error = error

    def _fail(self, error: BaseException) -> None:
        self._error = error

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


@dataclass(frozen=True)
class Truth:
    """What must come of a topic: (count, sum) of the pairs by partition and by session."""

    clicks: int
    partitions: dict[int, tuple[int, int]]
    sessions: dict[int, tuple[int, int]]
    malformed: list[tuple[int, int]] = field(default_factory=list)


def truth_of(topic: Topic) -> Truth:
    """Compute it from what the topic holds, each partition by itself."""
    by_partition = defaultdict(list)
    for partition, offset, value in topic.records():
        by_partition[partition].append((offset, value))
    partitions, sessions, malformed = {}, {}, []
    for number, records in sorted(by_partition.items()):
        one = KeyedSessions(RULES, 1)
        by_one = PairSums(lambda click: 0, _item_key)
        by_session = PairSums(lambda click: click.key, _item_key)
        for offset, value in records:
            click = _click(offset, value)
            if click is None or one.arrive(click) == "future":
                malformed.append((number, offset))
            for tile in one.tiles:
                by_one.add([tile])
                by_session.add([tile])
            one.tiles.clear()
        partitions[number] = by_one.found().get(0, (0, 0))
        sessions.update(by_session.found())
    n = sum(map(len, by_partition.values()))
    partitions = {number: partitions.get(number, (0, 0)) for number in range(topic.n_partitions)}
    return Truth(n, partitions, sessions, malformed)


def session_key(user: str) -> int:
    """Return the key of the sessions of a user."""
    return xxhash.xxh64_intdigest(user.encode(), seed=USER_SEED)


def _click(offset: int, value: bytes) -> Click | None:
    try:
        fields = json.loads(value)
    except json.JSONDecodeError:
        return None
    key = session_key(fields["user_id"])
    return Click(key, fields["item_id"], fields["ts"], 0, offset)


@lru_cache(maxsize=1 << 20)
def _item_key(item: str) -> int:
    return xxhash.xxh64_intdigest(item.encode(), seed=0)


def _records(seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (user, record) of generated clicks; a malformed one is keyed as its neighbour is."""
    source = SimulatedClicks(TrafficSettings(seed=seed), SystemClock())
    user = b"nobody"
    for line in source.lines(1 << 40):
        try:
            user = json.loads(line)["user_id"].encode()
        except json.JSONDecodeError:
            pass
        yield user, line


def produce(producer, topic: str, rows) -> None:
    """Send each user's clicks to one partition, as a producer with keys does."""
    for row in rows:
        partition = hash_of(row) % N_PARTITIONS
        producer.send(topic, value=json.dumps(row).encode(), partition=partition)
    producer.flush(PATIENCE_SECONDS)


def hash_of(row) -> int:
    return int(row["user_id"][1:])


def ends_of(topic: str, rows) -> dict[Partition, int]:
    counts = Counter(hash_of(row) % N_PARTITIONS for row in rows)
    return {Partition(topic, number): counts[number] for number in range(N_PARTITIONS)}


def has_committed(livevec, n: int):
    return lambda: livevec.committed() == n
