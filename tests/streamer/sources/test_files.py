"""Files as a source: formats, compression, damage, odd ends, and scripted faults."""

import gzip
import os
import random

import pytest
import zstandard

from state.offsets import Offsets, Partition
from streamer.errors import ConfigError
from streamer.settings import sources as config
from streamer.sources import lines
from streamer.sources.clicks import MAX_RECORD_BYTES
from streamer.sources.files import Aborted, Fault, ScriptedSource
from tests.streamer.sources.opened_files import (
    HEADER,
    PACKERS,
    SteppingClock,
    opened,
    polled,
    refused,
    some_rows,
    write,
)


def test_each_file_has_the_mapping_of_its_name(tmp_path):
    events = write(tmp_path / "events.tsv", "\t".join(["x"] * 131) + "\n{}\n")
    clicks = write(tmp_path / "clicks.csv", "who,sku,ts\nu,a,1\n")
    flat = write(tmp_path / "flat.jsonl", '{"who":"u","item_id":"b","ts":1}\n')
    tables = {
        "events.tsv": {"preset": "snowplow", "only": {}, "time": "se_value", "time_unit": "ms"},
        "clicks.csv": {"item": "sku"},
    }

    source = opened(events, clicks, flat, clicks=config.Clicks(user="who", topics=tables))

    assert polled(source) == [
        ("events.tsv", 0, "bad_time"),
        ("events.tsv", 1, "no_item"),
        ("clicks.csv", 0, "a"),
        ("flat.jsonl", 0, "b"),
    ]


@pytest.mark.parametrize("packed", sorted(PACKERS))
@pytest.mark.parametrize("max_clicks", [1, 100_000])
def test_files_are_read_one_after_another(tmp_path, packed, max_clicks):
    first = write(tmp_path / f"a.csv{packed}", HEADER + some_rows(3))
    second = write(tmp_path / f"b.ndjson{packed}", '{"item_id":"x","user_id":1,"ts":2}\n' * 2)

    source = opened(first, second)

    assert polled(source, max_clicks) == [
        (first.name, 0, "i0"),
        (first.name, 1, "i1"),
        (first.name, 2, "i2"),
        (second.name, 0, "x"),
        (second.name, 1, "x"),
    ]
    assert source.is_exhausted()


@pytest.mark.parametrize("packed", sorted(PACKERS))
def test_lines_that_cross_blocks_are_whole(tmp_path, packed, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 37)
    monkeypatch.setattr(lines, "PIECE_BYTES", 11)
    path = write(tmp_path / f"a.csv{packed}", HEADER + some_rows(500))

    assert polled(opened(path)) == [(path.name, i, f"i{i}") for i in range(500)]


def test_several_streams_in_one_compressed_file_are_one_content(tmp_path):
    gz, zst = tmp_path / "a.csv.gz", tmp_path / "b.csv.zst"
    gz.write_bytes(
        gzip.compress((HEADER + "0,u,s,i").encode()) + gzip.compress(b"0\n") + b"\0" * 99
    )
    zst.write_bytes(zstandard.compress((HEADER + "0,u,s,i").encode()) + zstandard.compress(b"0\n"))

    assert polled(opened(gz, zst)) == [("a.csv.gz", 0, "i0"), ("b.csv.zst", 0, "i0")]


def test_blank_lines_are_no_records_but_have_a_number(tmp_path):
    path = write(tmp_path / "a.csv", HEADER + "\n0,u,s,a\r\n\r\n\n1,u,s,b\n\n")

    source = opened(path)

    assert polled(source) == [("a.csv", 1, "a"), ("a.csv", 4, "b")]
    assert source.position()[Partition("a.csv", 0)] == 5


def test_the_last_line_needs_no_end(tmp_path):
    path = write(tmp_path / "a.csv", HEADER + "0,u,s,a\n1,u,s,b")

    assert polled(opened(path)) == [("a.csv", 0, "a"), ("a.csv", 1, "b")]


@pytest.mark.parametrize("text", ["", HEADER, HEADER.strip(), HEADER + "\n\n"])
@pytest.mark.parametrize("packed", sorted(PACKERS))
def test_a_file_without_clicks_is_read_to_its_end(tmp_path, text, packed):
    path = write(tmp_path / f"a.csv{packed}", text)

    source = opened(path)

    assert source.poll(1.0, 10) is None
    assert source.is_exhausted()


def test_a_compressed_file_of_no_bytes_is_empty(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.touch()

    assert polled(opened(path)) == []


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_and_quoted_names_in_a_header_are_understood(tmp_path, mark):
    csv = write(tmp_path / "a.csv", mark + b'"ts","user_id",item_id\n1,u,a\n')
    json = write(tmp_path / "b.json", mark + b'{"ts":1,"user_id":"u","item_id":"b"}\n')

    assert polled(opened(csv, json)) == [("a.csv", 0, "a"), ("b.json", 0, "b")]


def test_tabs_divide_a_tsv_and_a_delimiter_can_be_set(tmp_path):
    tsv = write(tmp_path / "a.tsv", HEADER.replace(",", "\t") + "1\tu\ts\ta,b\n")
    csv = write(tmp_path / "b.csv", HEADER.replace(",", ";") + "1;u;s;c\n")

    assert polled(opened(tsv)) == [("a.tsv", 0, "a,b")]
    assert polled(opened(csv, delimiter=";")) == [("b.csv", 0, "c")]


def test_a_format_that_is_set_goes_before_the_name(tmp_path):
    path = write(tmp_path / "clicks.log", HEADER + some_rows(1))

    assert polled(opened(path, format="csv")) == [("clicks.log", 0, "i0")]


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_line_longer_than_a_block_is_a_record(tmp_path, quote):
    session = quote + "x" * (3 << 20) + quote
    path = write(tmp_path / "a.csv", HEADER + f"1,u,{session},a\n2,u,s,b\n")

    assert [row[2] for row in polled(opened(path))] == ["a", "b"]


@pytest.mark.parametrize("end", ["\n2,u,s,b\n", "\n", ""])
def test_a_line_longer_than_the_bound_is_a_dead_letter(tmp_path, end):
    whole = "1,u," + "x" * (MAX_RECORD_BYTES - 6) + ",a"
    path = write(tmp_path / "a.csv", HEADER + whole + "\n" + whole + "x" + end)

    source = opened(path)
    rows, letters = [], []
    while (batch := source.poll(0.0, 1)) is not None:
        rows += [int(at) for at in batch.offsets]
        letters += batch.dead_letters

    assert rows == ([0, 2] if "b" in end else [0])
    assert [(one.offset, one.reason, len(one.raw)) for one in letters] == [(1, "malformed", 4096)]


def test_what_is_far_longer_than_the_bound_is_not_held(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(b"x" * (1 << 20))
        file.write(b'\n{"ts":1,"user_id":"u","item_id":"b"}\n')
    reader = lines.Lines(path, 0, False)

    records = reader.read()

    assert records.offsets.tolist() == [0, 1]
    assert records.lengths.tolist() == [-2, 36]
    assert len(records.buffer) < 3 << 20
    reader.close()


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_truncated_file_gives_what_is_there_and_then_an_error(tmp_path, packed):
    path = write(tmp_path / f"a.csv{packed}", HEADER + _noise(20_000))
    path.write_bytes(path.read_bytes()[:-1000])

    rows, message = _until_error(opened(path))

    assert len(rows) > 15_000
    assert [row[1] for row in rows] == list(range(len(rows)))
    assert str(path) in message
    assert f"behind line {len(rows)}" in message


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_damaged_file_gives_what_came_before_and_then_an_error(tmp_path, packed):
    path = write(tmp_path / f"a.csv{packed}", HEADER + some_rows(2000) + "2000,u,s,unf")
    path.write_bytes(path.read_bytes() + b"\x01damage")

    rows, message = _until_error(opened(path))

    assert [row[1] for row in rows] == list(range(2000))
    assert f"damage near byte {path.stat().st_size // 4096 * 4096}" in message
    assert "behind line 2000" in message


def test_a_sum_that_does_not_match_is_an_error(tmp_path):
    path = write(tmp_path / "a.csv.gz", HEADER + some_rows(2000))
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)

    assert "incorrect data check" in _until_error(opened(path))[1]


def _noise(n):
    dice = random.Random(3)
    return "".join(f"{i},u,s,{dice.getrandbits(64):x}\n" for i in range(n))


def _poll_offsets(source, rows):
    while (batch := source.poll(0.0, 100_000)) is not None:
        rows += [(None, int(at)) for at in batch.offsets]


def _until_error(source):
    rows = []
    with pytest.raises(ConfigError) as caught:
        _poll_offsets(source, rows)
    position = source.position()
    with pytest.raises(ConfigError):
        source.poll(0.0, 1)
    assert source.position() == position
    return rows, str(caught.value)


def test_all_faults_of_all_files_are_reported_at_once(tmp_path):
    (tmp_path / "directory.csv").mkdir()
    good = write(tmp_path / "good.csv", HEADER)
    not_gz = tmp_path / "text.csv.gz"
    not_gz.write_bytes(b"ts,user_id\n")
    columns = write(tmp_path / "columns.csv", "a,b\n")

    faults = refused(tmp_path / "nothing.csv", tmp_path / "directory.csv", good, not_gz, columns)

    assert len(faults) == 4
    assert "nothing.csv: expected a file that can be read, found: no such file" in faults[0]
    assert "directory.csv: expected a file, found a directory" in faults[1]
    assert "text.csv.gz: expected whole compressed data" in faults[2]
    assert "columns.csv: expected item column 'item_id'" in faults[3]
    assert "['a', 'b']" in faults[3]
    assert "source.files.delimiter not right, or the first line no header?" in faults[3]


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", HEADER)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")

    assert "permission denied" in refused(path)[0]


def test_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    paths = write(tmp_path / "a.csv", HEADER), write(tmp_path / "b" / "a.csv", HEADER)

    assert "'a.csv' twice" in refused(*paths)[0]


@pytest.mark.parametrize("name", ["clicks", "clicks.parquet", "clicks.gz"])
def test_a_name_that_tells_no_format_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")

    assert "source.files.format" in refused(path)[0]


@pytest.mark.parametrize("text", [b"\xff\xfe\n", b'"a\n', b"\n1,2\n"])
def test_a_header_that_is_none_is_refused(tmp_path, text):
    assert "a.csv" in refused(write(tmp_path / "a.csv", text))[0]


def test_a_delimiter_that_cannot_divide_is_refused(tmp_path):
    assert "delimiter" in refused(write(tmp_path / "a.csv", HEADER), delimiter='"')[0]


def test_a_seek_reads_what_a_finished_file_has_gained(tmp_path):
    first = write(tmp_path / "a.csv", HEADER + some_rows(5))
    second = write(tmp_path / "b.csv", HEADER + some_rows(5))
    source = opened(first, second)

    source.seek(Offsets({Partition("a.csv", 0): 3, Partition("b.csv", 0): 4}), {})

    assert [row[:2] for row in polled(source)] == [("a.csv", 3), ("a.csv", 4), ("b.csv", 4)]


def test_a_seek_to_the_end_is_exhausted_before_the_first_poll(tmp_path):
    source = opened(write(tmp_path / "a.csv", HEADER + some_rows(5)))

    source.seek(Offsets({Partition("a.csv", 0): 5}), {})

    assert source.is_exhausted()
    assert source.poll(5.0, 1) is None


def test_a_seek_behind_the_end_says_that_the_file_was_replaced(tmp_path):
    source = opened(write(tmp_path / "a.csv", HEADER + some_rows(5)))

    with pytest.raises(ConfigError, match=r"a\.csv: expected at least 6 lines.* found 5"):
        source.seek(Offsets({Partition("a.csv", 0): 6}), {})


@pytest.mark.parametrize("name", ["A.CSV", "A.Csv.GZ", "A.TSV", "a.csv.ZST", "a.JSONL"])
def test_an_extension_in_capitals_is_recognised(tmp_path, name):
    text = HEADER + "1,u,s,a\n"
    if "TSV" in name:
        text = text.replace(",", "\t")
    if "JSONL" in name:
        text = '{"ts":1,"user_id":"u","item_id":"a"}\n'
    pack = PACKERS.get((tmp_path / name).suffix.lower(), PACKERS[""])
    path = tmp_path / name
    path.write_bytes(pack(text.encode()))

    assert polled(opened(path)) == [(name, 0, "a")]


def test_a_script_can_pause_abort_and_end_a_stream(tmp_path):
    path = write(tmp_path / "a.csv", HEADER + some_rows(9))
    files = config.FileSource(paths=(path,))
    script = {2: Fault.PAUSE, 4: Fault.ABORT, 7: Fault.END}
    source = ScriptedSource(files, config.Clicks(), SteppingClock(), script)

    polls = [source.poll(0.0, 100) for _ in range(3)]
    with pytest.raises(Aborted):
        source.poll(0.0, 100)
    position = source.position()
    polls += [source.poll(0.0, 100), source.poll(0.0, 100)]

    assert [batch and batch.offsets.tolist() for batch in polls] == [
        [0, 1],
        None,
        [2, 3],
        [4, 5, 6],
        None,
    ]
    assert position == Offsets({Partition("a.csv", 0): 4})
    assert source.is_exhausted()
