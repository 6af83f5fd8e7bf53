"""Records as JSON with their time moved: what a run reads of them, and what stays as it was."""

import gzip
import json

import pytest

from streamer.errors import ConfigError
from streamer.replay.formats import CsvFormat, ValueFormat, format_of_file
from streamer.settings.sources import Clicks, FileSource


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


def test_the_format_of_file_a_file_is_that_of_a_source(tmp_path):
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
