"""What the brokers say of topics, offsets and the group; blocks, so never on the way of a click."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from kafka import IsolationLevel, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from state.offsets import Partition
from streamer.settings.sources import KafkaSource
from streamer.sources.kafka_client import SECTION, connect_admin

REQUEST_TIMEOUT_SECONDS = 3.0
_UNKNOWN = -1
_NOBODY = -1  # leads a partition
_NO_ID = "00000000-0000-0000-0000-000000000000"  # what brokers say that know of none


class Topic(NamedTuple):
    """What a name stands for now: an id, which a topic made anew has not, and its partitions.

    The id is empty where the brokers know of none. Of `leaderless` partitions nobody can tell
    offsets now.
    """

    id: str
    partitions: tuple[Partition, ...]
    leaderless: tuple[Partition, ...] = ()

    def of(self, partitions: Collection[Partition]) -> "Topic":
        """Return the topic as if it had these partitions alone."""
        return self._replace(partitions=tuple(p for p in self.partitions if p in partitions))


class GroupOffset(NamedTuple):
    """What a group holds of one partition."""

    offset: int
    metadata: str


class Cluster:
    """Questions to the brokers; each blocks for at most about `REQUEST_TIMEOUT_SECONDS`.

    Connects when it is made, within `connect_timeout_seconds`: `ConfigError` or `BrokerError` as
    `streamer.sources.kafka_client.connect`. Every question may raise `KafkaError`.
    """

    def __init__(self, settings: KafkaSource, section: str = SECTION) -> None:
        self._admin = connect_admin(settings, REQUEST_TIMEOUT_SECONDS, section)

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Return those of the topics that exist and may be seen."""
        found = {}
        for one in self._admin.describe_topics(list(names)):
            leaders = {
                Partition(one["name"], each["partition_index"]): each["leader_id"]
                for each in one["partitions"]
            }
            if leaders:
                topic_id = str(one["topic_id"] or "").removeprefix(_NO_ID)
                leaderless = tuple(p for p, leader in leaders.items() if leader == _NOBODY)
                found[one["name"]] = Topic(topic_id, tuple(sorted(leaders)), leaderless)
        return found

    def begins(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the first offset that each partition still holds."""
        return self._offsets(partitions, OffsetSpec.EARLIEST)

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the offset behind the last record of each partition (its high watermark)."""
        return self._offsets(partitions, OffsetSpec.LATEST)

    def stable_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the last stable offsets: what lies before has no open transaction in it."""
        return self._offsets(partitions, OffsetSpec.LATEST, IsolationLevel.READ_COMMITTED)

    def at_time(self, partitions: Iterable[Partition], time_ms: int) -> dict[Partition, int]:
        """Return the offset of the first record from that time on; only where there is one."""
        found = self._offsets(partitions, time_ms)
        return {partition: offset for partition, offset in found.items() if offset != _UNKNOWN}

    def group(self, group_id: str, partitions: Iterable[Partition]) -> dict[Partition, GroupOffset]:
        """Return what the group holds of each partition of which it holds something."""
        asked = {group_id: [TopicPartition(*one) for one in partitions]}
        found = self._admin.list_group_offsets(asked)[group_id]
        return {
            Partition(*key): GroupOffset(one.offset, one.metadata or "")
            for key, one in found.items()
            if one.offset != _UNKNOWN
        }

    def set_group(self, group_id: str, offsets: Mapping[Partition, GroupOffset]) -> None:
        """Commit offsets to the group, whose members nobody is."""
        asked = {
            TopicPartition(*partition): OffsetAndMetadata(one.offset, one.metadata, _UNKNOWN)
            for partition, one in offsets.items()
        }
        faults = self._admin.alter_group_offsets(group_id, asked)
        for key, fault in faults.items():
            if fault is not NoError:
                msg = f"{Partition(*key)} in group {group_id!r}"
                raise fault(msg)

    def last_cause(self) -> str | None:
        """Return why the last connection has failed, None when none has since one was made."""
        cause = self._admin.last_cause()
        return None if cause is None else str(cause)

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        self._admin.close()

    def _offsets(
        self,
        partitions: Iterable[Partition],
        spec: OffsetSpec | int,
        isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    ) -> dict[Partition, int]:
        asked = {TopicPartition(*partition): spec for partition in partitions}
        if not asked:
            return {}
        found = self._admin.list_partition_offsets(
            asked, isolation, timeout_ms=int(REQUEST_TIMEOUT_SECONDS * 1000)
        )
        return {Partition(*key): int(one.offset) for key, one in found.items()}
