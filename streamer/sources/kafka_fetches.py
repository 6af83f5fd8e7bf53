"""What has been fetched from Kafka and not handed out yet, partition by partition."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition

from state.offsets import Partition
from streamer.deadline import Deadline

_SLICE_MS = 100


@dataclass(frozen=True, slots=True)
class Fetched:
    """Records of one partition, in offset order; `next_offset` lies behind them.

    There may be none: an aborted transaction, and the end of any, takes offsets and has no record.
    """

    partition: Partition
    records: Sequence[Any]
    next_offset: int

    def split(self, count: int) -> tuple["Fetched", "Fetched | None"]:
        """Return the first `count` records, and what is left of them, if any."""
        if len(self.records) <= count:
            return self, None
        first, rest = self.records[:count], self.records[count:]
        return (
            Fetched(self.partition, first, first[-1].offset + 1),
            Fetched(self.partition, rest, self.next_offset),
        )


class Fetches:
    """The one user of the consumer that reads. Nothing here waits for a broker beyond a timeout.

    Errors are kafka-python's (`KafkaError`). Its `pause` is not used: of several partitions that
    are paused with half of a fetch handed out, 3.0.12 forgets all but one when they are resumed.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._waiting: deque[Fetched] = deque()
        self._fetched_to: dict[Partition, int] = {}
        self._epochs: dict[Partition, int] = {}
        self._in_turn: deque[Partition] = deque()
        self._held: frozenset[Partition] = frozenset()
        self._put_back: frozenset[Partition] = frozenset()

    def go_to(self, partition: Partition, offset: int, leader_epoch: int) -> None:
        """Read a partition from `offset` on; its leader is asked if its log is the one of then.

        `leader_epoch` is that of the record before, -1 if it is not known. KIP-320.
        """
        self._waiting = deque(one for one in self._waiting if one.partition != partition)
        self._fetched_to[partition] = offset
        self._epochs[partition] = leader_epoch
        self._put_back -= {partition}
        self._assign()
        self._seek(partition)

    def drop(self, partition: Partition) -> None:
        """Read a partition no more."""
        self._waiting = deque(one for one in self._waiting if one.partition != partition)
        del self._fetched_to[partition]
        self._assign()

    def hold_back(self, partitions: Collection[Partition]) -> None:
        """Fetch and hand out nothing of exactly these partitions."""
        held = frozenset(partitions) & self._fetched_to.keys()
        if held != self._held:
            released, self._held = self._held - held, held
            self._assign()
            for one in released:
                self._seek(one)

    @property
    def n_waiting(self) -> int:
        """How many turns `take` has to give, at most."""
        return sum(one.partition not in self._held for one in self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to hand out but what was put back."""
        return all(self.is_idle(one.partition) for one in self._waiting)

    def is_idle(self, partition: Partition) -> bool:
        """Tell whether nothing of a partition is being fetched, for a reason of ours."""
        return partition in self._held | self._put_back

    def ask_anew(self, partition: Partition) -> None:
        """Forget what the consumer knows of a partition that has nothing waiting, and go on."""
        held = self._held
        self.hold_back({*held, partition})
        self.hold_back(held)

    def take(self, count: int) -> Fetched | None:
        """Hand out up to `count` records of one partition; partitions take turns."""
        for _ in range(len(self._waiting)):
            one = self._waiting.popleft()
            if one.partition in self._held:
                self._waiting.append(one)
                continue
            first, rest = one.split(count)
            if rest is not None:
                self._waiting.append(rest)
            return first
        return None

    def put_back(self, fetched: Fetched) -> None:
        """Hand `fetched` out again, behind other partitions and before the rest of its own.

        Nothing more of its partition is fetched until it is `settled`.
        """
        records, end = list(fetched.records), fetched.next_offset
        for rest in [one for one in self._waiting if one.partition == fetched.partition]:
            self._waiting.remove(rest)
            records, end = [*records, *rest.records], rest.next_offset
        self._waiting.append(Fetched(fetched.partition, records, end))
        self._put_back |= {fetched.partition}
        self._assign()

    def settled(self, partition: Partition) -> None:
        """Fetch on where something was put back, and has found its use."""
        if partition in self._put_back:
            self._put_back -= {partition}
            self._assign()
            self._seek(partition)

    def fetch(self, timeout_seconds: float, count: int) -> None:
        """Wait for records, for at most the timeout."""
        found = self._consumer.poll(int(timeout_seconds * 1000), max_records=count)
        self._keep({Partition(*key): some for key, some in found.items()})

    def ends(self) -> dict[Partition, int]:
        """Return the end of each partition that is being fetched, as the last fetch saw it."""
        ends = {p: self._consumer.highwater(TopicPartition(*p)) for p in self._in_turn}
        return {partition: end for partition, end in ends.items() if end is not None}

    def records_at(
        self, places: Mapping[Partition, int], deadline: Deadline
    ) -> dict[Partition, Any]:
        """Return the first record from each place on, of the partitions that answer in time.

        Called before the first `go_to`.
        """
        found: dict[Partition, Any] = {}
        left = {TopicPartition(*partition): offset for partition, offset in places.items()}
        self._consumer.assign(list(left))
        for key, offset in left.items():
            self._consumer.seek(key, offset)
        while left and deadline.seconds_left() > 0:
            for key, records in self._consumer.poll(_SLICE_MS, max_records=1).items():
                found[Partition(*key)] = records[0]
                del left[key]
                self._consumer.assign(list(left))
        return found

    def _keep(self, records: Mapping[Partition, Any]) -> None:
        for partition in self._moved(records):
            end = self._consumer.place(TopicPartition(*partition))
            if end > self._fetched_to[partition]:
                self._waiting.append(Fetched(partition, records.get(partition, ()), end))
                self._fetched_to[partition] = end
                if partition in records:
                    self._epochs[partition] = records[partition][-1].leader_epoch

    def _assign(self) -> None:
        """Have the consumer fetch what is not held back; what is fetched goes on where it is."""
        wanted = [one for one in self._fetched_to if one not in self._held | self._put_back]
        if set(wanted) != set(self._in_turn):
            self._in_turn = deque(wanted)
            self._consumer.assign([TopicPartition(*one) for one in wanted])

    def _seek(self, partition: Partition) -> None:
        if partition in self._in_turn:
            place, epoch = self._fetched_to[partition], self._epochs[partition]
            self._consumer.seek_behind(TopicPartition(*partition), place, epoch)

    def _moved(self, records: Mapping[Partition, Any]) -> Iterable[Partition]:
        """Return the partitions whose position to look at.

        Those with records; and, because an aborted transaction moves a position and shows no
        record, all of them when there are none, else the others in turn: looking is not free.
        """
        if not records:
            return tuple(self._in_turn)
        self._in_turn.rotate(-1)
        return dict.fromkeys((*records, self._in_turn[0]))
