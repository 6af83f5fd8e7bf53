"""CloudEvents 1.0 in Kafka records: structured as JSON, or binary with attributes as headers.

The Kafka binding: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
The JSON format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

import base64
import binascii
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from streamer.errors import InvalidEvent
from streamer.sources.clicks import MALFORMED, Headers
from streamer.sources.decoding import Decoder, as_text, content
from streamer.sources.json_clicks import json_object, json_value

SPEC_VERSION = "1.0"

ATTRIBUTE = "ce_"  # begins the name of a header that is an attribute
DATA = "data"

_CONTENT_TYPE = "content-type"
_MEDIA_TYPE = "application/cloudevents"
_JSON_TYPE = re.compile(r"[^/;]+/([^/;]+\+)?json\s*(;.*)?", re.IGNORECASE)


class CloudEventsDecoder(Decoder):
    """Each record is one event: its fields are its attributes, and its data under `data`.

    Data that are not JSON are one text.
    """

    def fields(self, value: bytes | None, headers: Headers = ()) -> Mapping[str, Any]:
        """Return the attributes of an event, and its data. Raises `InvalidEvent`."""
        told = _told(headers)
        content_type = as_text(told.get(_CONTENT_TYPE, b"")).strip()
        if is_binary(headers):
            event = _binary(value, told, content_type)
        else:
            if content_type.lower().startswith(_MEDIA_TYPE):
                _check_format(content_type)
            event = _structured(content(value))
        if event.get("specversion") != SPEC_VERSION:
            found = reprlib.repr(event.get("specversion"))
            msg = f"expected a CloudEvent of specversion {SPEC_VERSION!r}, found {found}"
            raise InvalidEvent(MALFORMED, msg)
        return event


def is_binary(headers: Headers) -> bool:
    """Tell whether a record's value is the data of an event alone.

    It is not if the header `content-type` says that it is the event, or if no headers are
    attributes (3. of the binding).
    """
    told = _told(headers)
    is_event = told.get(_CONTENT_TYPE, b"").strip().lower().startswith(_MEDIA_TYPE.encode())
    return not is_event and f"{ATTRIBUTE}specversion" in told


def _told(headers: Headers) -> dict[str, bytes]:
    return {name.lower(): value for name, value in headers if value is not None}


def _check_format(content_type: str) -> None:
    media_type = content_type.lower().partition(";")[0].strip()
    if media_type not in {_MEDIA_TYPE, f"{_MEDIA_TYPE}+json"}:
        found = reprlib.repr(media_type)
        msg = f"expected one CloudEvent as {_MEDIA_TYPE}+json, found content-type {found}"
        raise InvalidEvent(MALFORMED, msg)


def _structured(value: bytes) -> dict[str, Any]:
    event = json_object(value)
    encoded = event.get("data_base64")
    if encoded is not None:
        event[DATA] = _data(_from_base64(encoded), str(event.get("datacontenttype") or ""))
    return event


def _binary(value: bytes | None, told: Mapping[str, bytes], content_type: str) -> dict[str, Any]:
    """Return the attributes and the data of an event; one without data has no value."""
    event: dict[str, Any] = {
        name.removeprefix(ATTRIBUTE): as_text(one)
        for name, one in told.items()
        if name.startswith(ATTRIBUTE)
    }
    event[DATA] = _data(value, content_type) if value else None
    return event


def _data(value: bytes, content_type: str) -> Any:
    """Return data as JSON, unless their type says that they are something else."""
    if content_type and not _JSON_TYPE.fullmatch(content_type):
        return as_text(value)
    return json_value(value)


def _from_base64(encoded: Any) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, binascii.Error, ValueError) as error:
        found = reprlib.repr(encoded)
        msg = f"expected base64 in 'data_base64', found {found}"
        raise InvalidEvent(MALFORMED, msg) from error
