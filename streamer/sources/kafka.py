"""The source over Kafka."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import structlog
from kafka.errors import (
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
    RetriableError,
)

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
from streamer.sources.kafka_positions import (
    EXPIRED,
    TRUNCATED,
    Beginning,
    Mark,
    Positions,
    made_anew,
)
from streamer.sources.kafka_watch import Sight, Watch

log = structlog.get_logger()

NULL_LENGTH = -1
RETRY_SECONDS = 0.1
VERIFY_SECONDS = 3.0  # for the last records that were read
STALLED_SECONDS = 60.0
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
        self._begun = Beginning()
        self._elsewhere: dict[Partition, int] = {}
        self._marks_elsewhere: Mapping[Partition, str] = {}
        self._seen: Sight | None = None
        self._stalled: dict[Partition, tuple[int, float]] = {}
        self._is_paused = False
        self._group: Group | None = None
        self._consumer: Any = None
        try:
            self._consumer = connect(settings)
            self._max_records: int = self._consumer.config["max_poll_records"]
            self._fetches = Fetches(self._consumer)
            self._partitions = self._find_partitions()
        except StreamError:
            self.close()
            raise

    def partitions(self) -> tuple[Partition, ...]:
        """Return the partitions of the topics, in the order of the configuration."""
        return self._partitions

    def claim(self, claim: Claim) -> None:
        """Look whether the group is ours. See `Source.claim`."""
        self._decoders.watch(claim.deaths)
        self._group = group = Group(self._cluster, self._settings.group_id, claim)
        try:
            self._repeat(lambda: group.begin(self._partitions, take=self._take_group))
        except KafkaError as error:
            # Positions are the manifest's: a group that cannot be read stops nobody.
            log.warning("group_not_read", group=self._settings.group_id, error=str(error))

    def seek(self, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        """Go to where `offsets` points, and begin to watch the brokers. See `Positions.resolve`.

        What `offsets` holds of other sources is kept, and is part of the position. Blocks for
        seconds at most. Raises `BrokerError` when the brokers do not hold what is to be read next.
        """
        self._begun = self._ask(
            "offsets of the topics",
            lambda: self._positions.resolve(self._watch.look(), offsets, marks),
        )
        self._partitions = tuple(self._begun.places)
        places = self._begun.places
        self._elsewhere = {p: at for p, at in offsets.items() if p not in places}
        self._marks_elsewhere = {p: mark for p, mark in marks.items() if p not in places}
        self._fetches = Fetches(self._consumer)
        self._verify_last_records()
        self._go_to(self._partitions)
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
        self._take_sight()
        has_waited = self._fetches.is_empty
        if has_waited:
            count = min(max_clicks, self._max_records)
            self._reading(lambda: self._fetches.fetch(timeout_seconds, count))
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
        self._begun.places[fetched.partition] = fetched.next_offset
        self._note_last(fetched)
        return batch

    def ended(self) -> Iterable[Partition]:
        """Return nothing: a topic has no end."""
        return ()

    def is_exhausted(self) -> bool:
        """Return False: a topic has no end."""
        return False

    def caught_up(self) -> Iterable[Partition]:
        """Return the partitions that have been read to the end that the last fetch saw.

        None while the brokers are away: then nobody knows.
        """
        if self._is_paused or self._watch.trouble() is not None:
            return ()
        ends = self._fetches.ends()
        return tuple(p for p, at in self._begun.places.items() if at >= ends.get(p, at + 1))

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
        return Offsets({**self._elsewhere, **self._begun.places})

    def marks(self) -> Mapping[Partition, str]:
        """Return what identifies each position: its topic, and the last record before it."""
        return {partition: str(mark) for partition, mark in self._begun.marks.items()}

    def lag(self) -> Lag:
        """Return how many offsets lie before the ends that the last look or fetch saw."""
        sight = self._watch.sight
        if sight is None or not self._begun.places:
            return Lag(None)
        return sight.lag(self._begun.places, self._fetches.ends())

    def trouble(self) -> str | None:
        """Return why the brokers, a topic or a schema are not there, None if they are."""
        trouble = self._watch.trouble() or next(iter(self._without_schema.values()), None)
        if trouble is not None or self._seen is None:
            return trouble
        gone = sorted(set(self._settings.topics) - self._seen.topics.keys())
        return f"topic {gone[0]!r} is not there" if gone else None

    def losses(self) -> Mapping[str, int]:
        """Return the clicks that were passed over, by reason. See `Source.losses`."""
        return self._begun.losses

    def publish_position(self, offsets: Offsets) -> None:
        """Commit `offsets` to the group, from another thread."""
        places = self._begun.places
        self._watch.publish(Offsets({p: at for p, at in offsets.items() if p in places}))

    def close(self) -> None:
        """Commit what was published last to the group, if that is quick, and let go. Idempotent."""
        self._decoders.close()
        self._watch.close()
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)

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

    def _verify_last_records(self) -> None:
        """Compare the last record that was read with what its offset holds now."""
        assert self._watch.sight is not None
        begins = self._watch.sight.begins
        known = {
            partition: mark.last_offset
            for partition, mark in self._begun.marks.items()
            if begins[partition] <= mark.last_offset < self._begun.places[partition]
        }
        deadline = Deadline(self._clock, VERIFY_SECONDS)
        found = self._reading(lambda: self._fetches.records_at(known, deadline))
        if unseen := sorted(known.keys() - (found or {}).keys()):
            log.warning("last_records_not_verified", partitions=[str(one) for one in unseen])
        for partition, record in (found or {}).items():
            mark = self._begun.marks[partition]
            if record.offset == mark.last_offset and record.timestamp != mark.last_time_ms:
                self._resume_truncated(partition, mark.last_offset)

    def _reading(self, act: Callable[[], T]) -> T | None:
        """Read; None where the brokers are away, or where a policy has chosen another place."""
        try:
            return act()
        except OffsetOutOfRangeError as error:
            self._leave_range([Partition(*key) for key in error.args[0]])
        except LogTruncationError as error:
            for key, divergent in error.divergent_offsets.items():
                place = self._begun.places[Partition(*key)]
                self._resume_truncated(Partition(*key), divergent.offset if divergent else place)
                self._go_to([Partition(*key)])
        except RetriableError:
            return None
        except KafkaError as error:
            where = ", ".join(self._settings.bootstrap_servers)
            msg = f"source.kafka: expected clicks from {where}, found: {error}"
            raise BrokerError(msg) from error
        return None

    def _leave_range(self, partitions: Iterable[Partition]) -> None:
        """Go on where there is something, if the last look has seen already where that is."""
        sight = self._watch.sight
        assert sight is not None
        for partition in partitions:
            place, first = self._begun.places[partition], sight.begins.get(partition, 0)
            end = sight.ends.get(partition, place)
            if place < first:
                at = self._positions.after_expiry(partition, place, first)
                self._begun.places[partition] = at
                self._begun.losses[EXPIRED] += at - place
            elif place > end:
                self._resume_truncated(partition, end)
            self._go_to([partition])

    def _resume_truncated(self, partition: Partition, held: int) -> None:
        places, marks = self._begun.places, self._begun.marks
        places[partition] = self._positions.after_truncation(partition, places[partition], held)
        marks[partition] = Mark(marks[partition].topic_id)
        self._begun.losses[TRUNCATED] += 0

    def _go_to(self, partitions: Iterable[Partition]) -> None:
        for one in partitions:
            epoch = self._begun.marks[one].leader_epoch
            self._fetches.go_to(one, self._begun.places[one], epoch)

    def _take_sight(self) -> None:
        """Refuse a topic that was made anew, and begin with partitions that were added."""
        sight = self._watch.sight
        if sight is self._seen or sight is None:
            return
        self._seen = sight
        for partition, mark in self._begun.marks.items():
            topic = sight.topics.get(partition.topic)
            if topic is not None and topic.id != mark.topic_id:
                place = self._begun.places[partition]
                raise BrokerError(made_anew(partition, place, mark, topic.id))
        self._wake_stalled(sight)
        added = [p for p in self._positions.known(sight) if p not in self._begun.places]
        if added:
            self._add(sight, tuple(added))

    def _wake_stalled(self, sight: Sight) -> None:
        """Ask anew for what could be read and has not come for long.

        kafka-python has forgotten partitions before (dpkp/kafka-python#3106, #3131).
        """
        now = self._clock.monotonic()
        before, self._stalled = self._stalled, {}
        for partition, place in self._begun.places.items():
            if sight.stable_ends.get(partition, 0) <= place or self._fetches.is_idle(partition):
                continue
            last, since = before.get(partition, (place, now))
            if last == place and now - since > STALLED_SECONDS:
                log.warning("partition_stalled", partition=str(partition), offset=place)
                self._fetches.ask_anew(partition)
                since = now
            self._stalled[partition] = place, since if last == place else now

    def _add(self, sight: Sight, added: tuple[Partition, ...]) -> None:
        """Begin with partitions that were added: at their beginning, or where they were left."""
        known = Offsets({**self._elsewhere, **self._begun.places})
        found = self._positions.resolve(sight, known, self._marks_elsewhere, only=added)
        self._begun.add(found)
        self._partitions = (*self._partitions, *added)
        self._go_to(added)
        for partition in added:
            self._elsewhere.pop(partition, None)
            log.info("partition_added", partition=str(partition), offset=found.places[partition])

    def _note_last(self, fetched: Fetched) -> None:
        if fetched.records:
            last = fetched.records[-1]
            mark = self._begun.marks[fetched.partition]
            self._begun.marks[fetched.partition] = Mark(
                mark.topic_id, last.leader_epoch, last.offset, last.timestamp
            )

    def _decode(self, fetched: Fetched) -> ClickBatch:
        values = [record.value for record in fetched.records]
        lengths = np.array([NULL_LENGTH if v is None else len(v) for v in values], np.int64)
        sizes = np.maximum(lengths, 0)
        return self._decoders.of(fetched.partition.topic).decode(
            fetched.partition,
            np.frombuffer(bytearray().join(v or b"" for v in values), np.uint8),
            np.cumsum(sizes) - sizes,
            lengths,
            np.array([record.offset for record in fetched.records], np.int64),
            fetched.next_offset,
            [record.key for record in fetched.records],
            [record.headers for record in fetched.records],
        )
