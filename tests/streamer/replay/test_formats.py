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

    moved = form.written(raw, 7)

    assert moved == (
        b'{"big":12345678901234567890123,"f":1.10,"ts":12000,"item_id":"\\u00e9","x":{"ts": 1}}'
    )


def test_a_time_that_is_kept_leaves_the_whole_record():
    raw = b' {"ts" : 5,  "item_id":"i"} '

    assert ValueFormat(Clicks()).written(raw, 0) == raw


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

    assert form.written(b'{"when":%s,"ts":1}' % time, 7) == b'{"when":%s,"ts":1}' % expected


def test_a_time_inside_an_object_is_moved_there():
    mapping = ClickMapping(preset="segment", time=["sent.at", "timestamp"])
    form = ValueFormat(mapping)
    call = {"type": "track", "userId": "u", "properties": {"product_id": "p", "n": 1.50}}
    time = "2017-10-01T03:00:00Z"
    for placed in ({"timestamp": time}, {"sent": {"by": "x", "at": time}}, {"sent.at": time}):
        raw = json.dumps({**call, **placed}).encode()

        moved = form.written(raw, 7)

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

    tsv = form.written("\t".join(ENRICHED.values()).encode(), 7)
    of_json = form.written(json.dumps(ENRICHED).encode(), 7)

    assert tsv == "\t".join(later.values()).encode()
    assert json.loads(of_json) == later


def test_a_file_of_enriched_events_has_no_header_whatever_its_name(tmp_path):
    path = tmp_path / "enriched.tsv"
    line = "\t".join(ENRICHED.values())
    path.write_text(line + "\n")

    form = format_of_file(path, FileSource(paths=(path,)), ClickMapping(preset="snowplow"))

    assert form.first_line == 0
    assert form.written(line.encode(), 0) == line.encode()


def test_a_time_that_is_encoded_cannot_be_moved():
    data = b'{"user_id":"u","item_id":"i","at":"2017-10-01T03:00:00Z"}'
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "click"}
    raw = json.dumps({**event, "data_base64": base64.b64encode(data).decode()}).encode()
    form = ValueFormat(ClickMapping(preset="cloudevents", time="data.at"))

    assert form.written(raw, 0) == raw
    with pytest.raises(InvalidEvent, match="found it encoded") as caught:
        form.written(raw, 7)
    assert caught.value.reason == FIXED_TIME


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

    value = form.written(line, 0)

    assert ValueFormat(settings).read(value) == form.read(line)
    record = json.loads(value)
    assert {name: record[name] for name in record if name != "ts"} == {
        "user_id": "ann",
        "note": "a;b",
        "item_id": "7",
    }
    assert isinstance(record["ts"], str) == (unit == "iso8601")
    assert (
        ValueFormat(settings).read(form.written(line, 9)).time_ms == form.read(line).time_ms + 9000
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
