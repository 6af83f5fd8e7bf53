"""Dead letters read back, from a file of them or from their topic."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaError

from state.offsets import Partition
from streamer.clock import Clock
from streamer.deadline import Deadline
from streamer.errors import BrokerError
from streamer.replay.lines import Line, lines_of
from streamer.settings.sources import KafkaSource
from streamer.sources.clicks import DeadLetter
from streamer.sources.dead_letter_topic import from_headers
from streamer.sources.dead_letters import from_line
from streamer.sources.kafka_client import CLOSE_TIMEOUT_SECONDS, check_client, connect

NO_LETTER = "no_letter"  # why a record among letters cannot be put back: it is none
POLL_MS = 200


class Letter(NamedTuple):
    """A dead letter, how many bytes its record had, and where in its source it was found."""

    letter: DeadLetter
    n_bytes: int
    at: int

    @property
    def is_whole(self) -> bool:
        """Whether the record is there to its end."""
        return self.n_bytes == len(self.letter.raw)


def are_letters(path: Path) -> bool | None:
    """Tell by its first line whether a file is one of dead letters; None of an empty one."""
    first = next(lines_of(path, 0, 0), None)
    return None if first is None else _of_line(path, first).letter.reason != NO_LETTER


def letters_of_file(path: Path, skip: int) -> list[Letter]:
    """Return the letters of a file of them, from line `skip` on."""
    return [_of_line(path, line) for line in lines_of(path, 0, skip)]


def letters_of_topic(
    settings: KafkaSource, section: str, since_ms: int, clock: Clock
) -> list[Letter]:
    """Return what is in a topic of dead letters now, of those that came at `since_ms` or later.

    `section` is what errors call the settings. Raises `ConfigError` for settings of the client
    that are not known, `BrokerError` when the topic cannot be read.
    """
    check_client(settings, section)
    consumer = connect(settings, section)
    (topic,) = settings.topics
    where = f"topic {topic!r} at {', '.join(settings.bootstrap_servers)}"
    try:
        places = [TopicPartition(topic, at) for at in consumer.partitions_for_topic(topic)]
        if not places:
            msg = f"expected {where}, found none of that name; correct it, or create the topic"
            raise BrokerError(msg)
        records = _records(consumer, sorted(places), since_ms, clock)
        return [_of_record(record, at) for at, record in enumerate(records)]
    except KafkaError as error:
        msg = f"expected to read {where}, found: {error}"
        raise BrokerError(msg) from error
    finally:
        consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)


def _records(consumer: Any, places: list[Any], since_ms: int, clock: Clock) -> Iterator[Any]:
    """Yield the records of partitions up to the ends that they have now."""
    ends = consumer.end_offsets(places)
    begins = consumer.offsets_for_times(dict.fromkeys(places, since_ms))
    consumer.assign(places)
    for place in places:
        found = begins[place]
        consumer.seek(place, ends[place] if found is None else found.offset)
    patience = consumer.config["request_timeout_ms"] / 1000
    deadline = Deadline(clock, patience)
    while any(consumer.position(place) < ends[place] for place in places):
        for place, records in consumer.poll(POLL_MS).items():
            deadline = Deadline(clock, patience)
            yield from (one for one in records if one.offset < ends[place])
        if deadline.seconds_left() == 0.0:
            msg = f"no record for {patience:g} s"
            raise KafkaError(msg)


def _of_line(path: Path, line: Line) -> Letter:
    try:
        letter, n_bytes = from_line(line.raw)
    except ValueError as error:
        letter = DeadLetter(Partition(path.name, 0), line.number, NO_LETTER, str(error), line.raw)
        n_bytes = len(line.raw)
    return Letter(letter, n_bytes, line.number)


def _of_record(record: Any, at: int) -> Letter:
    raw = record.value or b""
    try:
        letter, n_bytes = from_headers(record.headers, raw, record.key)
    except ValueError as error:
        place = Partition(record.topic, record.partition)
        letter = DeadLetter(place, record.offset, NO_LETTER, str(error), raw, record.key)
        n_bytes = len(raw)
    return Letter(letter, n_bytes, at)
