"""Clicks that are Avro records, whose schemas a registry holds.

Each value is a byte 0, the id of its schema in four bytes, the first the highest, and the record:
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html
"""

import io
import json
import reprlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from streamer.errors import ConfigError, InvalidEvent
from streamer.settings.clicks import ClickMapping
from streamer.sources.clicks import MALFORMED, Headers
from streamer.sources.decoding import Columns, Decoder, Records, content
from streamer.sources.schema_registry import SchemaRegistry

try:
    import fastavro
except ImportError:  # it is an extra
    _is_installed = False
else:
    _is_installed = True

_HEAD = struct.Struct(">BI")
_MAGIC = 0
# What fastavro raises for bytes that are no record of the schema.
_NO_AVRO = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class AvroDecoder(Decoder):
    """Each record is one Avro record; its fields are the schema's.

    A batch with a schema that has not come yet is not decoded at all: `decode` raises
    `SchemaUnavailable`, and may be called again. Times of a logical type are times whatever
    `time_unit` says.
    """

    def __init__(self, mapping: ClickMapping, registry: SchemaRegistry) -> None:
        super().__init__(mapping)
        self._registry = registry

    def _parse(self, records: Records, columns: Columns) -> None:
        """Make sure of every schema, so that no half of a batch is decoded in vain."""
        starts = records.starts[records.lengths >= _HEAD.size]
        starts = starts[records.buffer[starts] == _MAGIC]
        heads = records.buffer[starts[:, np.newaxis] + np.arange(1, _HEAD.size)]
        self._registry.require(np.unique(np.ascontiguousarray(heads).view(">u4")).tolist())
        super()._parse(records, columns)

    def fields(self, value: bytes | None, headers: Headers = ()) -> Mapping[str, Any]:
        """Return the fields of a record whose schema was required. Raises `InvalidEvent`."""
        del headers
        value = content(value)
        if len(value) < _HEAD.size or value[0] != _MAGIC:
            found = reprlib.repr(value[: _HEAD.size])
            msg = f"expected a byte 0 and the id of a schema before a record, found {found}"
            raise InvalidEvent(MALFORMED, msg)
        schema = self._registry.schema(_HEAD.unpack_from(value)[1])
        body = io.BytesIO(value)
        body.seek(_HEAD.size)
        try:
            record = fastavro.schemaless_reader(body, schema, None)
        except _NO_AVRO as error:
            msg = f"expected an Avro record of its schema: {reprlib.repr(str(error))}"
            raise InvalidEvent(MALFORMED, msg) from error
        if not isinstance(record, dict) or body.tell() != len(value):
            found = "bytes behind it" if isinstance(record, dict) else reprlib.repr(record)
            msg = f"expected an Avro record of its schema, found {found}"
            raise InvalidEvent(MALFORMED, msg)
        return record


def open_registry(url: str) -> SchemaRegistry:
    """Return the schemas of the registry at `url`; nothing is fetched yet.

    Raises `ConfigError` where fastavro is not installed.
    """
    if not _is_installed:
        msg = (
            "clicks.format: expected fastavro beside format avro, found it not installed; "
            "pip install 'livevec[avro]'"
        )
        raise ConfigError(msg)
    return SchemaRegistry(url, _parsed)


def _parsed(texts: list[str]) -> Any:
    """Return the last of several schemas; each may name the types of those before it."""
    named: dict[str, Any] = {}
    schema = None
    try:
        for text in texts:
            schema = fastavro.parse_schema(json.loads(text), named_schemas=named)
    except (*_NO_AVRO, fastavro.schema.SchemaParseException) as error:
        msg = f"no Avro schema: {reprlib.repr(str(error))}"
        raise ValueError(msg) from error
    return schema
