"""The source that the configuration names, and where its unusable clicks go."""

import stat
from pathlib import Path

import structlog

from streamer.clock import Clock
from streamer.config import Config
from streamer.errors import ConfigError
from streamer.sources.contract import Source
from streamer.sources.dead_letter_topic import DeadLetterTopic, letters_kafka
from streamer.sources.dead_letters import FILE_NAME, DeadLetterQueue, DeadLetters
from streamer.sources.files import FileSource
from streamer.sources.history import HistoryThenLive
from streamer.sources.kafka import KafkaClicks
from streamer.sources.kafka_client import check_client

log = structlog.get_logger()


def check_source(config: Config) -> None:
    """Raise `ConfigError` for what is wrong with the source or the topic of dead letters.

    Neither is opened: only what can be known without it.
    """
    if config.source.kafka is not None:
        check_client(config.source.kafka)
    if config.dead_letters.topic is not None:
        check_client(*letters_kafka(config, config.dead_letters.topic))


def open_source(config: Config, clock: Clock, *, take_group: bool = False) -> Source:
    """Return the configured source, not yet at any position: files, Kafka, or one behind the other.

    Raises `ConfigError` when none is configured or it cannot be opened, `BrokerError` when Kafka
    cannot be reached. `take_group` is that of `KafkaClicks`.
    """
    settings = config.source
    if settings.files is None and settings.kafka is None:
        msg = (
            "source: expected files or kafka, found neither; "
            'add [source.files] paths = ["clicks.csv"], or [source.kafka] with bootstrap_servers '
            "and topics"
        )
        raise ConfigError(msg)
    files = FileSource(settings.files, config.clicks, clock) if settings.files else None
    if settings.kafka is None:
        assert files is not None
        return files
    if settings.kafka.client_file is not None:
        _warn_if_open(settings.kafka.client_file)
    live = KafkaClicks(settings.kafka, config.clicks, clock, take_group=take_group)
    return HistoryThenLive(files, live) if files else live


def _warn_if_open(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & stat.S_IROTH:
        log.warning("client_file_readable_by_all", file=str(path), mode=oct(stat.S_IMODE(mode)))


def open_dead_letters(config: Config, clock: Clock) -> DeadLetterQueue:
    """Return where dead letters go; `truncate_to` comes before the first of them.

    Raises `ConfigError` or `BrokerError` when their topic cannot be reached.
    """
    path, topic = config.store.directory / FILE_NAME, config.dead_letters.topic
    limits = config.clicks.max_dead_letters, config.clicks.max_dead_letter_share
    file = DeadLetters(path, *limits) if topic is None or path.exists() else None
    if topic is not None:
        return DeadLetterTopic(config, clock, file)
    assert file is not None
    return file
