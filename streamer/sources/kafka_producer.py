"""How kafka-python sends: a producer that is let in as our consumer is, and says why not."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import (
    KafkaConfigurationError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from streamer.errors import BrokerError, ConfigError, RecordTooLarge, StreamError
from streamer.settings.sources import KafkaSource
from streamer.sources.kafka_client import CLOSE_TIMEOUT_SECONDS, check_client, connect

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
# What is the consumer's own, or stands above.
_NOT_SHARED = {"api_version", "client_id", "kafka_client", "request_timeout_ms"}
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Record(NamedTuple):
    """What is sent: without a partition its key decides, without a key chance."""

    topic: str
    value: bytes
    key: bytes | None
    headers: Mapping[str, str] = _NO_HEADERS
    partition: int | None = None


class Sending:
    """A record on its way."""

    def __init__(self, outcome: Any, expected: str) -> None:
        self._outcome = outcome  # kafka-python's future, or the error that there is none
        self._expected = expected

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
            msg = f"expected {self._expected}, found: {error}"
            raise BrokerError(msg) from error


class Producer:
    """Sends records, from one thread; `partitions` are those of each topic of the settings.

    Connects within `connect_timeout_seconds`, as a source of these settings would. `section` is
    what errors call them. Raises `ConfigError` for settings that the client does not know, and
    `BrokerError` when no broker answers or lets us in.
    """

    def __init__(
        self, settings: KafkaSource, section: str = "source.kafka", **configs: Any
    ) -> None:
        self.where = ", ".join(settings.bootstrap_servers)
        try:
            check_client(settings)
            self.partitions, shared = _let_in(settings)
            self._producer = KafkaProducer(**{**shared, **_DEFAULTS, **configs})
            for topic in (one for one, found in self.partitions.items() if found):
                self._producer.partitions_for(topic)  # so that no send has to ask for them
        except ConfigError as error:
            faults = (fault.replace("source.kafka", section, 1) for fault in error.faults)
            raise ConfigError(*faults) from error
        except StreamError as error:
            raise BrokerError(str(error).replace("source.kafka", section, 1)) from error
        except (KafkaConfigurationError, AssertionError, TypeError, ValueError) as error:
            msg = f"{section}: expected settings that kafka-python accepts, found: {error}"
            raise ConfigError(msg) from error
        except (KafkaError, OSError) as error:
            msg = f"{section}: expected a broker at {self.where} to let us in, found: {error}"
            raise BrokerError(msg) from error

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
        """Hand a record over; blocks, for `REQUEST_SECONDS`, only where the topic is gone."""
        expected = f"topic {record.topic!r} at {self.where} to take a record"
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        try:
            future = self._producer.send(
                record.topic, record.value, record.key, headers, record.partition
            )
        except KafkaError as error:
            return Sending(error, expected)
        return Sending(future, expected)

    def close(self, seconds: float) -> None:
        """Let go, after at most so long for what is on its way. Idempotent."""
        try:
            self._producer.close(seconds)
        except KafkaError:
            # What the broker did not take in time was told to whoever waited for it.
            return


def _let_in(settings: KafkaSource) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return the partitions of each topic, and how a consumer of these settings was let in.

    A consumer, because it tells what is wrong, and has each setting of the client in its type.
    """
    consumer = connect(settings)
    try:
        found = {
            topic: tuple(sorted(consumer.partitions_for_topic(topic))) for topic in settings.topics
        }
    finally:
        consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)
    names = (KafkaProducer.DEFAULT_CONFIG.keys() & consumer.config.keys()) - _NOT_SHARED
    return found, {name: consumer.config[name] for name in names}
