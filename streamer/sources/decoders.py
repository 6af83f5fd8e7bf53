"""The decoder of each topic, as the format of its mapping says."""

from collections.abc import Iterable

from state.deaths import Deaths
from streamer.settings.clicks import ClickMapping
from streamer.settings.sources import Clicks
from streamer.sources.avro import AvroDecoder, open_registry
from streamer.sources.cloudevents import CloudEventsDecoder
from streamer.sources.decoding import Decoder
from streamer.sources.json_clicks import JsonDecoder
from streamer.sources.schema_registry import SchemaRegistry
from streamer.sources.snowplow import SnowplowDecoder

_BY_FORMAT: dict[str, type[Decoder]] = {
    "json": JsonDecoder,
    "snowplow": SnowplowDecoder,
    "cloudevents": CloudEventsDecoder,
}


class TopicDecoders:
    """One decoder for each of several topics; topics with one registry share its schemas.

    Raises `ConfigError` where a format needs what is not installed.
    """

    def __init__(self, clicks: Clicks, topics: Iterable[str]) -> None:
        self._registries: dict[str, SchemaRegistry] = {}
        self._decoders = {topic: self._made(clicks.of_topic(topic)) for topic in topics}

    def of(self, topic: str) -> Decoder:
        """Return the decoder of one of the topics."""
        return self._decoders[topic]

    def watch(self, deaths: Deaths) -> None:
        """Let each decoder note what it is at. See `Decoder.watch`."""
        for decoder in self._decoders.values():
            decoder.watch(deaths)

    def close(self) -> None:
        """Let go of the registries. Idempotent."""
        for registry in self._registries.values():
            registry.close()

    def _made(self, mapping: ClickMapping) -> Decoder:
        if mapping.format != "avro":
            return _BY_FORMAT[mapping.format](mapping)
        url = mapping.schema_registry
        if url not in self._registries:
            self._registries[url] = open_registry(url)
        return AvroDecoder(mapping, self._registries[url])


def line_decoder(mapping: ClickMapping) -> Decoder:
    """Return the decoder of a file's lines that are no CSV; Avro does not come in lines."""
    return _BY_FORMAT.get(mapping.format, JsonDecoder)(mapping)
