"""Where reading begins: what the manifest says against what the brokers hold, and the policies."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Self

import structlog

from state.deaths import Deaths
from state.errors import NoSpace
from state.offsets import Offsets, Partition
from streamer.errors import BrokerError
from streamer.settings.sources import KafkaSource
from streamer.sources.kafka_cluster import Cluster
from streamer.sources.kafka_watch import Sight

log = structlog.get_logger()

# Why clicks were passed over unread.
RECREATED = "recreated"  # of the topic that was deleted; how many is not known
EXPIRED = "expired"  # deleted by retention before they were read
TRUNCATED = "truncated"  # the log lost what we had read, and perhaps more

_MARK = re.compile(r"id=(\S*) epoch=(-?\d+) last=(-?\d+)@(-?\d+)", re.ASCII)
_UNKNOWN = -1
_WAY_OUT = "to begin anew, name another store.directory"


class Mark(NamedTuple):
    """What a position means: in which topic, behind which record.

    An offset says nothing in a topic that was made anew, nor in a log that was cut back and
    written on. `leader_epoch` is that of the last record (KIP-320).

    >>> Mark.parse(str(Mark("a1", 3, 41, 1700000000000)))
    Mark(topic_id='a1', leader_epoch=3, last_offset=41, last_time_ms=1700000000000)
    """

    topic_id: str
    leader_epoch: int = _UNKNOWN
    last_offset: int = _UNKNOWN
    last_time_ms: int = _UNKNOWN

    def may_be_of(self, topic_id: str) -> bool:
        """Tell whether it can be the topic of that id; old brokers know of none."""
        return not self.topic_id or not topic_id or self.topic_id == topic_id

    def without_record(self) -> "Mark":
        """Return the mark of another place in the same log: its leader still knows the epoch."""
        return Mark(self.topic_id, self.leader_epoch)

    def __str__(self) -> str:
        last = f"{self.last_offset}@{self.last_time_ms}"
        return f"id={self.topic_id} epoch={self.leader_epoch} last={last}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Invert `str`; anything else is the id alone, as older generations hold it."""
        match = _MARK.fullmatch(text)
        if match is None:
            return cls(text)
        return cls(match[1], int(match[2]), int(match[3]), int(match[4]))


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where each partition is read on, and what was passed over for it, by reason."""

    places: dict[Partition, int] = field(default_factory=dict)
    marks: dict[Partition, Mark] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)

    def add(self, other: Self) -> None:
        """Begin with what `other` says, too."""
        self.places.update(other.places)
        self.marks.update(other.marks)
        self.losses.update(other.losses)


class Positions:
    """Finds the beginning of every partition that is to be read.

    Each thing that may be wrong has a policy; to refuse is the default of all, and raises
    `BrokerError`.
    """

    def __init__(self, settings: KafkaSource, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._deaths = Deaths()

    def watch(self, deaths: Deaths) -> None:
        """Let deaths be forgotten where offsets come to be those of other clicks."""
        self._deaths = deaths

    def partitions(self, sight: Sight) -> tuple[Partition, ...]:
        """Return the partitions to read, in the order of the configuration.

        Raises `BrokerError` where a topic, or a partition of the share, is missing.
        """
        for name in self._settings.topics:
            if name not in sight.topics:
                self._refuse_missing(name)
        for name, topic in sight.topics.items():
            there = {one.number for one in topic.partitions}
            missing = sorted(set(self._settings.partitions or ()) - there)
            if missing:
                msg = (
                    f"source.kafka.partitions: expected partitions {missing} of topic {name!r}, "
                    f"found 0 to {max(there)}; correct the share"
                )
                raise BrokerError(msg)
        return self.known(sight)

    def known(self, sight: Sight) -> tuple[Partition, ...]:
        """Return those of the partitions to read that are there."""
        share = self._settings.partitions
        return tuple(
            one
            for name in dict.fromkeys(self._settings.topics)
            if name in sight.topics
            for one in sight.topics[name].partitions
            if share is None or one.number in share
        )

    def resolve(
        self,
        sight: Sight,
        offsets: Offsets,
        marks: Mapping[Partition, str],
        only: tuple[Partition, ...] | None = None,
    ) -> Beginning:
        """Return where to read on, by default all partitions that are configured.

        A topic that `offsets` does not name begins as `start` says. A partition that is not
        named, of a topic that is, has been added since, and begins at its beginning; so do those
        of `only`, which were not there when we started. Raises `BrokerError`, `KafkaError`.
        """
        self._check_none_gone(sight, offsets)
        partitions = self.partitions(sight) if only is None else only
        known = {partition.topic for partition in offsets}
        fresh = [one for one in partitions if one.topic not in known] if only is None else []
        starts = self._starts(sight, fresh)
        beginning = Beginning()
        for partition in partitions:
            topic_id = sight.topics[partition.topic].id
            mark = Mark.parse(marks[partition]) if partition in marks else Mark(topic_id)
            place = starts.get(partition, offsets.get(partition, sight.begins[partition]))
            if not mark.may_be_of(topic_id):
                self._restart_recreated(partition, place, mark, topic_id)
                beginning.losses[RECREATED] += 0
                place, mark = sight.begins[partition], Mark(topic_id)
            mark = mark._replace(topic_id=topic_id or mark.topic_id)
            found = self._within(partition, place, sight, beginning.losses)
            beginning.places[partition] = found
            beginning.marks[partition] = mark if found == place else mark.without_record()
        return beginning

    def after_truncation(self, partition: Partition, place: int, held: int) -> int:
        """Return where to go on in a log that holds only `held` of what had been read."""
        if self._settings.on_truncated_log == "refuse":
            msg = (
                f"{partition}: expected to go on at offset {place}, found that the log was cut "
                f"back to {held} and written on by another leader; source.kafka.on_truncated_log "
                f'= "resume" goes on there, or {_WAY_OUT}'
            )
            raise BrokerError(msg)
        log.warning("log_was_truncated", partition=str(partition), position=place, resumed_at=held)
        self._forget_deaths(partition, held, f"cut back from {place}")
        return held

    def after_expiry(self, partition: Partition, place: int, first: int) -> int:
        """Return where to go on when what comes next has been deleted by retention."""
        if self._settings.on_lost_offsets == "refuse":
            msg = (
                f"{partition}: expected to go on at offset {place}, found that the broker holds "
                f"{first} and later: clicks {place} to {first - 1} were deleted before they were "
                f'read; source.kafka.on_lost_offsets = "skip" goes on at {first} and counts them '
                f"as lost, or {_WAY_OUT}"
            )
            raise BrokerError(msg)
        log.warning("clicks_lost", partition=str(partition), first=place, last=first - 1)
        return first

    def _starts(self, sight: Sight, fresh: list[Partition]) -> dict[Partition, int]:
        start = self._settings.start
        if start == "earliest":
            return {partition: sight.begins[partition] for partition in fresh}
        starts = {partition: sight.ends[partition] for partition in fresh}
        if start != "latest":
            time_ms = start_ms(start)
            starts.update(self._cluster.at_time(fresh, time_ms))
        return starts

    def _within(self, partition: Partition, place: int, sight: Sight, losses: Counter[str]) -> int:
        first, end = sight.begins[partition], sight.ends[partition]
        if place < first:
            losses[EXPIRED] += first - place
            return self.after_expiry(partition, place, first)
        if place > end:
            losses[TRUNCATED] += 0
            return self.after_truncation(partition, place, end)
        return place

    def _refuse_missing(self, name: str) -> None:
        if self._settings.on_missing_topic == "refuse":
            where = ", ".join(self._settings.bootstrap_servers)
            msg = (
                f"source.kafka.topics: expected topic {name!r} at {where}, found none of that "
                "name, or no right to see it; create it, or correct the name"
            )
            raise BrokerError(msg)
        log.warning("topic_missing", topic=name, hint="read as soon as it is there")

    def _restart_recreated(
        self, partition: Partition, place: int, mark: Mark, topic_id: str
    ) -> None:
        if self._settings.on_recreated_topic == "refuse":
            raise BrokerError(made_anew(partition, place, mark, topic_id))
        log.warning("topic_was_made_anew", partition=str(partition), position=place, id=topic_id)
        self._forget_deaths(partition, 0, topic_id)

    def _forget_deaths(self, partition: Partition, begin: int, of_log: str) -> None:
        try:
            self._deaths.absolve(partition, begin, of_log)
        except NoSpace as error:
            log.warning("deaths_not_forgotten", partition=str(partition), error=str(error))

    def _check_none_gone(self, sight: Sight, offsets: Offsets) -> None:
        there = {one for topic in sight.topics.values() for one in topic.partitions}
        for partition, offset in offsets.items():
            is_gone = partition.topic in sight.topics and partition not in there
            if is_gone and self._settings.on_recreated_topic == "refuse":
                msg = (
                    f"{partition}: expected to go on at offset {offset}, found no such partition: "
                    f"was the topic made anew? {_WAY_OUT}"
                )
                raise BrokerError(msg)


def made_anew(partition: Partition, place: int, mark: Mark, topic_id: str) -> str:
    """Return what there is to say of a topic that is not the one which was read."""
    return (
        f"{partition}: expected to go on at offset {place} of the topic with id {mark.topic_id}, "
        f"found one with id {topic_id}: it was made anew since, and its offsets are those of "
        'other clicks; source.kafka.on_recreated_topic = "restart" reads it from its beginning, '
        f"or {_WAY_OUT}"
    )


def start_ms(start: str) -> int:
    """Return a time that is the beginning of a first start; without a zone it is UTC."""
    time = datetime.fromisoformat(start)
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1000)
