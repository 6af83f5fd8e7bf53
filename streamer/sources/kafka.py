"""The source over Kafka."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from state.offsets import Offsets, Partition
from streamer.clock import Clock
from streamer.errors import BrokerError, StreamError
from streamer.settings import sources as config
from streamer.sources.clicks import ClickBatch, JsonDecoder
from streamer.sources.contract import Lag
from streamer.sources.kafka_client import (
    CLOSE_TIMEOUT_SECONDS,
    GroupOffsets,
    check_client,
    connect,
)

NULL_LENGTH = -1


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Records of one partition that have been fetched and not handed out."""

    partition: Partition
    records: Sequence[Any]
    next_offset: int

    def key_at(self, offset: int) -> bytes | None:
        """Return the key of the record at `offset`, which is one of these."""
        found = bisect_left(self.records, offset, key=attrgetter("offset"))
        key: bytes | None = self.records[found].key
        return key

    def split(self, count: int) -> tuple["_Fetched", "_Fetched | None"]:
        """Return the first `count` records, and what is left of them, if any."""
        if len(self.records) <= count:
            return self, None
        first, rest = self.records[:count], self.records[count:]
        return (
            _Fetched(self.partition, first, first[-1].offset + 1),
            _Fetched(self.partition, rest, self.next_offset),
        )


class KafkaClicks:
    """Clicks of every partition of the configured topics, all assigned to this process.

    Positions are the manifest's: no group decides them, so that neither a rebalance nor a missing
    group coordinator stands in the way of a click. A batch may hold no click and still go on: the
    end of a transaction takes an offset and is no record. A partition that is added to a topic
    is found at the next start, and read from its beginning.

    Connects when it is made, within `connect_timeout_seconds`. Raises `ConfigError` for settings
    of the client that are not known, `BrokerError` when no broker answers, lets us in or has
    the topics.
    """

    def __init__(self, settings: config.KafkaSource, clicks: config.Clicks, clock: Clock) -> None:
        check_client(settings)
        self._settings = settings
        self._clock = clock
        self._decoder = JsonDecoder(clicks)
        self._consumer = connect(settings)
        self._group = GroupOffsets(settings)
        self._max_records: int = self._consumer.config["max_poll_records"]
        self._fetched: deque[_Fetched] = deque()
        self._next: dict[Partition, int] = {}
        self._first_ends: dict[Partition, int] = {}
        self._elsewhere: dict[Partition, int] = {}
        self._is_paused = False
        try:
            self._partitions = self._find_partitions()
        except StreamError:
            self.close()
            raise
        self._unwatched = deque(self._partitions)
        ids = ((p, self._consumer.topic_id(p.topic)) for p in self._partitions)
        self._marks = {partition: found for partition, found in ids if found is not None}

    def partitions(self) -> tuple[Partition, ...]:
        """Return the partitions of the topics, in the order of the configuration."""
        return self._partitions

    def seek(self, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        """Go to where `offsets` points; a topic that it does not name begins as `start` says.

        A partition that is not named, of a topic that is, has been added since: it begins at its
        beginning. What `offsets` holds of other sources is kept, and is part of the position.

        Blocks for at most `connect_timeout_seconds`, twice. Raises `BrokerError` when the broker
        does not hold what is to be read next.
        """
        first, end = self._ranges()
        topics = {partition.topic for partition in offsets}
        places = {}
        for partition in self._partitions:
            is_new = partition.topic not in topics
            begin = end if is_new and self._settings.start == "latest" else first
            places[partition] = offsets.get(partition, begin[partition])
            _check_range(partition, places[partition], first[partition], end[partition])
        self._check_none_gone(offsets)
        self._check_none_anew(offsets, marks)
        self._consumer.assign([TopicPartition(*partition) for partition in places])
        for partition, offset in places.items():
            self._consumer.seek(TopicPartition(*partition), offset)
        self._elsewhere = {p: offset for p, offset in offsets.items() if p not in places}
        self._next = places
        self._first_ends = end
        self._fetched.clear()

    def poll(self, timeout_seconds: float, max_clicks: int) -> ClickBatch | None:
        """Return the next clicks of one partition, partitions in turn, or None.

        Raises `BrokerError` when the broker no longer holds, or hands out, what comes next.
        """
        if self._is_paused:
            self._clock.sleep(timeout_seconds)
            return None
        if not self._fetched:
            self._fetch(timeout_seconds, max_clicks)
        if not self._fetched:
            return None
        now, later = self._fetched[0].split(max_clicks)
        batch = self._decode(now)
        self._fetched.popleft()
        if later is not None:
            self._fetched.append(later)
        self._next[now.partition] = now.next_offset
        return batch

    def ended(self) -> Iterable[Partition]:
        """Return nothing: a topic has no end."""
        return ()

    def is_exhausted(self) -> bool:
        """Return False: a topic has no end."""
        return False

    def caught_up(self) -> Iterable[Partition]:
        """Return the partitions that have been read to the end that the last fetch saw."""
        if self._is_paused:
            return ()
        ends = self._ends()
        return tuple(p for p, offset in self._next.items() if offset >= ends.get(p, offset + 1))

    def pause(self) -> None:
        """Fetch nothing until `resume`; what was asked for before is kept. Idempotent."""
        self._is_paused = True

    def resume(self) -> None:
        """Fetch again. Idempotent."""
        self._is_paused = False

    def position(self) -> Offsets:
        """Return the next offset of each partition, whether or not it has been read from."""
        return Offsets({**self._elsewhere, **self._next})

    def marks(self) -> Mapping[Partition, str]:
        """Return the id of each partition's topic: under it no offset is given twice."""
        return self._marks

    def lag(self) -> Lag:
        """Return how many offsets lie before the ends that `seek` and the last fetches saw."""
        if not self._next:
            return Lag(None)
        ends = {**self._first_ends, **self._ends()}
        return Lag(sum(max(0, ends[p] - offset) for p, offset in self._next.items()))

    def publish_position(self, offsets: Offsets, term: int) -> None:
        """Commit `offsets` to the group, with the term as metadata, from another thread."""
        self._group.publish(
            {
                TopicPartition(*partition): OffsetAndMetadata(offset, f"term={term}", -1)
                for partition, offset in offsets.items()
                if partition in self._next
            }
        )

    def close(self) -> None:
        """Commit what was published last to the group, if that is quick, and let go. Idempotent."""
        self._group.close()
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)

    def _find_partitions(self) -> tuple[Partition, ...]:
        found = []
        for topic in self._settings.topics:
            try:
                indexes = self._consumer.partitions_for_topic(topic)
            except KafkaError as error:
                what = f"partitions of topic {topic!r}"
                raise self._unanswered(what, error) from error
            if not indexes:
                msg = (
                    f"source.kafka.topics: expected topic {topic!r} at {self._where()}, found none "
                    "of that name, or no right to see it; create it, or correct the name"
                )
                raise BrokerError(msg)
            found += [Partition(topic, index) for index in sorted(indexes)]
        return tuple(dict.fromkeys(found))

    def _ranges(self) -> tuple[dict[Partition, int], dict[Partition, int]]:
        """Return the first offset of each partition, and the one behind its last."""
        asked = [TopicPartition(*partition) for partition in self._partitions]
        timeout_ms = int(self._settings.connect_timeout_seconds * 1000)
        try:
            first = self._consumer.beginning_offsets(asked, timeout_ms=timeout_ms)
            end = self._consumer.end_offsets(asked, timeout_ms=timeout_ms)
        except KafkaError as error:
            what = "offsets of the topics"
            raise self._unanswered(what, error) from error
        return (
            {Partition(*key): int(offset) for key, offset in first.items()},
            {Partition(*key): int(offset) for key, offset in end.items()},
        )

    def _check_none_gone(self, offsets: Offsets) -> None:
        for partition, offset in offsets.items():
            if partition.topic in self._settings.topics and partition not in self._partitions:
                msg = (
                    f"{partition}: expected to go on at offset {offset}, found no such partition "
                    f"at {self._where()}; was the topic made anew? {_WAY_OUT}"
                )
                raise BrokerError(msg)

    def _check_none_anew(self, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        for partition, found in self._marks.items():
            if (mark := marks.get(partition, found)) != found:
                msg = (
                    f"{partition}: expected to go on at offset {offsets[partition]} of the topic "
                    f"with id {mark}, found one with id {found}: it was made anew since, and its "
                    f"offsets are those of other clicks; {_WAY_OUT}"
                )
                raise BrokerError(msg)

    def _fetch(self, timeout_seconds: float, max_clicks: int) -> None:
        count = min(max_clicks, self._max_records)
        try:
            found = self._consumer.poll(int(timeout_seconds * 1000), max_records=count)
            records = {Partition(*key): some for key, some in found.items()}
            for partition in self._moved(records):
                end = self._consumer.position(TopicPartition(*partition), timeout_ms=0)
                if end > self._next[partition]:
                    self._fetched.append(_Fetched(partition, records.get(partition, ()), end))
        except OffsetOutOfRangeError as error:
            raise self._out_of_range(error) from error
        except KafkaError as error:
            msg = f"source.kafka: expected clicks from {self._where()}, found: {error}"
            raise BrokerError(msg) from error

    def _moved(self, records: Mapping[Partition, Any]) -> Iterable[Partition]:
        """Return the partitions whose position to look at.

        Those with records; and, because an aborted transaction moves a position and shows no
        record, all of them when there are none, else the others in turn: looking is not free.
        """
        if not records:
            return self._partitions
        self._unwatched.rotate(-1)
        return dict.fromkeys((*records, self._unwatched[0]))

    def _decode(self, fetched: _Fetched) -> ClickBatch:
        values = [record.value for record in fetched.records]
        lengths = np.array([NULL_LENGTH if v is None else len(v) for v in values], np.int64)
        sizes = np.maximum(lengths, 0)
        batch = self._decoder.decode(
            fetched.partition,
            np.frombuffer(bytearray().join(v or b"" for v in values), np.uint8),
            np.cumsum(sizes) - sizes,
            lengths,
            np.array([record.offset for record in fetched.records], np.int64),
            fetched.next_offset,
        )
        letters = tuple(replace(one, key=fetched.key_at(one.offset)) for one in batch.dead_letters)
        return replace(batch, key_at=fetched.key_at, dead_letters=letters)

    def _ends(self) -> dict[Partition, int]:
        """Return the end of each partition that has been fetched from; never blocks."""
        ends = {}
        for partition in self._next:
            end = self._consumer.highwater(TopicPartition(*partition))
            if end is not None:
                ends[partition] = end
        return ends

    def _where(self) -> str:
        return ", ".join(self._settings.bootstrap_servers)

    def _unanswered(self, what: str, error: Exception) -> BrokerError:
        return BrokerError(f"source.kafka: expected {self._where()} to tell the {what}: {error}")

    def _out_of_range(self, error: OffsetOutOfRangeError) -> BrokerError:
        key, offset = next(iter(error.args[0].items()))
        return BrokerError(
            f"{Partition(*key)}: expected to go on at offset {offset}, found that the broker no "
            f"longer holds it: deleted by retention before it was read? {_WAY_OUT}"
        )


_WAY_OUT = "to begin anew, name another store.directory"


def _check_range(partition: Partition, offset: int, first: int, end: int) -> None:
    if not first <= offset <= end:
        missing = "were deleted before they were read" if offset < first else "were never there"
        low, high = (offset, first) if offset < first else (end, offset)
        msg = (
            f"{partition}: expected to go on at offset {offset}, found that the broker holds "
            f"{first} to {end}: clicks {low} to {high - 1} {missing}; {_WAY_OUT}"
        )
        raise BrokerError(msg)
