"""CloudEvents are read structured and binary; the examples are those of the specification."""

import base64
import json

import pytest

from streamer.settings.sources import Clicks
from streamer.sources.cloudevents import CloudEventsDecoder
from tests.streamer.sources.decoded import EVENT, SESSION, clicks, decoded, key, one, reasons

ATTRIBUTES = {
    "specversion": "1.0",
    "type": "com.example.viewed",
    "source": "/shop/7",
    "id": "A234-1234-1234",
    "time": "2018-04-05T17:31:00Z",
    "subject": "kettles",
}
DATA = {"item_id": "kettle", "user_id": "u", "session_id": "s"}
CLICK = (
    "kettle",
    key("s", SESSION),
    key(b"/shop/7\0A234-1234-1234", EVENT),
    1522949460000,
    1.0,
)
STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def _structured(**changes):
    event = {**ATTRIBUTES, "data": DATA, **changes}
    return json.dumps({name: one for name, one in event.items() if one is not None}).encode()


def _headers(content_type=b"application/json", **changes):
    told = {**ATTRIBUTES, **changes}
    headers = [(f"ce_{name}", one.encode()) for name, one in told.items() if one is not None]
    return [*headers, ("content-type", content_type)] if content_type is not None else headers


def _decoded(*records, **mapping):
    """Decode pairs of a value and its headers."""
    decoder = CloudEventsDecoder(Clicks(preset="cloudevents", **mapping))
    values, headers = [value for value, _ in records], [told for _, told in records]
    return decoded(decoder, values, headers=headers)


@pytest.mark.parametrize("headers", [STRUCTURED, [], [("other", b"\xff"), ("null", None)]])
def test_a_structured_event_is_a_click(headers):
    assert one(_decoded((_structured(), headers)))[:5] == CLICK


def test_an_event_in_a_file_is_structured():
    decoder = CloudEventsDecoder(Clicks(preset="cloudevents"))

    assert one(decoded(decoder, [_structured()]))[:5] == CLICK


@pytest.mark.parametrize(
    "content_type",
    [None, b"application/json", b"application/JSON; charset=utf-8", b"text/x+json"],
)
def test_a_binary_event_has_its_attributes_as_headers(content_type):
    data = json.dumps(DATA).encode()

    headers = [*_headers(content_type), ("ce_dataschema", None)]

    assert one(_decoded((data, headers)))[:5] == CLICK


def test_a_content_type_of_cloudevents_goes_before_the_headers():
    told = [*_headers(None, source="/elsewhere"), ("Content-Type", b"Application/CloudEvents+json")]

    assert one(_decoded((_structured(), told)))[:5] == CLICK


@pytest.mark.parametrize("data_type", [None, "application/json"])
def test_data_in_base64_are_read(data_type):
    encoded = base64.b64encode(json.dumps(DATA).encode()).decode()
    event = _structured(data=None, data_base64=encoded, datacontenttype=data_type)

    assert one(_decoded((event, STRUCTURED)))[:5] == CLICK


def test_data_that_are_no_json_are_a_text():
    encoded = base64.b64encode(b"kettle").decode()

    batch = _decoded(
        (b"kettle", _headers(b"text/plain")),
        (_structured(data="kettle", datacontenttype="text/plain"), STRUCTURED),
        (_structured(data=None, data_base64=encoded, datacontenttype="text/plain"), STRUCTURED),
        item="data",
        user="source",
    )

    assert [c.item for c in clicks(batch)] == ["kettle"] * 3


def test_the_item_may_be_the_subject_of_an_event_without_data():
    batch = _decoded((None, _headers()), (b"", _headers()), item="subject", user="source")

    assert [c.item for c in clicks(batch)] == ["kettles"] * 2


def test_types_of_events_weigh():
    batch = _decoded(
        (_structured(), STRUCTURED),
        (_structured(type="com.example.bought"), []),
        (json.dumps(DATA).encode(), _headers(type="com.example.left")),
        types={"com.example.viewed": 1, "com.example.bought": 3},
    )

    assert [c.weight for c in clicks(batch)] == [1.0, 3.0]
    assert batch.filtered == {"unlisted_type": 1}


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (None, [], "empty"),
        (b"", STRUCTURED, "empty"),
        (b"{", STRUCTURED, "malformed"),
        (json.dumps(DATA).encode(), [], "malformed"),
        (_structured(specversion="0.3"), STRUCTURED, "malformed"),
        (_structured(specversion=1.0), STRUCTURED, "malformed"),
        (_structured(), [("content-type", b"application/cloudevents+avro")], "malformed"),
        (b"[]", [("content-type", b"application/cloudevents-batch+json")], "malformed"),
        (_structured(data=None, data_base64="!"), STRUCTURED, "malformed"),
        (_structured(data=None, data_base64="e30!="), STRUCTURED, "malformed"),
        (_structured(data=None, data_base64=5), STRUCTURED, "malformed"),
        (b"{", _headers(), "malformed"),
        (json.dumps(DATA).encode(), _headers(specversion="0.3"), "malformed"),
        (b"\xff", _headers(b"text/plain"), "not_utf8"),
        (b"{}", [*_headers(), ("ce_x", b"\xff")], "not_utf8"),
        (b"{}", [("content-type", b"\xff")], "not_utf8"),
        (b"{}", _headers(), "no_item"),
        (b"null", _headers(), "no_item"),
        (_structured(time=None), STRUCTURED, "bad_time"),
        (None, _headers(), "no_item"),
    ],
)
def test_what_is_no_event_with_a_click_is_a_dead_letter(value, headers, reason):
    assert reasons(_decoded((value, headers))) == [reason]
