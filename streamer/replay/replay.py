"""What `livevec replay` does: read, mend, publish, and tell what became of each record."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from state import durable
from streamer.clock import Clock
from streamer.config import Config
from streamer.errors import BrokerError, ConfigError
from streamer.progress import progress
from streamer.replay.items import Choice, ClickFile, Item, MendedLetters
from streamer.replay.letters import Letter, are_letters, letters_of_file, letters_of_topic
from streamer.replay.options import ReplayOptions
from streamer.replay.outlet import TOO_LARGE, Outlet
from streamer.replay.tempo import Tempo
from streamer.settings.sources import KafkaSource
from streamer.sources.dead_letter_topic import letters_kafka
from streamer.sources.dead_letters import to_line
from streamer.sources.event_times import to_ms
from streamer.sources.kafka_client import SECTION
from streamer.sources.kafka_producer import Producer

log = structlog.get_logger()

CLOSE_SECONDS = 2.0
# A record that waits a little for others is sent with them: ten times as many a second.
BATCHING = {"linger_ms": 10, "batch_size": 1 << 17}


class Replay:
    """One replay: `run` does everything; `stop` may be called from a signal handler.

    Every record that is read is published, or left for a reason; `read` is their sum.
    """

    def __init__(self, config: Config, options: ReplayOptions, clock: Clock) -> None:
        self._config = config
        self._options = options
        self._clock = clock
        self._tempo = Tempo(clock, options.rate, options.speed)
        self._next = options.skip
        self._are_letters = False
        self._n_read = 0
        self._n_usable = 0
        self._n_late = 0
        self._left: Counter[str] = Counter()
        self._rest: list[Letter] = []
        self._published: Counter[str] = Counter()

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._tempo.is_stopped

    def stop(self) -> None:
        """Publish nothing more; what is on its way is waited for. Idempotent."""
        self._tempo.stop()

    def run(self) -> dict[str, Any]:
        """Publish what can be; return the summary.

        Raises `ConfigError` for what cannot be read or does not go together, and `BrokerError`,
        which says how far it got, when Kafka cannot be reached or stays away.
        """
        self._check_rest()
        now_ms, begun = self._clock.now_ms(), self._clock.monotonic()
        items, total = self._items(now_ms)
        if self._options.skip and not total:
            log.warning("nothing_behind_skip", skip=self._options.skip)
        unread = iter(items)
        try:
            topics = [self._options.topic] if self._options.topic else _topics(items)
            if topics and total and not self._options.dry_run:
                self._publish(unread, total, topics)
            else:
                self._read_all(unread)
        finally:
            self._write_rest(unread if isinstance(items, list) else ())
        if self._tempo.is_stopped:
            log.warning(
                "stopped_before_the_end", published=self._published.total(), then=self._go_on()
            )
        return self._summary(now_ms, self._clock.monotonic() - begun)

    def _items(self, now_ms: int) -> tuple[Iterable[Item], int]:
        """Return what the source holds, and how many there are."""
        options = self._options
        path = Path(options.source)
        are_dead = are_letters(path) if options.letters_topic is None else True
        if are_dead is None:
            return [], 0
        options.check(are_letters=are_dead)
        self._are_letters = are_dead
        if not are_dead:
            assert options.topic is not None
            clicks = ClickFile(path, self._config, options.topic, options.skip)
            return clicks, clicks.count()
        letters = self._letters(path)
        found = {one.letter.reason for one in letters}
        for reason in sorted(set(options.reason or ()) - found):
            log.warning("no_such_letters", reason=reason, found=sorted(found))
        choice = Choice(options.topic, options.reason or (), options.keep_times)
        items = MendedLetters(letters, self._config, choice).items(now_ms)
        self._n_late = sum(self._is_late(item, now_ms) for item in items)
        return items, len(items)

    def _letters(self, path: Path) -> list[Letter]:
        topic = self._options.letters_topic
        if topic is None:
            return letters_of_file(path, self._options.skip)
        since_ms = 0 if self._options.since is None else to_ms(self._options.since, "iso8601")
        if since_ms is None:
            msg = f"replay: expected --since in ISO 8601, found {self._options.since!r}"
            raise ConfigError(msg)
        own = self._config.dead_letters.bootstrap_servers
        if own is None and self._config.source.kafka is None:
            raise ConfigError(_NO_BROKER)
        return letters_of_topic(*letters_kafka(self._config, topic), since_ms, self._clock)

    def _is_late(self, item: Item, now_ms: int) -> bool:
        """Tell whether a click is older than a window stays open."""
        sessions = self._config.sessions
        open_ms = (sessions.gap_seconds + sessions.lateness_seconds) * 1000
        return item.record is not None and now_ms - item.time_ms > open_ms

    def _read_all(self, items: Iterable[Item]) -> None:
        for item in items:
            self._count(item)

    def _publish(self, unread: Iterator[Item], total: int, topics: list[str]) -> None:
        producer = self._producer(topics)
        outlet = Outlet(producer)
        try:
            with progress(sys.stderr, self._clock, total, "replaying") as show:
                for item in unread:
                    if not self._is_due(item):
                        self._keep(item)
                        break
                    self._count(item)
                    if item.record is not None:
                        outlet.send(item)
                    show(self._n_read)
                outlet.flush()
        except BrokerError as error:
            self._next = outlet.on_way[0].at
            producer.close(CLOSE_SECONDS)
            outlet.settle()
            msg = (
                f"{error}; {outlet.taken.total()} records have been taken, some of them perhaps "
                f"behind the first that was not; {self._go_on()}"
            )
            raise BrokerError(msg) from error
        finally:
            producer.close(CLOSE_SECONDS)
            self._settle(outlet)

    def _is_due(self, item: Item) -> bool:
        """Return True once an item is due, False when told to stop; what is left has no time."""
        if item.record is None:
            return not self._tempo.is_stopped
        return self._tempo.is_due(item.time_ms)

    def _producer(self, topics: list[str]) -> Producer:
        settings, section = self._kafka(topics)
        codec = self._options.compression
        compression = None if codec == "none" else codec
        producer = Producer(settings, section, compression_type=compression, **BATCHING)
        producer.check_topics("replay", topics)
        return producer

    def _kafka(self, topics: list[str]) -> tuple[KafkaSource, str]:
        kafka = self._config.source.kafka
        if kafka is not None:
            return kafka.model_copy(update={"topics": tuple(topics)}), SECTION
        if self._config.dead_letters.bootstrap_servers is None:
            raise ConfigError(_NO_BROKER)
        return letters_kafka(self._config, *topics)

    def _count(self, item: Item) -> None:
        self._n_read += 1
        self._next = item.at + 1
        if item.record is None:
            self._left[item.reason] += 1
            self._keep(item)
        else:
            self._n_usable += 1

    def _settle(self, outlet: Outlet) -> None:
        """Take over what became of the records that were sent."""
        self._published = outlet.taken
        self._n_usable -= len(outlet.refused)
        self._left.update(TOO_LARGE for _ in outlet.refused)
        for item in (*outlet.refused, *outlet.on_way):
            self._keep(item)

    def _keep(self, item: Item) -> None:
        """Keep what was not published, for --rest."""
        if self._options.rest is not None and item.letter is not None:
            self._rest.append(item.letter)

    def _check_rest(self) -> None:
        rest = self._options.rest
        if rest is None:
            return
        fault = None
        if not rest.parent.is_dir():
            fault = "a directory for it, found none"
        elif rest.exists() and not rest.is_file():
            fault = "a file, or nothing yet, found neither"
        elif rest.exists() and self._reads_from(rest):
            fault = "another file than the one that is read"
        if fault is not None:
            msg = f"replay: --rest {str(rest)!r}: expected {fault}"
            raise ConfigError(msg)

    def _reads_from(self, path: Path) -> bool:
        source = Path(self._options.source)
        return self._options.letters_topic is None and source.exists() and path.samefile(source)

    def _write_rest(self, unread: Iterable[Item]) -> None:
        if self._options.rest is not None:
            for item in unread:
                self._keep(item)
            lines = (to_line(one.letter, None, one.n_bytes) for one in self._rest)
            durable.write(self._options.rest, b"".join(lines))

    def _go_on(self) -> str:
        if self._are_letters and self._options.rest is not None:
            return f"go on with {str(self._options.rest)!r}, which holds the others"
        if self._options.letters_topic is not None:
            return "run it again: records that were taken come twice"
        return f"go on with --skip {self._next}"

    def _summary(self, now_ms: int, seconds: float) -> dict[str, Any]:
        summary: dict[str, Any] = {
            "source": self._options.source,
            "read": self._n_read,
            "usable": self._n_usable,
            "published": self._published.total(),
            "left": self._left.total(),
            "late": self._n_late,
            "left_by_reason": dict(sorted(self._left.items())),
            "published_by_topic": dict(sorted(self._published.items())),
            "seconds": round(seconds, 3),
        }
        if self._options.letters_topic is None:
            return {**summary, "next": self._next}
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        return {**summary, "since": now.isoformat(timespec="milliseconds")}


_NO_BROKER = (
    "replay: expected [source.kafka] with bootstrap_servers, or dead_letters.bootstrap_servers,"
    " found neither; add one to the configuration"
)


def _topics(items: Iterable[Item]) -> list[str]:
    return sorted({item.record.topic for item in items if item.record is not None})
