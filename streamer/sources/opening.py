"""The source that the configuration names."""

from streamer.clock import Clock
from streamer.config import Config
from streamer.errors import ConfigError
from streamer.sources.contract import Source
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
