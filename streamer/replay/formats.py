"""Records of a format: read as clicks, and written as JSON with their event time moved."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from streamer.replay.times import is_number, moved_time
from streamer.settings.sources import Clicks, FileSource
from streamer.sources.clicks import Click, CsvDecoder, JsonDecoder
from streamer.sources.files import read_header


class Format(Protocol):
    """How records are written; the line before number 0 is a header where `first_line` is -1."""

    first_line: int

    def read(self, raw: bytes) -> Click:
        """Return a record as a click. Raises `InvalidEvent`, as it does in a run."""

    def json(self, raw: bytes, seconds: int) -> bytes:
        """Return a record that `read` takes as a JSON object, its time so much later."""


class JsonFormat:
    """Each record is a JSON object; what is not its time stays as it is, to the last byte."""

    first_line = 0

    def __init__(self, clicks: Clicks) -> None:
        self._settings = clicks
        self._decoder = JsonDecoder(clicks)
        self._members = msgspec.json.Decoder(dict[str, msgspec.Raw])

    def read(self, raw: bytes) -> Click:
        """Return a record as a click. Raises `InvalidEvent`."""
        return self._decoder.read(raw)

    def json(self, raw: bytes, seconds: int) -> bytes:
        """Return the record itself where its time is kept."""
        if seconds == 0:
            return raw
        unit, name = self._settings.time_unit, self._settings.time
        members = self._members.decode(raw)
        time = bytes(members[name]).strip()
        if time.startswith(b'"'):
            text = moved_time(msgspec.json.decode(time, type=str), unit, seconds)
            members[name] = msgspec.Raw(msgspec.json.encode(text))
        else:
            members[name] = msgspec.Raw(moved_time(time.decode(), unit, seconds).encode())
        return msgspec.json.encode(members)


class CsvFormat:
    """Each record is a line under `header`; its columns become members, but for empty ones."""

    first_line = -1

    def __init__(self, clicks: Clicks, header: Sequence[str], delimiter: str, where: str) -> None:
        self._settings = clicks
        self._header = header
        self._delimiter = delimiter
        self._decoder = CsvDecoder(clicks, list(header), delimiter, where)

    def read(self, raw: bytes) -> Click:
        """Return a record as a click. Raises `InvalidEvent`."""
        return self._decoder.read(raw)

    def json(self, raw: bytes, seconds: int) -> bytes:
        """Return the columns as text, and the time as the number that it is."""
        (row,) = csv.reader([raw.decode()], delimiter=self._delimiter, strict=True)
        members: dict[str, str | msgspec.Raw] = {
            name: value for name, value in zip(self._header, row, strict=True) if value
        }
        unit, name = self._settings.time_unit, self._settings.time
        time = moved_time(row[self._header.index(name)], unit, seconds)
        members[name] = msgspec.Raw(time.encode()) if is_number(unit) else time
        return msgspec.json.encode(members)


def format_of(path: Path, files: FileSource, clicks: Clicks) -> Format:
    """Return how the records of a file are written. Raises `ConfigError` if it cannot be read."""
    header = read_header(path, files)
    if header is None:
        return JsonFormat(clicks)
    return CsvFormat(clicks, *header, str(path))
