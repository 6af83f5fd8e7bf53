"""How kafka-python is used: its settings, and one clear error at the start."""

import difflib
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaConfigurationError, KafkaError
from kafka.structs import OffsetAndMetadata
from pydantic import TypeAdapter, ValidationError

from streamer.errors import BrokerUnavailable, ConfigError
from streamer.settings.masking import masked_text
from streamer.settings.sources import KafkaSource
from streamer.sources.kafka_causes import Cause
from streamer.sources.kafka_connections import WatchedClient
from streamer.sources.kafka_security import security_faults

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
    "ssl_context": "is made from ssl_cafile, ssl_certfile and ssl_keyfile",
    "sasl_oauth_token_provider": "is a Python object, which no file holds",
}

MINIMUM_REQUEST_TIMEOUT_MS = 5000
CLOSE_TIMEOUT_SECONDS = 2.0
SECTION = "source.kafka"  # of the configuration, as errors call it


class Explained:
    """What kafka-python's clients can say of their connections."""

    _client: WatchedClient

    def last_cause(self) -> Cause | None:
        """Return why the last connection has failed, None when none has since one was made.

        Never blocks; may be asked from any thread.
        """
        return self._client.causes.last


class Consumer(Explained, KafkaConsumer):  # type: ignore[misc]  # kafka-python has no types
    """A consumer that can be told which record a position lies behind."""

    def seek_behind(self, partition: TopicPartition, offset: int, leader_epoch: int) -> None:
        """Go on at `offset`, behind a record of that epoch; -1 where it is not known.

        With it the leader is asked whether its log is still the one of then (KIP-320), and the
        poll raises `LogTruncationError` if it is not. Never blocks.
        """
        self._subscription.seek(partition, OffsetAndMetadata(offset, "", leader_epoch))

    def place(self, partition: TopicPartition) -> int:
        """Return where a partition is read on that was assigned and sought. Never blocks.

        Unlike `position`, which looks at every partition for each, and may tell of another's fate.
        """
        return int(self._subscription.position(partition).offset)


class Admin(Explained, KafkaAdminClient):  # type: ignore[misc]  # kafka-python has no types
    """A client for questions."""


def check_client(settings: KafkaSource, section: str = SECTION) -> None:
    """Raise `ConfigError` that lists each `client` setting that cannot be used."""
    faults = [
        f"{name}: {_fault(name)}"
        for name in settings.client
        if name in OWNED or name not in KafkaConsumer.DEFAULT_CONFIG
    ]
    for name in sorted(KafkaConsumer.DEFAULT_CONFIG.keys() & settings.client.keys() - OWNED.keys()):
        try:
            _typed(name, settings.client[name])
        except ValueError as error:
            faults.append(f"{name}: {error}")
    faults += security_faults(settings.client)
    if faults:
        raise ConfigError(*(f"{section}.client.{fault}" for fault in faults))


def connect(settings: KafkaSource, section: str = SECTION) -> Any:
    """Return a `Consumer` that has reached a broker; see `connected`."""
    return connected(Consumer, settings, section)


def connect_admin(
    settings: KafkaSource, request_timeout_seconds: float, section: str = SECTION
) -> Any:
    """Return an `Admin` that has reached a broker; see `connected`."""
    timeout_ms = int(request_timeout_seconds * 1000)
    return connected(Admin, settings, section, request_timeout_ms=timeout_ms)


def connected(kind: Any, settings: KafkaSource, section: str = SECTION, **configs: Any) -> Any:
    """Return one of kafka-python's clients, a kind of `Explained`, that has reached a broker.

    Of the settings it is given those that it knows, and `configs` before them. Blocks for at most
    `connect_timeout_seconds`, and no longer than until every server has refused us for good.
    Raises `ConfigError` when kafka-python refuses the settings, and `BrokerError` when no broker
    answers or lets us in.
    """
    started: list[WatchedClient] = []
    known = {
        name: value for name, value in _configs(settings).items() if name in kind.DEFAULT_CONFIG
    }

    def client(**configs: Any) -> Any:
        # The constructor keeps its network thread when it fails; this is the way to end it.
        started.append(WatchedClient(**configs))
        return started[-1]

    try:
        return kind(kafka_client=client, **{**known, **configs})
    except (KafkaConfigurationError, AssertionError, TypeError, ValueError) as error:
        _close(started)
        found = masked_text(str(error))
        msg = f"{section}: expected settings that kafka-python accepts, found: {found}"
        raise ConfigError(msg) from error
    except (KafkaError, OSError) as error:
        _close(started)
        where = ", ".join(settings.bootstrap_servers)
        found = "".join(one.explain() for one in started) or f"the error: {masked_text(str(error))}"
        msg = (
            f"{section}: expected a broker at {where} to let us in within "
            f"{settings.connect_timeout_seconds:g} s, found {of_section(found, section)}"
        )
        raise BrokerUnavailable(msg) from error


def of_section(cause: str, section: str) -> str:
    """Return why a connection has failed, its advice about the section of the connection."""
    return cause.replace(f"{SECTION}.", f"{section}.")


def _configs(settings: KafkaSource) -> dict[str, Any]:
    connect_timeout_ms = int(settings.connect_timeout_seconds * 1000)
    chosen = {name: _typed(name, value) for name, value in settings.client.items()}
    return {
        **DEFAULTS,
        "request_timeout_ms": max(connect_timeout_ms, MINIMUM_REQUEST_TIMEOUT_MS),
        **chosen,
        "bootstrap_servers": list(settings.bootstrap_servers),
        "bootstrap_timeout_ms": connect_timeout_ms,
        "group_id": None,
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
