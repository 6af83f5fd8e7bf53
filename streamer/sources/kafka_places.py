"""Where each partition is read by now, and what is done when a log is not where it was left."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import structlog
from kafka import TopicPartition
from kafka.errors import (
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
    RetriableError,
)

from state.offsets import Offsets, Partition
from streamer.clock import Clock
from streamer.deadline import Deadline
from streamer.errors import BrokerError
from streamer.settings.sources import KafkaSource
from streamer.sources.kafka_fetches import Fetched, Fetches
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

ASK_ANEW_SECONDS = 60.0
PAUSED_SECONDS = 5.0  # between two looks: reading was paused
VERIFY_SECONDS = 3.0  # for the last records that were read

T = TypeVar("T")


class Places:
    """The places of all partitions that are read, and of others that the manifest holds.

    A place is what has been handed out, not what has been fetched. `seen` is the last look at the
    brokers that has been taken into account.
    """

    def __init__(
        self,
        settings: KafkaSource,
        positions: Positions,
        watch: Watch,
        fetches: Fetches,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._positions = positions
        self._watch = watch
        self._fetches = fetches
        self._clock = clock
        self._begun = Beginning()
        self._elsewhere: dict[Partition, int] = {}
        self._marks_elsewhere: dict[Partition, str] = {}
        self._stalled: dict[Partition, tuple[int, float]] = {}
        self._looked_at = 0.0
        self._left_ids: set[str] = set()
        self._doubt: tuple[KafkaError, int] | None = None
        self.seen: Sight | None = None

    @property
    def now(self) -> Mapping[Partition, int]:
        """The place of each partition that is read."""
        return self._begun.places

    @property
    def losses(self) -> Mapping[str, int]:
        """The clicks that were passed over, by reason."""
        return self._begun.losses

    def position(self) -> Offsets:
        """Return the places of all partitions, and of those that are read by others."""
        return Offsets({**self._elsewhere, **self._begun.places})

    def marks(self) -> Mapping[Partition, str]:
        """Return what identifies each place: its topic, and the last record before it."""
        return {partition: str(mark) for partition, mark in self._begun.marks.items()}

    def begin(self, begun: Beginning, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        """Go to where reading begins; `offsets` and `marks` may be of other partitions, too.

        Blocks for at most `VERIFY_SECONDS`. Raises `BrokerError` as the policies say.
        """
        self._begun = begun
        self._elsewhere = {p: at for p, at in offsets.items() if p not in begun.places}
        self._marks_elsewhere = {p: mark for p, mark in marks.items() if p not in begun.places}
        self._verify_last_records()
        self._go_to(begun.places)

    def look(self) -> None:
        """Refuse a topic that was made anew, and begin with partitions that were added."""
        sight = self._watch.sight
        if sight is self.seen or sight is None:
            return
        self.seen = sight
        self._leave_topics_made_anew(sight)
        self._wake_stalled(sight)
        added = [p for p in self._positions.known(sight) if p not in self._begun.places]
        if added:
            self._add(sight, tuple(added))

    def settle(self) -> bool:
        """Do what the policies say of a log that is not where we left it; False if it must wait."""
        if self._doubt is None:
            return True
        error, n_looks = self._doubt
        if self._watch.n_looks < n_looks:
            return False
        self._doubt = None
        sight = self._watch.sight
        assert sight is not None
        divergent = None if isinstance(error, OffsetOutOfRangeError) else error.divergent_offsets
        keys = error.args[0] if divergent is None else divergent
        doubted = [Partition(*key) for key in keys]
        for partition in doubted:
            if partition in sight.leaderless:
                continue  # what it holds is asked again when it has a leader
            if divergent is None:
                self._leave_range(partition, sight)
            else:
                self._leave_divergence(partition, divergent)
        self._go_to(doubted)
        return True

    def read(self, act: Callable[[], T]) -> T | None:
        """Read; None where the brokers are away, or where a policy has chosen another place."""
        try:
            return act()
        except (OffsetOutOfRangeError, LogTruncationError) as error:
            # Is it the same topic still? Looks that began later will have seen it.
            self._doubt = self._doubt or (error, self._watch.n_looks + 2)
        except RetriableError:
            return None
        except KafkaError as error:
            where = ", ".join(self._settings.bootstrap_servers)
            msg = f"source.kafka: expected clicks from {where}, found: {error}"
            raise BrokerError(msg) from error
        return None

    def took(self, fetched: Fetched) -> None:
        """Take note of what was handed out."""
        self._begun.places[fetched.partition] = fetched.next_offset
        if fetched.records:
            last = fetched.records[-1]
            mark = self._begun.marks[fetched.partition]
            self._begun.marks[fetched.partition] = Mark(
                mark.topic_id, last.leader_epoch, last.offset, last.timestamp
            )

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
        found = self.read(lambda: self._fetches.records_at(known, deadline))
        if unseen := sorted(known.keys() - (found or {}).keys()):
            log.warning("last_records_not_verified", partitions=[str(one) for one in unseen])
        for partition, record in (found or {}).items():
            mark = self._begun.marks[partition]
            if record.offset == mark.last_offset and record.timestamp != mark.last_time_ms:
                self._resume_truncated(partition, mark.last_offset)

    def _leave_range(self, partition: Partition, sight: Sight) -> None:
        """Choose a place where there is something."""
        place, first = self._begun.places[partition], sight.begins.get(partition, 0)
        end = sight.ends.get(partition, place)
        if place < first:
            at = self._positions.after_expiry(partition, place, first)
            self._begun.places[partition] = at
            self._begun.losses[EXPIRED] += at - place
        elif place > end:
            self._resume_truncated(partition, end)

    def _leave_divergence(self, partition: Partition, divergent: Mapping[Any, Any]) -> None:
        """Choose the last place that the leader's log has in common with what was read."""
        place, found = self._begun.places[partition], divergent[TopicPartition(*partition)]
        held = found.offset if found else place
        if held < place and self._begun.marks[partition].leader_epoch >= 0:
            self._resume_truncated(partition, held)

    def _resume_truncated(self, partition: Partition, held: int) -> None:
        places, marks = self._begun.places, self._begun.marks
        places[partition] = self._positions.after_truncation(partition, places[partition], held)
        marks[partition] = marks[partition].without_record()
        self._begun.losses[TRUNCATED] += 0

    def _go_to(self, partitions: Iterable[Partition]) -> None:
        for one in partitions:
            epoch = self._begun.marks[one].leader_epoch
            self._fetches.go_to(one, self._begun.places[one], epoch)

    def _leave_topics_made_anew(self, sight: Sight) -> None:
        """Refuse them, or let their partitions be added as if they were new."""
        places, marks = self._begun.places, self._begun.marks
        for partition, mark in list(marks.items()):
            topic = sight.topics.get(partition.topic)
            if topic is None or mark.may_be_of(topic.id) or topic.id in self._left_ids:
                continue  # an id that was left is told by a broker that has not heard yet
            if self._settings.on_recreated_topic == "refuse":
                raise BrokerError(made_anew(partition, places[partition], mark, topic.id))
            self._elsewhere[partition] = places.pop(partition)
            self._marks_elsewhere[partition] = str(marks.pop(partition))
            self._left_ids.add(mark.topic_id)
            self._fetches.drop(partition)

    def _wake_stalled(self, sight: Sight) -> None:
        """Ask anew for what could be read and has not come for long.

        kafka-python has forgotten partitions before (dpkp/kafka-python#3106, #3131).
        """
        now = self._clock.monotonic()
        was_reading = now - self._looked_at < PAUSED_SECONDS
        before, self._stalled = self._stalled if was_reading else {}, {}
        self._looked_at = now
        for partition, place in self._begun.places.items():
            is_idle = partition in sight.leaderless or self._fetches.is_idle(partition)
            if is_idle or sight.stable_ends.get(partition, 0) <= place:
                continue
            last, since = before.get(partition, (place, now))
            if last == place and now - since > ASK_ANEW_SECONDS:
                log.warning("partition_stalled", partition=str(partition), offset=place)
                self._fetches.ask_anew(partition)
                since = now
            self._stalled[partition] = place, since if last == place else now

    def _add(self, sight: Sight, added: tuple[Partition, ...]) -> None:
        """Begin with partitions that were added: at their beginning, or where they were left."""
        known = Offsets({**self._elsewhere, **self._begun.places})
        found = self._positions.resolve(sight, known, self._marks_elsewhere, only=added)
        self._begun.add(found)
        self._go_to(added)
        for partition in added:
            self._elsewhere.pop(partition, None)
            log.info("partition_added", partition=str(partition), offset=found.places[partition])
