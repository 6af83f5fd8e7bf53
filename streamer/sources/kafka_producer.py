"""How kafka-python sends: a producer that is let in as our consumer is, and says why not."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from streamer.errors import BrokerError, RecordTooLarge
from streamer.settings.sources import KafkaSource
from streamer.sources.clicks import Headers
from streamer.sources.kafka_client import SECTION, Explained, check_client, connected, of_section
from streamer.sources.kafka_cluster import Cluster
from streamer.sources.kafka_connections import WatchedClient

# How long the client tries to deliver a record before it gives it back.
DELIVERY_SECONDS = 10.0
REQUEST_SECONDS = 5.0

_DEFAULTS: dict[str, Any] = {
    "acks": "all",
    "delivery_timeout_ms": int(DELIVERY_SECONDS * 1000),
    "request_timeout_ms": int(REQUEST_SECONDS * 1000),
    "max_block_ms": int(REQUEST_SECONDS * 1000),
    # How long a record may be is the topic's to say: this is above the longest that we read.
    "max_request_size": 32 << 20,
}


class Record(NamedTuple):
    """What is sent: without a partition its key decides, without a key chance."""

    topic: str
    value: bytes
    key: bytes | None
    headers: Headers = ()
    partition: int | None = None


class _Client(Explained, KafkaProducer):  # type: ignore[misc]  # kafka-python has no types
    """A client for sending; it would keep its connections where nobody sees them."""

    def __init__(self, kafka_client: Callable[..., WatchedClient], **configs: Any) -> None:
        def kept(**configs: Any) -> WatchedClient:
            self._client = kafka_client(**configs)
            return self._client

        super().__init__(kafka_client=kept, **configs)


class Sending:
    """A record on its way."""

    def __init__(self, outcome: Any, expected: str, cause: Callable[[], str]) -> None:
        self._outcome = outcome  # kafka-python's future, or the error that there is none
        self._expected = expected
        self._cause = cause  # why no broker is there, if it is that

    @property
    def is_refused(self) -> bool:
        """Whether the record was not even sent."""
        return isinstance(self._outcome, KafkaError)

    @property
    def is_over(self) -> bool:
        """Whether `wait` would return or raise at once."""
        return self.is_refused or bool(self._outcome.is_done)

    def wait(self, seconds: float) -> None:
        """Return once the record is taken by all replicas; blocks for at most so long.

        Raises `RecordTooLarge`, or `BrokerError` when it is not taken, or not yet.
        """
        try:
            if isinstance(self._outcome, KafkaError):
                raise self._outcome
            self._outcome.get(seconds)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            msg = f"expected {self._expected}, found that it is too large"
            raise RecordTooLarge(msg) from error
        except KafkaError as error:
            msg = f"expected {self._expected}, found: {self._cause() or error}"
            raise BrokerError(msg) from error


class Producer:
    """Sends records, from one thread; `partitions` are those of each topic of the settings.

    Connects within `connect_timeout_seconds`, as a source of these settings would. `section` is
    what errors call them. Raises `ConfigError` for settings that the client does not know, and
    `BrokerError` when no broker answers or lets us in.
    """

    def __init__(self, settings: KafkaSource, section: str = SECTION, **configs: Any) -> None:
        self.where = ", ".join(settings.bootstrap_servers)
        self._section = section
        check_client(settings, section)
        self.partitions = _partitions(settings, section)
        self._producer = connected(_Client, settings, section, **{**_DEFAULTS, **configs})
        try:
            for topic in (one for one, found in self.partitions.items() if found):
                self._producer.partitions_for(topic)  # so that no send has to ask for them
        except KafkaError as error:
            self.close(0.0)
            raise _untold(section, self.where, error) from error

    def check_topics(self, setting: str, topics: Iterable[str]) -> None:
        """Raise `BrokerError` that names `setting` if one of the topics is not there."""
        for topic in topics:
            if not self.partitions[topic]:
                msg = (
                    f"{setting}: expected topic {topic!r} at {self.where}, found none of that"
                    " name, or no right to see it; create it, or correct the name"
                )
                raise BrokerError(msg)

    def send(self, record: Record) -> Sending:
        """Hand a record over; blocks, for `REQUEST_SECONDS`, only where the topic is gone.

        Headers without a value are left out: the client cannot send them.
        """
        expected = f"topic {record.topic!r} at {self.where} to take a record"
        headers = [(name, value) for name, value in record.headers if value is not None]
        try:
            future = self._producer.send(
                record.topic, record.value, record.key, headers, record.partition
            )
        except KafkaError as error:
            return Sending(error, expected, self._cause)
        return Sending(future, expected, self._cause)

    def close(self, seconds: float) -> None:
        """Let go, after at most so long for what is on its way. Idempotent."""
        try:
            self._producer.close(seconds)
        except KafkaError:
            # What the broker did not take in time was told to whoever waited for it.
            return

    def _cause(self) -> str:
        return of_section(str(self._producer.last_cause() or ""), self._section)


def _partitions(settings: KafkaSource, section: str) -> dict[str, tuple[int, ...]]:
    """Return the partitions of each topic of the settings; none of one that is not there."""
    cluster = Cluster(settings, section)
    try:
        topics = cluster.topics(settings.topics)
    except KafkaError as error:
        raise _untold(section, ", ".join(settings.bootstrap_servers), error) from error
    finally:
        cluster.close()
    return {
        name: tuple(one.number for one in topics[name].partitions) if name in topics else ()
        for name in settings.topics
    }


def _untold(section: str, where: str, error: KafkaError) -> BrokerError:
    return BrokerError(f"{section}: expected {where} to tell of topics, found: {error}")
