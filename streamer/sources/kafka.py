"""The source over Kafka."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import structlog
from kafka.errors import KafkaError, RetriableError

from state.offsets import Offsets, Partition
from streamer.clock import Clock
from streamer.deadline import Deadline
from streamer.errors import BrokerError, SchemaUnavailable, StreamError
from streamer.settings import sources as config
from streamer.sources.clicks import ClickBatch
from streamer.sources.contract import Claim, Lag
from streamer.sources.decoders import TopicDecoders
from streamer.sources.kafka_client import CLOSE_TIMEOUT_SECONDS, check_client, connect
from streamer.sources.kafka_cluster import Cluster
from streamer.sources.kafka_fetches import Fetched, Fetches
from streamer.sources.kafka_group import Group
from streamer.sources.kafka_places import Places
from streamer.sources.kafka_positions import Positions
from streamer.sources.kafka_watch import Watch

log = structlog.get_logger()

NULL_LENGTH = -1
RETRY_SECONDS = 0.1
APPEAR_SECONDS = 2.0  # for a topic, of brokers that have just started

T = TypeVar("T")


class KafkaClicks:
    """Clicks of the configured topics, whose partitions this process assigns itself.

    Positions are the manifest's: no group decides them, so that neither a rebalance nor a missing
    group coordinator stands in the way of a click. A batch may hold no click and still go on: the
    end of a transaction takes an offset and is no record. A partition that is added to a topic
    is found within seconds, and read from its beginning. A broker that goes away is waited for.

    Connects when it is made, within `connect_timeout_seconds`. Raises `ConfigError` for settings
    of the client that are not known, `BrokerError` when no broker answers, lets us in or has
    the topics. With `take_group` it writes over what others have committed to its group.
    """

    def __init__(
        self,
        settings: config.KafkaSource,
        clicks: config.Clicks,
        clock: Clock,
        *,
        take_group: bool = False,
    ) -> None:
        check_client(settings)
        self._settings = settings
        self._clock = clock
        self._take_group = take_group
        self._decoders = TopicDecoders(clicks, settings.topics)
        self._without_schema: dict[Partition, str] = {}
        self._cluster = Cluster(settings)
        self._watch = Watch(self._cluster, settings.topics, clock)
        self._positions = Positions(settings, self._cluster)
        self._is_paused = False
        self._group: Group | None = None
        self._consumer: Any = None
        try:
            self._consumer = connect(settings)
            self._max_records: int = self._consumer.config["max_poll_records"]
            self._fetches = Fetches(self._consumer)
            self._places = self._new_places()
            self._found = self._find_partitions()
        except StreamError:
            self.close()
            raise

    def partitions(self) -> tuple[Partition, ...]:
        """Return the partitions of the topics, in the order of the configuration."""
        return tuple(self._places.now) or self._found

    def claim(self, claim: Claim) -> None:
        """Look whether the group is ours. See `Source.claim`."""
        self._decoders.watch(claim.deaths)
        self._positions.watch(claim.deaths)
        self._group = group = Group(self._cluster, self._settings.group_id, claim)
        try:
            self._repeat(lambda: group.begin(self._found, take=self._take_group))
        except KafkaError as error:
            # Positions are the manifest's: a group that cannot be read stops nobody.
            log.warning("group_not_read", group=self._settings.group_id, error=str(error))

    def seek(self, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        """Go to where `offsets` points, and begin to watch the brokers. See `Positions.resolve`.

        What `offsets` holds of other sources is kept, and is part of the position. Blocks for
        seconds at most. Raises `BrokerError` when the brokers do not hold what is to be read next.
        """
        begun = self._ask(
            "offsets of the topics",
            lambda: self._positions.resolve(self._watch.look(), offsets, marks),
        )
        self._fetches = Fetches(self._consumer)
        self._places = self._new_places()
        self._places.begin(begun, offsets, marks)
        if self._group is not None:
            self._watch.start(self._group)

    def poll(self, timeout_seconds: float, max_clicks: int) -> ClickBatch | None:
        """Return the next clicks of one partition, partitions in turn, or None.

        Raises `BrokerError` when the brokers no longer hold, or hand out, what comes next, and
        when somebody else commits to our group; `Superseded` when a newer term has been seen.
        """
        self._watch.check()
        if self._is_paused:
            self._clock.sleep(timeout_seconds)
            return None
        self._places.look()
        if not self._places.settle():
            self._clock.sleep(timeout_seconds)
            return None
        has_waited = self._fetches.is_empty
        if has_waited:
            count = min(max_clicks, self._max_records)
            self._places.read(lambda: self._fetches.fetch(timeout_seconds, count))
        for _ in range(self._fetches.n_waiting):
            batch = self._next_batch(max_clicks)
            if batch is not None:
                return batch
        if not has_waited:
            self._clock.sleep(timeout_seconds)
        return None

    def _next_batch(self, max_clicks: int) -> ClickBatch | None:
        """Return the first fetched records as clicks; None where a schema is still to come.

        Such records wait behind those of other partitions.
        """
        fetched = self._fetches.take(max_clicks)
        if fetched is None:
            return None
        try:
            batch = self._decode(fetched)
        except SchemaUnavailable as error:
            self._fetches.put_back(fetched)
            if error.trouble:
                self._without_schema[fetched.partition] = str(error)
            return None
        self._fetches.settled(fetched.partition)
        self._without_schema.pop(fetched.partition, None)
        self._places.took(fetched)
        return batch

    def ended(self) -> Iterable[Partition]:
        """Return nothing: a topic has no end."""
        return ()

    def is_exhausted(self) -> bool:
        """Return False: a topic has no end."""
        return False

    def caught_up(self) -> Iterable[Partition]:
        """Return the partitions that have been read to the end that the last fetch saw.

        None while the brokers are away, nor those without a leader: then nobody knows.
        """
        seen = self._places.seen
        if self._is_paused or seen is None or self._watch.trouble() is not None:
            return ()
        ends = self._fetches.ends()
        at_end = (p for p, at in self._places.now.items() if at >= ends.get(p, at + 1))
        return tuple(p for p in at_end if p not in seen.leaderless)

    def pause(self) -> None:
        """Fetch nothing until `resume`; what was asked for before is kept. Idempotent."""
        self._is_paused = True

    def resume(self) -> None:
        """Fetch again. Idempotent."""
        self._is_paused = False

    def hold_back(self, partitions: Collection[Partition]) -> None:
        """Fetch and return nothing of these partitions. See `Source.hold_back`."""
        self._fetches.hold_back(partitions)

    def position(self) -> Offsets:
        """Return the next offset of each partition, whether or not it has been read from."""
        return self._places.position()

    def marks(self) -> Mapping[Partition, str]:
        """Return what identifies each position: its topic, and the last record before it."""
        return self._places.marks()

    def lag(self) -> Lag:
        """Return how many offsets lie before the ends that the last look or fetch saw."""
        sight = self._watch.sight
        if sight is None or not self._places.now:
            return Lag(None)
        return sight.lag(self._places.now, self._fetches.ends())

    def trouble(self) -> str | None:
        """Return why the brokers, a topic or a schema are not there, None if they are."""
        trouble = self._watch.trouble() or next(iter(self._without_schema.values()), None)
        if trouble is not None or self._places.seen is None:
            return trouble
        read = {partition.topic for partition in self._places.now}
        for topic in sorted(read - self._places.seen.topics.keys()):
            return f"topic {topic!r} is not there"
        for partition in sorted(self._places.now.keys() & self._places.seen.leaderless):
            return f"{partition} has no leader: no broker that has it is there"
        return None

    def losses(self) -> Mapping[str, int]:
        """Return the clicks that were passed over, by reason. See `Source.losses`."""
        return self._places.losses

    def publish_position(self, offsets: Offsets) -> None:
        """Commit `offsets` to the group, from another thread."""
        places = self._places.now
        self._watch.publish(Offsets({p: at for p, at in offsets.items() if p in places}))

    def close(self) -> None:
        """Commit what was published last to the group, if that is quick, and let go. Idempotent."""
        self._decoders.close()
        self._watch.close()
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)

    def _new_places(self) -> Places:
        return Places(self._settings, self._positions, self._watch, self._fetches, self._clock)

    def _find_partitions(self) -> tuple[Partition, ...]:
        """Return the partitions; brokers that have just started may not know their topics yet."""
        deadline = Deadline(self._clock, APPEAR_SECONDS)
        while True:
            sight = self._ask("partitions of the topics", self._watch.look)
            if sight.topics.keys() >= set(self._settings.topics) or not deadline.seconds_left():
                return self._positions.partitions(sight)
            self._clock.sleep(RETRY_SECONDS)

    def _ask(self, what: str, question: Callable[[], T]) -> T:
        try:
            return self._repeat(question)
        except KafkaError as error:
            where = ", ".join(self._settings.bootstrap_servers)
            msg = f"source.kafka: expected {where} to tell the {what}, found: {error}"
            raise BrokerError(msg) from error

    def _repeat(self, question: Callable[[], T]) -> T:
        """Ask the brokers at a start: what may pass is tried again for a while."""
        deadline = Deadline(self._clock, self._settings.connect_timeout_seconds)
        while True:
            try:
                return question()
            except RetriableError:
                if not deadline.seconds_left():
                    raise
            self._clock.sleep(RETRY_SECONDS)

    def _decode(self, fetched: Fetched) -> ClickBatch:
        values = [record.value for record in fetched.records]
        lengths = np.array([NULL_LENGTH if v is None else len(v) for v in values], np.int64)
        sizes = np.maximum(lengths, 0)
        headers = [record.headers for record in fetched.records]
        return self._decoders.of(fetched.partition.topic).decode(
            fetched.partition,
            np.frombuffer(bytearray().join(v or b"" for v in values), np.uint8),
            np.cumsum(sizes) - sizes,
            lengths,
            np.array([record.offset for record in fetched.records], np.int64),
            fetched.next_offset,
            [record.key for record in fetched.records],
            headers if any(headers) else (),
        )
