"""Records of a format: read as clicks, and written for a topic with their event time moved."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from streamer.errors import ConfigError, InvalidEvent
from streamer.replay.times import is_number, moved_time
from streamer.settings.clicks import ClickMapping, listed
from streamer.settings.sources import FileSource
from streamer.sources.clicks import Headers
from streamer.sources.cloudevents import ATTRIBUTE, DATA, is_binary
from streamer.sources.csv_clicks import CsvDecoder
from streamer.sources.decoders import line_decoder
from streamer.sources.files import read_header
from streamer.sources.mapping import Click, Filtered
from streamer.sources.snowplow import COLUMNS

FIXED_TIME = "fixed_time"  # why a click is left whose event time cannot be moved

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Written(NamedTuple):
    """A record of a topic."""

    value: bytes
    headers: Headers = ()


class Format(Protocol):
    """How records are written; the line before number 0 is a header where `first_line` is -1."""

    first_line: int

    def read(self, raw: bytes, headers: Headers = ()) -> Click | Filtered:
        """Return a record as a click, or why it is left out. Raises `InvalidEvent`, as in a run."""

    def written(self, raw: bytes, seconds: int, headers: Headers = ()) -> Written:
        """Return a click as a record of a topic, so much later.

        Raises `InvalidEvent` where its time stands in no place that can be written.
        """


class ValueFormat:
    """Each record is a value of a topic: what is not its time stays as it is, to the last byte."""

    first_line = 0

    def __init__(self, mapping: ClickMapping) -> None:
        self._unit = mapping.time_unit
        self._decoder = line_decoder(mapping)

    def read(self, raw: bytes, headers: Headers = ()) -> Click | Filtered:
        """Return a record as a click, or why it is left out. Raises `InvalidEvent`."""
        return self._decoder.reader.read(self._decoder.fields(raw, headers))

    def written(self, raw: bytes, seconds: int, headers: Headers = ()) -> Written:
        """Return the record itself where its time is kept."""
        if seconds == 0:
            return Written(raw, headers)
        place = self._decoder.reader.time_place(self._decoder.fields(raw, headers))
        return self._moved(raw, place, seconds, headers)

    def _moved(self, raw: bytes, place: Sequence[str], seconds: int, headers: Headers) -> Written:
        if raw.lstrip().startswith(b"{"):
            return Written(self._moved_inside(raw, place, seconds), headers)
        columns = raw.decode().rstrip("\r\n").split("\t")  # of Snowplow
        at = COLUMNS.index(place[0])
        columns[at] = moved_time(columns[at], self._unit, seconds)
        return Written("\t".join(columns).encode(), headers)

    def _moved_inside(self, raw: bytes, place: Sequence[str], seconds: int) -> bytes:
        """Return a JSON object with the time at `place` moved."""
        members = _MEMBERS.decode(raw)
        name, *inner = place
        if name not in members:
            msg = f"expected the event time in {name!r} as JSON, found it encoded"
            raise InvalidEvent(FIXED_TIME, msg)
        value = bytes(members[name]).strip()
        if inner:
            moved = self._moved_inside(value, inner, seconds)
        elif value.startswith(b'"'):
            text = moved_time(msgspec.json.decode(value, type=str), self._unit, seconds)
            moved = msgspec.json.encode(text)
        else:
            moved = moved_time(value.decode(), self._unit, seconds).encode()
        members[name] = msgspec.Raw(moved)
        return msgspec.json.encode(members)


class CloudEventFormat(ValueFormat):
    """Each record is an event: structured, one JSON object, or binary, its data alone."""

    def _moved(self, raw: bytes, place: Sequence[str], seconds: int, headers: Headers) -> Written:
        if not is_binary(headers):
            return super()._moved(raw, place, seconds, headers)
        name, *inside = place
        if name == DATA:
            return Written(self._moved_inside(raw, inside, seconds), headers)
        attribute = f"{ATTRIBUTE}{name}"
        return Written(
            raw,
            tuple(
                (one, self._later(value, seconds) if one.lower() == attribute else value)
                for one, value in headers
            ),
        )

    def _later(self, time: bytes | None, seconds: int) -> bytes | None:
        return None if time is None else moved_time(time.decode(), self._unit, seconds).encode()


class CsvFormat:
    """Each record is a line under `header`; its columns become members, but for empty ones."""

    first_line = -1

    def __init__(
        self, mapping: ClickMapping, header: Sequence[str], delimiter: str, where: str
    ) -> None:
        self._unit = mapping.time_unit
        self._ids = listed(mapping.event_id)
        self._decoder = CsvDecoder(mapping, list(header), delimiter, where)

    def read(self, raw: bytes, headers: Headers = ()) -> Click | Filtered:
        """Return a record as a click, or why it is left out. Raises `InvalidEvent`."""
        return self._decoder.reader.read(self._decoder.fields(raw, headers))

    def written(self, raw: bytes, seconds: int, headers: Headers = ()) -> Written:
        """Return a JSON object: the columns as text, and the time as the number that it is.

        A time that is part of an event id is text, too: a fraction is no id.
        """
        columns = self._decoder.fields(raw)
        (name,) = self._decoder.reader.time_place(columns)
        members: dict[str, str | msgspec.Raw] = {one: text for one, text in columns.items() if text}
        time = moved_time(columns[name], self._unit, seconds)
        is_bare = is_number(self._unit) and name not in self._ids
        members[name] = msgspec.Raw(time.encode()) if is_bare else time
        return Written(msgspec.json.encode(members), headers)


def format_of_topic(topic: str, mapping: ClickMapping) -> Format:
    """Return how the records of a topic are written.

    Raises `ConfigError` for a mapping whose records cannot be.
    """
    if mapping.format == "avro":
        msg = (
            f"replay: expected clicks of {topic!r} that can be written, found format avro, which"
            " is only read; put its records back by a producer that has their schema"
        )
        raise ConfigError(msg)
    is_event = mapping.format == "cloudevents"
    return CloudEventFormat(mapping) if is_event else ValueFormat(mapping)


def format_of_file(path: Path, files: FileSource, mapping: ClickMapping) -> Format:
    """Return how the records of a file are written.

    Raises `ConfigError` if it cannot be read, or its mapping is not that of what we write.
    """
    header = read_header(path, files, mapping)
    if header is None:
        return format_of_topic(path.name, mapping)
    if mapping.format != "json":
        msg = (
            f"replay: expected clicks.format json for {path.name!r}, whose lines of CSV become"
            f" JSON, found {mapping.format}"
        )
        raise ConfigError(msg)
    return CsvFormat(mapping, *header, str(path))
