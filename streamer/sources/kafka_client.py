"""How kafka-python is used: its settings, and one clear error at the start."""

import difflib
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaConfigurationError, KafkaError
from kafka.structs import OffsetAndMetadata
from pydantic import TypeAdapter, ValidationError

from streamer.errors import BrokerError, ConfigError
from streamer.settings.sources import KafkaSource

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
    # A partition that was added is found by then, and where its leader is.
    "metadata_max_age_ms": 10_000,
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
}

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

MINIMUM_REQUEST_TIMEOUT_MS = 5000
CLOSE_TIMEOUT_SECONDS = 2.0

_one_at_a_time = threading.Lock()
_ATTEMPT = re.compile(
    r"^Bootstrap (?:connection|attempt) to \S+ failed: (.*) \(backoff .*\)$", re.S
)
_HANGS_UP = ", as a broker does that refuses the password or wants another security_protocol"


class Consumer(KafkaConsumer):  # type: ignore[misc]  # kafka-python has no types
    """A consumer that can be told which record a position lies behind."""

    def seek_behind(self, partition: TopicPartition, offset: int, leader_epoch: int) -> None:
        """Go on at `offset`, behind a record of that epoch; -1 where it is not known.

        With it the leader is asked whether its log is still the one of then (KIP-320), and the
        poll raises `LogTruncationError` if it is not. Never blocks.
        """
        self._subscription.seek(partition, OffsetAndMetadata(offset, "", leader_epoch))


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
    protocol = settings.client.get("security_protocol", PROTOCOLS[0])
    if protocol not in PROTOCOLS:
        # kafka-python takes any other word for PLAINTEXT, and would send the password in clear.
        faults.append(
            "source.kafka.client.security_protocol: expected one of "
            f"{', '.join(PROTOCOLS)}, found {protocol!r}"
        )
    if faults:
        raise ConfigError(*faults)


def connect(settings: KafkaSource) -> Any:
    """Return a `Consumer` that has reached a broker.

    Blocks for at most `connect_timeout_seconds`. Raises `ConfigError` when kafka-python refuses
    the settings, and `BrokerError` when no broker answers or lets us in.
    """
    return _connected(Consumer, settings, _configs(settings, None))


def _connected(kind: Any, settings: KafkaSource, configs: dict[str, Any]) -> Any:
    started = []

    def client(**configs: Any) -> Any:
        # The constructor keeps its network thread when it fails; this is the way to end it.
        started.append(KafkaConsumer.DEFAULT_CONFIG["kafka_client"](**configs))
        return started[-1]

    where = ", ".join(settings.bootstrap_servers)
    with _causes() as causes:
        try:
            return kind(kafka_client=client, **configs)
        except (KafkaConfigurationError, AssertionError, TypeError, ValueError) as error:
            _close(started)
            msg = f"source.kafka: expected settings that kafka-python accepts, found: {error}"
            raise ConfigError(msg) from error
        except (KafkaError, OSError) as error:
            _close(started)
            cause = causes[-1] if causes else str(error)
            msg = (
                f"source.kafka: expected a broker at {where} to let us in within "
                f"{settings.connect_timeout_seconds:g} s, found: {cause}"
            )
            raise BrokerError(msg) from error


def connect_admin(settings: KafkaSource, request_timeout_seconds: float) -> KafkaAdminClient:
    """Return a client for questions that has reached a broker; see `connect`."""
    known = KafkaAdminClient.DEFAULT_CONFIG.keys()
    configs = {name: value for name, value in _configs(settings, None).items() if name in known}
    configs["request_timeout_ms"] = int(request_timeout_seconds * 1000)
    return _connected(KafkaAdminClient, settings, configs)


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


def _close(clients: list[Any]) -> None:
    for client in clients:
        client.close()


@contextmanager
def _causes() -> Iterator[list[str]]:
    """Collect the library's warnings: only there does it tell why it cannot connect.

    They are kept from the log meanwhile; the error that is raised says the last of them.
    """
    library = logging.getLogger("kafka")
    collector = _Collector()
    with _one_at_a_time:
        library.setLevel(logging.WARNING)
        library.addHandler(collector)
        library.propagate, before = False, library.propagate
        try:
            yield collector.causes
        finally:
            library.propagate = before
            library.removeHandler(collector)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.causes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if found := _ATTEMPT.search(record.getMessage()):
            cause = found[1].replace("\n", " ")
            if self.causes and "RequestTimedOut" in cause:
                # The last attempt is cut off by our own timeout; those before say more.
                return
            self.causes.append(cause + _HANGS_UP if "socket disconnected" in cause else cause)
