"""Records as JSON with their time moved: what a run reads of them, and what stays as it was."""

import base64
import gzip
import json

import pytest

from streamer.errors import ConfigError, InvalidEvent
from streamer.replay.formats import (
    FIXED_TIME,
    CsvFormat,
    ValueFormat,
    format_of_file,
    format_of_topic,
)
from streamer.settings.clicks import ClickMapping
from streamer.settings.sources import Clicks, FileSource
from streamer.sources.snowplow import COLUMNS


def test_what_is_not_the_time_stays_to_the_last_byte():
    form = ValueFormat(Clicks())
    raw = (
        b'{"big":12345678901234567890123, "f":1.10,"ts" : 5000 ,"item_id":"\\u00e9","x":{"ts": 1}}'
    )

    moved = form.written(raw, 7).value

    assert moved == (
        b'{"big":12345678901234567890123,"f":1.10,"ts":12000,"item_id":"\\u00e9","x":{"ts": 1}}'
    )


def test_a_time_that_is_kept_leaves_the_whole_record():
    raw = b' {"ts" : 5,  "item_id":"i"} '

    assert ValueFormat(Clicks()).written(raw, 0).value == raw


@pytest.mark.parametrize(
    ("unit", "time", "expected"),
    [
        ("ms", b"5000", b"12000"),
        ("ms", b'"5000"', b'"12000"'),
        ("s", b"5.25", b"12.25"),
        ("iso8601", b'"2017-10-01T03:00:00Z"', b'"2017-10-01T03:00:07Z"'),
    ],
)
def test_a_time_is_moved_in_its_own_unit_and_type(unit, time, expected):
    form = ValueFormat(Clicks(time="when", time_unit=unit))

    assert form.written(b'{"when":%s,"ts":1}' % time, 7).value == b'{"when":%s,"ts":1}' % expected


def test_a_time_inside_an_object_is_moved_there():
    mapping = ClickMapping(preset="segment", time=["sent.at", "timestamp"])
    form = ValueFormat(mapping)
    call = {"type": "track", "userId": "u", "properties": {"product_id": "p", "n": 1.50}}
    time = "2017-10-01T03:00:00Z"
    for placed in ({"timestamp": time}, {"sent": {"by": "x", "at": time}}, {"sent.at": time}):
        raw = json.dumps({**call, **placed}).encode()

        moved = form.written(raw, 7).value

        assert moved.replace(b" ", b"") == raw.replace(b"03:00:00", b"03:00:07").replace(b" ", b"")
        assert form.read(moved).time_ms == form.read(raw).time_ms + 7000


ENRICHED = dict.fromkeys(COLUMNS, "") | {
    "event": "page_view",
    "page_urlpath": "/a",
    "domain_userid": "u",
    "collector_tstamp": "2017-10-01 03:00:00.123",
}


def test_an_enriched_event_stays_columns_between_tabs_or_an_object():
    form = ValueFormat(ClickMapping(preset="snowplow"))
    later = ENRICHED | {"collector_tstamp": "2017-10-01 03:00:07.123"}

    tsv = form.written("\t".join(ENRICHED.values()).encode(), 7).value
    of_json = form.written(json.dumps(ENRICHED).encode(), 7).value

    assert tsv == "\t".join(later.values()).encode()
    assert json.loads(of_json) == later


def test_a_file_of_enriched_events_has_no_header_whatever_its_name(tmp_path):
    path = tmp_path / "enriched.tsv"
    line = "\t".join(ENRICHED.values())
    path.write_text(line + "\n")

    form = format_of_file(path, FileSource(paths=(path,)), ClickMapping(preset="snowplow"))

    assert form.first_line == 0
    assert form.written(line.encode(), 0).value == line.encode()


def test_a_time_that_is_encoded_cannot_be_moved():
    data = b'{"user_id":"u","item_id":"i","at":"2017-10-01T03:00:00Z"}'
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "click"}
    raw = json.dumps({**event, "data_base64": base64.b64encode(data).decode()}).encode()
    form = ValueFormat(ClickMapping(preset="cloudevents", time="data.at"))

    assert form.written(raw, 0).value == raw
    with pytest.raises(InvalidEvent, match="found it encoded") as caught:
        form.written(raw, 7)
    assert caught.value.reason == FIXED_TIME


ATTRIBUTES = (
    ("ce_specversion", b"1.0"),
    ("content-type", b"application/json"),
    ("CE_Time", b"2017-10-01T03:00:00.5Z"),
    ("trace", None),
)
OF_DATA = {"time": "data.at", "time_unit": "ms"}


@pytest.mark.parametrize("own", [{}, OF_DATA])
def test_of_an_event_in_binary_the_attribute_or_the_data_are_moved(own):
    form = format_of_topic("clicks", Clicks(preset="cloudevents", **own))
    raw = b'{"item_id":"i","user_id":"u","at":5000,"n":1.50}'

    moved = form.written(raw, 7, ATTRIBUTES)

    assert form.read(*moved).time_ms == form.read(raw, ATTRIBUTES).time_ms + 7000
    if own:
        assert moved == (raw.replace(b"5000", b"12000"), ATTRIBUTES)
    else:
        later = ("CE_Time", b"2017-10-01T03:00:07.5Z")
        assert moved == (raw, (*ATTRIBUTES[:2], later, ATTRIBUTES[3]))
    assert form.written(raw, 0, ATTRIBUTES) == (raw, ATTRIBUTES)


def test_of_a_structured_event_the_headers_stay():
    form = format_of_topic("clicks", Clicks(preset="cloudevents"))
    told = (("content-type", b"application/cloudevents+json"), ("ce_time", b"of nobody"))
    raw = (
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2017-10-01T03:00:00Z",'
        b'"data":{"item_id":"i","user_id":"u"}}'
    )

    assert form.written(raw, 7, told) == (raw.replace(b"03:00:00", b"03:00:07"), told)


def test_avro_cannot_be_written():
    mapping = ClickMapping(format="avro", schema_registry="http://127.0.0.1:1")

    with pytest.raises(ConfigError, match="found format avro"):
        format_of_topic("clicks", mapping)


@pytest.mark.parametrize(
    ("unit", "time"), [("ms", "1700000000123"), ("s", "5.5"), ("iso8601", "2017-10-01T03:00:00Z")]
)
def test_a_line_of_csv_is_the_same_click_as_json(unit, time):
    settings = Clicks(time_unit=unit)
    header = ["ts", "user_id", "session_id", "note", "item_id"]
    form = CsvFormat(settings, header, ";", "clicks.csv")
    line = f'{time};ann;;"a;b";7'.encode()

    value = form.written(line, 0).value

    assert ValueFormat(settings).read(value) == form.read(line)
    record = json.loads(value)
    assert {name: record[name] for name in record if name != "ts"} == {
        "user_id": "ann",
        "note": "a;b",
        "item_id": "7",
    }
    assert isinstance(record["ts"], str) == (unit == "iso8601")
    assert (
        ValueFormat(settings).read(form.written(line, 9).value).time_ms
        == form.read(line).time_ms + 9000
    )


def test_the_format_of_a_file_is_that_of_a_source(tmp_path):
    csv, packed, lines = tmp_path / "a.csv", tmp_path / "b.tsv.gz", tmp_path / "c.jsonl"
    csv.write_text("user_id,item_id,ts\n")
    packed.write_bytes(gzip.compress(b"user_id\titem_id\tts\n"))
    lines.write_text("{}\n")

    formats = [format_of_file(p, FileSource(paths=(p,)), Clicks()) for p in (csv, packed, lines)]

    assert [one.first_line for one in formats] == [-1, -1, 0]
    assert formats[1].read(b"u\ti\t5") == (b"i", b"u", b"", b"", 5, 1.0)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    for name, content in (("a.txt", ""), ("b.csv", "user_id,ts\n"), ("c.csv", "")):
        path = tmp_path / name
        path.write_text(content)
        with pytest.raises(ConfigError, match="expected"):
            format_of_file(path, FileSource(paths=(path,)), Clicks())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            b'{"a":{"b":{"t":5000,"x":{"y": 1}}},"t":1}',
            b'{"a":{"b":{"t":12000,"x":{"y": 1}}},"t":1}',
        ),
        (b'{"a.b.t":5000,"a":{"b":{"t":1}}}', b'{"a.b.t":12000,"a":{"b":{"t":1}}}'),
        (b'{"a":null,"sent":"5000"}', b'{"a":null,"sent":"12000"}'),
        (b'{"a":{"b":{"t":""}},"sent":5000}', b'{"a":{"b":{"t":""}},"sent":12000}'),
    ],
)
def test_the_time_that_is_moved_is_the_one_that_is_read(raw, expected):
    form = ValueFormat(Clicks(time=["a.b.t", "sent"]))

    assert form.written(raw, 7).value == expected


def test_an_encoded_time_cannot_be_moved():
    form = ValueFormat(Clicks(preset="cloudevents", time="data.at", time_unit="ms"))
    head = b'{"specversion":"1.0","id":"1","source":"s","type":"t",'
    data = b'{"user_id":"u","item_id":"i","at":5000}'
    plain, encoded = (
        head + b'"data":%s}' % data,
        head + b'"data_base64":"%s"}' % base64.b64encode(data),
    )

    assert form.read(encoded) == form.read(plain)
    assert form.written(plain, 7).value == plain.replace(b"5000", b"12000")
    assert form.written(encoded, 0).value == encoded
    with pytest.raises(InvalidEvent, match="'data' as JSON") as found:
        form.written(encoded, 7)
    assert found.value.reason == FIXED_TIME


def test_an_event_of_snowplow_stays_what_it_is():
    form = ValueFormat(Clicks(preset="snowplow"))
    fields = dict.fromkeys(COLUMNS, "")
    fields |= {"event": "page_view", "domain_userid": "u", "page_urlpath": "/i"}
    fields["collector_tstamp"] = "2026-03-01 10:00:00.123"
    tsv = "\t".join(fields.values()).encode()

    moved = form.written(tsv, 7).value

    assert form.read(moved).time_ms == form.read(tsv).time_ms + 7000
    changed = [
        name
        for name, old, new in zip(COLUMNS, tsv.split(b"\t"), moved.split(b"\t"), strict=True)
        if old != new
    ]
    assert changed == ["collector_tstamp"]
    as_json = json.dumps(fields).encode()
    assert form.read(form.written(as_json, 7).value).time_ms == form.read(tsv).time_ms + 7000


def test_csv_of_a_composed_and_weighted_mapping_is_the_same_click_as_json():
    mapping = Clicks(
        item="{kind}:{page.id}",
        user=["login", "cookie"],
        time=["sent", "seen"],
        time_unit="s",
        only={"kind": "news"},
        type="action",
        types={"buy": 4},
        weight="n",
        event_id=["cookie", "seen"],
    )
    header = ["kind", "page.id", "login", "cookie", "sent", "seen", "action", "n"]
    form = CsvFormat(mapping, header, ",", "clicks.csv")
    line = b"news,7,,c,,5.5,buy,2"

    for seconds in (0, 9):
        click = ValueFormat(mapping).read(form.written(line, seconds).value)
        moved = form.read(line)._replace(time_ms=5500 + 1000 * seconds)
        # An event id with the time in it is another one.
        assert click[:3] == moved[:3] == (b"news:7", b"c", b"")
        assert click[4:] == moved[4:] == (5500 + 1000 * seconds, 8.0)


def test_formats_that_are_only_read_are_refused(tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text("user_id,item_id,ts\n")
    avro = Clicks(format="avro", schema_registry="http://localhost:8081")

    with pytest.raises(ConfigError, match=r"clicks of 'plays' .* found format avro"):
        format_of_topic("plays", avro)
    with pytest.raises(ConfigError, match=r"json for 'clicks.csv', .* found avro"):
        format_of_file(path, FileSource(paths=(path,)), avro)
