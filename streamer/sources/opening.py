"""The source that the configuration names, and where its unusable clicks go."""

from streamer.clock import Clock
from streamer.config import Config
from streamer.errors import ConfigError
from streamer.sources.contract import Source
from streamer.sources.dead_letter_topic import DeadLetterTopic
from streamer.sources.dead_letters import FILE_NAME, DeadLetterQueue, DeadLetters
from streamer.sources.files import FileSource
from streamer.sources.kafka import KafkaClicks


def open_source(config: Config, clock: Clock) -> Source:
    """Return the configured source, not yet at any position.

    Raises `ConfigError` when none is configured or it cannot be opened, `BrokerError` when Kafka
    cannot be reached.
    """
    if config.source.files is not None:
        return FileSource(config.source.files, config.clicks, clock)
    if config.source.kafka is not None:
        return KafkaClicks(config.source.kafka, config.clicks, clock)
    msg = (
        "source: expected files or kafka, found neither; "
        'add [source.files] paths = ["clicks.csv"], or [source.kafka] with bootstrap_servers '
        "and topics"
    )
    raise ConfigError(msg)


def open_dead_letters(config: Config, clock: Clock, file_bytes: int) -> DeadLetterQueue:
    """Return where dead letters go, the file of the state cut back to its committed length.

    With a topic the file is cut back, too, where there is one: it held letters before, and
    may again. Raises `BrokerError` when the topic cannot be reached.
    """
    path = config.store.directory / FILE_NAME
    is_in_use = config.dead_letters.topic is None
    if is_in_use or path.exists():
        limits = config.clicks.max_dead_letters, config.clicks.max_dead_letter_share
        file = DeadLetters(path, *limits)
        file.truncate_to(file_bytes)
        if is_in_use:
            return file
        file_bytes = file.sync()
        file.close()
        return DeadLetterTopic(config, clock, file_bytes)
    return DeadLetterTopic(config, clock, 0)
