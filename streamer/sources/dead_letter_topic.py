"""Unusable clicks as records of a Kafka topic, sent beside the stream."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import structlog

from state.offsets import Partition
from streamer.clock import Clock
from streamer.config import Config
from streamer.deadline import Deadline
from streamer.errors import BrokerError, NotDelivered, RecordTooLarge
from streamer.settings.sources import KafkaSource
from streamer.sources.clicks import MAX_RAW_BYTES, DeadLetter, Headers
from streamer.sources.dead_letters import DeadLetterQueue, DeadLetters, headers_size
from streamer.sources.kafka_client import SECTION
from streamer.sources.kafka_producer import DELIVERY_SECONDS, Producer, Record, Sending

log = structlog.get_logger()

CLOSE_SECONDS = 3.0
CHUNK_LETTERS, CHUNK_BYTES = 500, 8 << 20  # on their way at once

# Headers of a letter; the last three say how long the value and the key were that had to be cut,
# and the headers that had to be left out.
REASON, DETAIL, TOPIC, PARTITION, OFFSET = "reason", "detail", "topic", "partition", "offset"
RAW_BYTES, KEY_BYTES, HEADERS_BYTES = "raw_bytes", "key_bytes", "headers_bytes"
OF_RECORD = "header."  # begins the name of a header that the record itself had


class DeadLetterTopic(DeadLetterQueue):
    """A record for each unusable click: its bytes, key and headers; in more headers why and whence.

    Letters wait in memory for the next commit, and are sent on its thread, before it. So each
    letter that a generation counts is in the topic, and at least once: a restart reads the clicks
    behind the generation again, and sends their letters again. (topic, partition, offset) tell
    that they are the same.

    `file` is that of the state, where there is one: it held letters before, and may again.
    Manifests go on to state its length.
    """

    def __init__(self, config: Config, clock: Clock, file: DeadLetters | None = None) -> None:
        super().__init__(config.clicks.max_dead_letters, config.clicks.max_dead_letter_share)
        assert config.dead_letters.topic is not None
        self._topic = config.dead_letters.topic
        self._max_bytes = config.dead_letters.max_waiting_bytes
        self._clock = clock
        self._file = file
        self._file_bytes = 0
        self._fresh: list[DeadLetter] = []  # the stream's, since the last cut
        self._fresh_bytes = 0
        self._due: deque[DeadLetter] = deque()  # the writer's, to be sent before the commit
        self._due_bytes = 0
        self._sending = threading.Lock()
        self._has_failed = False  # the last `deliver`
        self._is_closed = False
        settings, section = letters_kafka(config, self._topic)
        # A letter that is sent twice is no harm, and without sequence numbers each is either
        # taken or given back in time.
        self._producer = Producer(settings, section, enable_idempotence=False)
        self.where = f"topic {self._topic!r} at {self._producer.where}"
        self._producer.check_topics("dead_letters.topic", [self._topic])

    @property
    def n_waiting(self) -> int:
        """Letters that have not been taken by the topic."""
        return len(self._fresh) + len(self._due)

    @property
    def is_full(self) -> bool:
        """Whether more than `max_waiting_bytes` wait."""
        return self._fresh_bytes + self._due_bytes > self._max_bytes

    def append(self, letters: Iterable[DeadLetter]) -> None:
        """Keep letters in memory until the next commit."""
        for letter in letters:
            self._fresh.append(letter)
            self._fresh_bytes += _size(letter)
            self._last = letter

    def sync(self) -> int:
        """Have the letters up to now sent by the next `deliver`."""
        self._due_bytes += self._fresh_bytes
        self._due.extend(self._fresh)
        self._fresh.clear()
        self._fresh_bytes = 0
        return self._file_bytes

    def truncate_to(self, length: int, *, is_contested: bool = False) -> None:
        """Cut the file, and write no more into it."""
        if self._file is not None:
            self._file.truncate_to(length, is_contested=is_contested)
            self._file_bytes = self._file.sync()
        self.is_rotated = self._file_bytes != length

    def deliver(self) -> None:
        """Send what is due; on return all replicas have it.

        A letter leaves memory when it is taken, so that the next try sends only the others.
        """
        with self._sending:
            try:
                self._deliver_by(Deadline(self._clock, float("inf")))
            except NotDelivered:
                self._has_failed = True
                raise
            self._has_failed = False

    def close(self) -> None:
        """Send what is at hand, within `CLOSE_SECONDS`, and let go. Idempotent.

        Where the topic has just taken nothing, that is not waited for once more.
        """
        if self._is_closed:
            return
        self._is_closed = True
        deadline = Deadline(self._clock, 0.0 if self._has_failed else CLOSE_SECONDS)
        if self._sending.acquire(timeout=deadline.seconds_left()):
            try:
                self.sync()
                self._deliver_by(deadline)
            except NotDelivered as error:
                log.warning("dead_letters_not_sent", letters=self.n_waiting, error=str(error))
            finally:
                self._sending.release()
        self._producer.close(deadline.seconds_left())
        if self._file is not None:
            self._file.close()

    def _deliver_by(self, deadline: Deadline) -> None:
        while self._due:
            for letter, sending in list(self._sent()):
                self._see_taken(letter, sending, deadline)
                self._due.popleft()
                self._due_bytes -= _size(letter)
                self.n_sent += 1

    def _sent(self) -> Iterator[tuple[DeadLetter, Sending]]:
        """Send the first that are due, so many at once; none behind one that was refused."""
        n_bytes = 0
        for letter in islice(self._due, CHUNK_LETTERS):
            n_bytes += _size(letter)
            sending = self._producer.send(self._record(letter))
            yield letter, sending
            if sending.is_refused or n_bytes > CHUNK_BYTES:
                return

    def _see_taken(self, letter: DeadLetter, sending: Sending, deadline: Deadline) -> None:
        """Wait for a letter; send one that is too large with less of its bytes, and at last none.

        A topic that is set to take little must not stop the stream.
        """
        try:
            for at_most in (MAX_RAW_BYTES, 0):
                try:
                    return sending.wait(_patience(deadline))
                except RecordTooLarge:
                    sending = self._producer.send(self._record(letter, at_most))
            sending.wait(_patience(deadline))
        except BrokerError as error:
            msg = (
                f"dead letters: {error}; is the topic there? {self.n_waiting} wait in memory, and"
                " nothing is committed before they have left"
            )
            raise NotDelivered(msg) from error

    def _record(self, letter: DeadLetter, at_most: int | None = None) -> Record:
        told = {
            REASON: letter.reason,
            DETAIL: letter.detail,
            TOPIC: letter.partition.topic,
            PARTITION: str(letter.partition.number),
            OFFSET: str(letter.offset),
        }
        value, key = letter.raw[:at_most], letter.key
        if len(value) < len(letter.raw):
            told[RAW_BYTES] = str(len(letter.raw))
        if key is not None and at_most is not None and len(key) > at_most:
            key, told[KEY_BYTES] = key[:at_most], str(len(key))
        own = [(f"{OF_RECORD}{name}", one) for name, one in letter.headers]
        if at_most is not None and headers_size(letter.headers) > at_most:
            own, told[HEADERS_BYTES] = [], str(headers_size(letter.headers))
        headers = [(name, one.encode()) for name, one in told.items()]
        return Record(self._topic, value, key, [*headers, *own])


def letters_kafka(config: Config, *topics: str) -> tuple[KafkaSource, str]:
    """Return how topics of dead letters are reached, and the section that says so."""
    own = config.dead_letters
    if own.bootstrap_servers is not None:
        settings = KafkaSource(
            bootstrap_servers=own.bootstrap_servers, topics=topics, client=own.client
        )
        return settings, "dead_letters"
    assert config.source.kafka is not None
    return config.source.kafka.model_copy(update={"topics": topics}), SECTION


def from_headers(headers: Headers, raw: bytes, key: bytes | None) -> tuple[DeadLetter, int]:
    """Return the letter that a record of its topic is, and how many bytes there were of it.

    A key that was cut is none. Raises `ValueError` for a record that is no letter.
    """
    said = {name: (value or b"").decode(errors="replace") for name, value in headers}
    missing = [one for one in (REASON, DETAIL, TOPIC, PARTITION, OFFSET) if one not in said]
    if missing:
        msg = f"expected headers of a dead letter, found no {', '.join(missing)}"
        raise ValueError(msg)
    letter = DeadLetter(
        Partition(said[TOPIC], int(said[PARTITION])),
        int(said[OFFSET]),
        said[REASON],
        said[DETAIL],
        raw,
        None if KEY_BYTES in said else key,
        tuple(
            (name.removeprefix(OF_RECORD), one)
            for name, one in headers
            if name.startswith(OF_RECORD)
        ),
    )
    return letter, int(said.get(RAW_BYTES, len(raw)))


def _size(letter: DeadLetter) -> int:
    texts = len(letter.raw) + len(letter.key or b"") + len(letter.detail)
    return texts + headers_size(letter.headers)


def _patience(deadline: Deadline) -> float:
    # The client gives a record back after `DELIVERY_SECONDS`; a little later it is over.
    return min(deadline.seconds_left(), 2 * DELIVERY_SECONDS)
