"""What is known of the brokers, asked for once a second on a thread beside the stream."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from kafka.errors import KafkaError, LeaderNotAvailableError, RetriableError

from state.errors import StateError, Superseded
from state.offsets import Offsets, Partition
from streamer.clock import Clock
from streamer.sources.contract import Lag
from streamer.sources.kafka_client import CLOSE_TIMEOUT_SECONDS
from streamer.sources.kafka_cluster import REQUEST_TIMEOUT_SECONDS, Cluster, Topic
from streamer.sources.kafka_group import Group

log = structlog.get_logger()

LOOK_SECONDS = 1.0
# So many looks in a row that failed are no accident; and a look that goes on for so long is as bad.
AWAY_LOOKS = 2
AWAY_SECONDS = 2 * REQUEST_TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Sight:
    """What the brokers said at one moment."""

    topics: Mapping[str, Topic]
    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]
    stable_ends: Mapping[Partition, int]
    held_back_seconds: Mapping[Partition, float]  # since the stable end has stood still
    leaderless: frozenset[Partition] = frozenset()  # their offsets are those of a look before

    def of_leaderless(self, topics: Mapping[str, Topic]) -> "Sight":
        """Return what is still to be believed of the partitions that nobody leads now."""
        left = {
            partition
            for name, topic in topics.items()
            for partition in topic.leaderless
            if partition in self.ends and topic.id == self.topics[name].id
        }

        def kept(offsets: Mapping[Partition, int]) -> dict[Partition, int]:
            return {partition: offsets[partition] for partition in left}

        return Sight({}, kept(self.begins), kept(self.ends), kept(self.stable_ends), {})

    def lag(self, places: Mapping[Partition, int], fetched_ends: Mapping[Partition, int]) -> Lag:
        """Return what lies before these ends, or those that fetches have seen since."""
        by_partition, held_back = {}, {}
        for partition, at in places.items():
            end = self.ends.get(partition, at)
            by_partition[partition] = max(end, fetched_ends.get(partition, 0), at) - at
            held_back[partition] = max(0, end - max(self.stable_ends.get(partition, end), at))
        return Lag(sum(by_partition.values()), by_partition, held_back, self.held_back_seconds)


_NOTHING_HEARD = "nothing heard"
_NOTHING = Sight({}, {}, {}, {}, {})


class Watch:
    """Looks at the topics, and commits offsets to the group; nothing here blocks but `close`.

    Looks before `start` need a leader of every partition. Later ones do not: a partition that is
    added is there once it has one. An error that ends the process (somebody
    else writes to the group, a newer term exists) is kept, and raised by `check`.
    """

    def __init__(self, cluster: Cluster, topics: tuple[str, ...], clock: Clock) -> None:
        self._cluster = cluster
        self._topics = topics
        self._clock = clock
        self._is_due = threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._group: Group | None = None
        self._to_commit: Offsets | None = None
        self._fatal: Exception | None = None
        self._fault = _NOTHING_HEARD
        self._asked_at = clock.monotonic()
        self._n_failed = 0
        self._seen_at = clock.monotonic()
        self._tells_group = True
        self._stuck: dict[Partition, tuple[int, float]] = {}
        self.sight: Sight | None = None
        self.n_looks = 0

    def start(self, group: Group) -> None:
        """Begin to look, and to commit to `group`."""
        self._group = group
        self._thread = threading.Thread(target=self._run, name="kafka-watch", daemon=True)
        self._thread.start()

    def look(self) -> Sight:
        """Ask the brokers now, on the calling thread. Raises `KafkaError`."""
        topics = self._cluster.topics(self._topics)
        leaderless = frozenset(one for topic in topics.values() for one in topic.leaderless)
        if self._thread is None and leaderless:
            missing = ", ".join(map(str, sorted(leaderless)))
            msg = f"no leader of {missing}: no broker that has it is there"
            raise LeaderNotAvailableError(msg)
        kept = (self.sight or _NOTHING).of_leaderless(topics)
        asked = [p for topic in topics.values() for p in topic.partitions if p not in leaderless]
        begins = {**kept.begins, **self._cluster.begins(asked)}
        stable_ends = {**kept.stable_ends, **self._cluster.stable_ends(asked)}
        ends = {**kept.ends, **self._cluster.ends(asked)}
        self._seen_at = self._clock.monotonic()
        held_back = self._time_held_back(ends, stable_ends)
        known = {name: topic.of(ends.keys()) for name, topic in topics.items()}
        self.sight = Sight(known, begins, ends, stable_ends, held_back, leaderless)
        self.n_looks += 1
        self._fault = _NOTHING_HEARD
        return self.sight

    def publish(self, offsets: Offsets) -> None:
        """Have `offsets` committed to the group soon; the newest wins."""
        self._to_commit = offsets
        self._is_due.set()

    def trouble(self) -> str | None:
        """Return what the brokers, or one of them, have not answered for, None if all is well."""
        now = self._clock.monotonic()
        if now - self._asked_at > AWAY_SECONDS / 2:
            self._seen_at = now  # we were paused ourselves: that is no silence of theirs
        self._asked_at = now
        seconds = now - self._seen_at
        if self._n_failed < AWAY_LOOKS and seconds < AWAY_SECONDS:
            return None
        return f"no answer from the brokers for {seconds:.0f} s: {self._fault}"

    def check(self) -> None:
        """Raise what has been found to end the process."""
        if self._fatal is not None:
            raise self._fatal

    def close(self) -> None:
        """Commit what was published last, if that is quick, and let go. Idempotent."""
        self._is_closed = True
        self._is_due.set()
        if self._thread is None:
            self._cluster.close()
        else:
            self._thread.join(CLOSE_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while not self._is_closed:
            self._n_failed = 0 if self._try(self.look) else self._n_failed + 1
            self._try(self._commit)
            self._is_due.wait(LOOK_SECONDS)
            self._is_due.clear()
        self._try(self._commit)
        self._cluster.close()

    def _try(self, act: Callable[[], object]) -> bool:
        """Tell whether the brokers have answered."""
        try:
            act()
        except KafkaError as error:
            self._fault = self._cluster.last_cause() or str(error)
            return False
        except StateError as error:
            if isinstance(error, Superseded):
                self._fatal = error
            else:
                log.warning("group_offsets_not_committed", error=str(error), hint="tried again")
        except Exception as error:
            self._fatal = error
        return True

    def _time_held_back(
        self, ends: Mapping[Partition, int], stable_ends: Mapping[Partition, int]
    ) -> dict[Partition, float]:
        """Return for how long the stable end of each partition has been the same, and no end."""
        before, self._stuck = self._stuck, {}
        for partition, stable in stable_ends.items():
            if stable < ends[partition]:
                last, since = before.get(partition, (stable, self._seen_at))
                self._stuck[partition] = (stable, since if last == stable else self._seen_at)
        return {partition: self._seen_at - since for partition, (_, since) in self._stuck.items()}

    def _commit(self) -> None:
        offsets, self._to_commit = self._to_commit, None
        if offsets is None or self._group is None or self._fatal is not None:
            return
        try:
            self._group.commit(offsets)
        except KafkaError as error:
            self._to_commit = self._to_commit or offsets
            if self._tells_group and not isinstance(error, RetriableError):
                self._tells_group = False
                log.warning("group_offsets_not_committed", error=str(error), hint="tried again")
            raise
        self._tells_group = True
