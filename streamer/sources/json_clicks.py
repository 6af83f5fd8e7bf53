"""Clicks that are JSON objects."""

import reprlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from kernels.clicks import parse_json
from streamer.errors import InvalidEvent
from streamer.settings.clicks import ClickMapping
from streamer.sources.clicks import MALFORMED, Headers
from streamer.sources.decoding import (
    Columns,
    Decoder,
    Records,
    as_text,
    content,
    plain_names,
)

_JSON = msgspec.json.Decoder()


class JsonDecoder(Decoder):
    """Each record is a JSON object that holds the fields of the mapping."""

    def __init__(self, mapping: ClickMapping) -> None:
        super().__init__(mapping)
        names = plain_names(mapping)
        self._is_plain = names is not None
        encoded = [name.encode() for name in names or ()]
        self._names = np.frombuffer(bytearray(b"".join(encoded)), np.uint8)
        self._name_ends = np.cumsum([len(name) for name in encoded]).astype(np.int64)

    def _parse(self, records: Records, columns: Columns) -> None:
        if self._is_plain:
            parse_json(*records[:3], self._names, self._name_ends, *columns.of_kernel)
        else:
            super()._parse(records, columns)

    def fields(self, value: bytes | None, headers: Headers = ()) -> Mapping[str, Any]:
        """Return the members of the object. Raises `InvalidEvent`."""
        del headers
        return json_object(content(value))


def json_object(value: bytes) -> dict[str, Any]:
    """Return a JSON object; of a member that occurs twice the last. Raises `InvalidEvent`."""
    record = json_value(value)
    if not isinstance(record, dict):
        msg = f"expected a JSON object, found {reprlib.repr(record)}"
        raise InvalidEvent(MALFORMED, msg)
    return record


def json_value(value: bytes) -> Any:
    """Return what JSON in UTF-8 says. Raises `InvalidEvent`."""
    text = as_text(value)
    try:
        return _JSON.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"expected JSON: {error}"
        raise InvalidEvent(MALFORMED, msg) from error
