"""Enriched events of Snowplow are read as TSV and as JSON."""

import json
import zlib

import pytest

from streamer.settings.sources import Clicks
from streamer.sources.snowplow import COLUMNS, SnowplowDecoder
from tests.streamer.sources.decoded import EVENT, SESSION, USER, clicks, decoded, key, one, reasons

# Places of columns in the stream's TSV, as Snowplow's documentation numbers them.
PLACES = {
    "collector_tstamp": 3,
    "event": 5,
    "event_id": 6,
    "user_id": 12,
    "domain_userid": 15,
    "network_userid": 17,
    "page_urlpath": 35,
    "se_label": 55,
    "se_value": 57,
    "ti_sku": 68,
    "useragent": 77,
    "dvce_type": 101,
    "domain_sessionid": 123,
    "derived_tstamp": 124,
    "event_name": 126,
    "true_tstamp": 130,
}
HEADER_CRC = 0x27B05D20  # of the names between tabs, in the order of Snowplow's own Python SDK
EVENT_FIELDS = {
    "event": "page_view",
    "event_name": "page_view",
    "event_id": "c6ef3124-b53a-4b13-a233-0088f79dcbcb",
    "domain_userid": "bc2e92ec6c204a14",
    "user_id": "ann",
    "domain_sessionid": "s-1",
    "page_urlpath": "/kettles/7",
    "collector_tstamp": "2013-11-26 00:03:00.000",
    "derived_tstamp": "2013-11-26 00:02:05.123",
    "useragent": 'say "tab"',
}
TIME_MS = 1385424125123


def _tsv(**changes):
    columns = [""] * 131
    for name, value in {**EVENT_FIELDS, **changes}.items():
        columns[PLACES[name]] = value
    return "\t".join(columns).encode()


def _json(**changes):
    """An event as the analytics SDKs write it: times with T and Z, nothing that is empty."""
    fields = {**EVENT_FIELDS, **changes}
    for name in ("collector_tstamp", "derived_tstamp"):
        fields[name] = fields[name].replace(" ", "T") + "Z" if fields[name] else ""
    return json.dumps({name: one for name, one in fields.items() if one}).encode()


def _decoded(*records, **mapping):
    return decoded(SnowplowDecoder(Clicks(preset="snowplow", **mapping)), records)


BOTH = pytest.mark.parametrize("written", [_tsv, _json])


def test_the_columns_have_their_places():
    assert {name: COLUMNS.index(name) for name in PLACES} == PLACES
    assert len(COLUMNS) == len(set(COLUMNS)) == 131
    assert zlib.crc32("\t".join(COLUMNS).encode()) == HEADER_CRC


@BOTH
def test_a_page_view_is_a_click_on_its_page(written):
    click = one(_decoded(written()))

    assert click[:5] == (
        "/kettles/7",
        key("s-1", SESSION),
        key(EVENT_FIELDS["event_id"], EVENT),
        TIME_MS,
        1.0,
    )


@BOTH
def test_what_is_missing_is_taken_from_the_next_best_field(written):
    batch = _decoded(
        written(domain_sessionid=""),
        written(domain_sessionid="", domain_userid=""),
        written(domain_sessionid="", domain_userid="", user_id="", network_userid="n"),
        written(derived_tstamp=""),
    )

    assert [c.session for c in clicks(batch)] == [
        key("bc2e92ec6c204a14", USER),
        key("ann", USER),
        key("n", USER),
        key("s-1", SESSION),
    ]
    assert clicks(batch)[3].time_ms == 1385424180000


@BOTH
def test_other_events_are_filtered_and_another_item_can_be_named(written):
    ping = written(event="page_ping", event_name="page_ping")
    struct = written(event="struct", event_name="event", se_label="sku-5")

    assert _decoded(ping, struct).filtered == {"other_kind": 2}
    found = _decoded(ping, struct, item="se_label", only={"event": "struct"})
    assert (one(found).item, found.filtered) == ("sku-5", {"other_kind": 1})


@BOTH
def test_types_are_names_of_events(written):
    batch = _decoded(
        written(event="unstruct", event_name="add_to_cart"),
        written(event_name=""),
        only={},
        types={"add_to_cart": 3, "page_view": 1},
    )

    assert [c.weight for c in clicks(batch)] == [3.0, 1.0]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (_tsv() + b"\t", "malformed"),
        (b"\t".join(_tsv().split(b"\t")[:130]), "malformed"),
        (_json()[:-1], "malformed"),
        (_tsv().replace(b"ann", b"\xff"), "not_utf8"),
        (_tsv(page_urlpath=""), "no_item"),
        (_tsv(derived_tstamp="soon"), "bad_time"),
    ],
)
def test_what_is_no_enriched_event_is_a_dead_letter(record, reason):
    assert reasons(_decoded(record)) == [reason]


def test_a_line_of_a_file_may_end_in_a_carriage_return():
    line = _tsv(true_tstamp="2013-11-26 00:02:05") + b"\r"

    assert one(_decoded(line, time="true_tstamp")).time_ms == 1385424125000
