"""How kafka-python is used: its settings, one clear error at the start, offsets for dashboards."""

import difflib
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog
from kafka import KafkaConsumer
from kafka.errors import KafkaConfigurationError, KafkaError
from pydantic import TypeAdapter, ValidationError

from streamer.errors import BrokerError, ConfigError, StreamError
from streamer.settings.masking import masked_text
from streamer.settings.sources import KafkaSource
from streamer.sources.kafka_causes import Cause
from streamer.sources.kafka_connections import WatchedClient
from streamer.sources.kafka_security import security_faults

log = structlog.get_logger()

DEFAULTS: dict[str, Any] = {
    # About 80 ms of kafka-python's time per partition and fetch.
    "max_partition_fetch_bytes": 1 << 20,
    "fetch_max_bytes": 16 << 20,
    "max_poll_records": 5000,
    # 30 s by default, which a broker that is back would wait for.
    "reconnect_backoff_max_ms": 1000,
    # kafka-python asks a broker one question at a time: while one about a partition without
    # news waits there, 500 ms by default, nothing more of the others is fetched.
    "fetch_max_wait_ms": 100,
    "metrics_enabled": False,
}

# What the source decides itself, and why a setting of the client cannot.
OWNED: dict[str, Any] = {
    "bootstrap_servers": "is source.kafka.bootstrap_servers",
    "group_id": "is source.kafka.group_id",
    "group_instance_id": "has no use: partitions are assigned by livevec itself",
    "bootstrap_timeout_ms": "is source.kafka.connect_timeout_seconds",
    "auto_offset_reset": "has no use: positions are the manifest's, never reset",
    "enable_auto_commit": "has no use: what is committed is the manifest's",
    "isolation_level": "is read_committed: an aborted click is no click",
    "allow_auto_create_topics": "is off: a misspelt topic is an error",
    "key_deserializer": "has no use: livevec decodes clicks",
    "value_deserializer": "has no use: livevec decodes clicks",
    "consumer_timeout_ms": "has no use: polls have their own timeout",
    "kafka_client": "is livevec's own",
    "ssl_context": "is made from ssl_cafile, ssl_certfile and ssl_keyfile",
    "sasl_oauth_token_provider": "is a Python object, which no file holds",
}

MINIMUM_REQUEST_TIMEOUT_MS = 5000
COMMIT_TIMEOUT_MS = 5000
CLOSE_TIMEOUT_SECONDS = 2.0


class Consumer(KafkaConsumer):  # type: ignore[misc]  # kafka-python has no types
    """A consumer that tells which topic it is that has a name now, and why a broker is away."""

    def last_cause(self) -> Cause | None:
        """Return why the last connection has failed, None when none has since one was made.

        Never blocks; may be asked from any thread.
        """
        cause: Cause | None = self._client.causes.last
        return cause

    def topic_id(self, topic: str) -> str | None:
        """Return the id that the last metadata had, which a topic of that name made anew has not.

        Never blocks. None from a broker older than 2.8.
        """
        found = self._client.cluster.topic_id(topic)
        return None if found is None else str(found)


def check_client(settings: KafkaSource) -> None:
    """Raise `ConfigError` that lists each `client` setting that cannot be used."""
    faults = [
        f"source.kafka.client.{name}: {_fault(name)}"
        for name in settings.client
        if name in OWNED or name not in KafkaConsumer.DEFAULT_CONFIG
    ]
    for name in sorted(KafkaConsumer.DEFAULT_CONFIG.keys() & settings.client.keys() - OWNED.keys()):
        try:
            _typed(name, settings.client[name])
        except ValueError as error:
            faults.append(f"source.kafka.client.{name}: {error}")
    faults += security_faults(settings.client)
    if faults:
        raise ConfigError(*faults)


def connect(settings: KafkaSource, group_id: str | None = None) -> Any:
    """Return a `Consumer` that has reached a broker.

    Blocks for at most `connect_timeout_seconds`, and no longer than until every server has
    refused us for good. Raises `ConfigError` when kafka-python refuses the settings, and
    `BrokerError` when no broker answers or lets us in.
    """
    started: list[WatchedClient] = []

    def client(**configs: Any) -> Any:
        # The constructor keeps its network thread when it fails; this is the way to end it.
        started.append(WatchedClient(**configs))
        return started[-1]

    try:
        return Consumer(kafka_client=client, **_configs(settings, group_id))
    except (KafkaConfigurationError, AssertionError, TypeError, ValueError) as error:
        _close(started)
        found = masked_text(str(error))
        msg = f"source.kafka: expected settings that kafka-python accepts, found: {found}"
        raise ConfigError(msg) from error
    except (KafkaError, OSError) as error:
        _close(started)
        where = ", ".join(settings.bootstrap_servers)
        found = "".join(one.explain() for one in started) or f"the error: {masked_text(str(error))}"
        msg = (
            f"source.kafka: expected a broker at {where} to let us in within "
            f"{settings.connect_timeout_seconds:g} s, found {found}"
        )
        raise BrokerError(msg) from error


class GroupOffsets:
    """Commits offsets to the consumer group from a thread of its own; the newest wins.

    It has a consumer of its own, because one with a group reads nothing while the group's
    coordinator cannot be reached.
    """

    def __init__(self, settings: KafkaSource) -> None:
        self._settings = settings
        self._newest: deque[Mapping[Any, Any]] = deque(maxlen=1)
        self._is_due = threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def publish(self, offsets: Mapping[Any, Any]) -> None:
        """Have `offsets` committed soon; best effort, never blocks."""
        self._newest.append(offsets)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="group-offsets", daemon=True)
            self._thread.start()
        self._is_due.set()

    def close(self) -> None:
        """Finish what is under way, for at most `CLOSE_TIMEOUT_SECONDS`. Idempotent."""
        self._is_closed = True
        self._is_due.set()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_SECONDS)

    def _run(self) -> None:
        consumer = None
        while not self._is_closed or self._newest:
            self._is_due.wait()
            self._is_due.clear()
            while self._newest:
                consumer = self._commit(consumer, self._newest.pop())
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)

    def _commit(self, consumer: Any, offsets: Mapping[Any, Any]) -> Any:
        """Return the consumer to commit with next time."""
        try:
            consumer = consumer or connect(self._settings, self._settings.group_id)
            consumer.commit(offsets, timeout_ms=COMMIT_TIMEOUT_MS)
        except (KafkaError, StreamError) as error:
            log.warning("group_offsets_not_committed", error=str(error))
        return consumer


def _configs(settings: KafkaSource, group_id: str | None) -> dict[str, Any]:
    connect_timeout_ms = int(settings.connect_timeout_seconds * 1000)
    chosen = {name: _typed(name, value) for name, value in settings.client.items()}
    return {
        **DEFAULTS,
        "request_timeout_ms": max(connect_timeout_ms, MINIMUM_REQUEST_TIMEOUT_MS),
        **chosen,
        "bootstrap_servers": list(settings.bootstrap_servers),
        "bootstrap_timeout_ms": connect_timeout_ms,
        "group_id": group_id,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "allow_auto_create_topics": False,
    }


def _typed(name: str, value: Any) -> Any:
    """Return a setting as kafka-python wants it: TOML has no tuples, the environment only text.

    Raises `ValueError` that says what is expected instead.
    """
    default = KafkaConsumer.DEFAULT_CONFIG[name]
    if not isinstance(default, int):
        return tuple(value) if isinstance(value, list) else value
    try:
        found = TypeAdapter(type(default)).validate_python(value)
    except ValidationError as error:
        wanted = "true or false" if isinstance(default, bool) else "a whole number"
        msg = f"expected {wanted}, found {value!r}"
        raise ValueError(msg) from error
    if name == "max_poll_records" and found < 1:
        msg = f"expected at least 1, found {found}"
        raise ValueError(msg)
    return found


def _fault(name: str) -> str:
    if name in OWNED:
        return f"cannot be set here; it {OWNED[name]}"
    known = set(KafkaConsumer.DEFAULT_CONFIG) - set(OWNED)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}" if near else ""
    return f"expected a setting of kafka-python's consumer, found none of that name{hint}"


def _close(clients: list[WatchedClient]) -> None:
    for client in clients:
        client.close()
