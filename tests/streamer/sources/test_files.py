"""Files as a source: formats, compression, damage, odd ends, following, and scripted faults."""

import gzip
import os
import random
import zlib

import pytest
import zstandard

from state.offsets import Offsets, Partition
from streamer.errors import ConfigError
from streamer.settings import sources as config
from streamer.sources import lines
from streamer.sources.clicks import MAX_RECORD_BYTES
from streamer.sources.files import Aborted, Fault, FileSource, ScriptedSource

HEADER = "ts,user_id,session_id,item_id\n"
PACKERS = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


class SteppingClock:
    """A clock that moves only when somebody sleeps, and then lets `on_sleep` happen."""

    def __init__(self):
        self.seconds = 0.0
        self.on_sleep = lambda: None

    def now_ms(self):
        return int(self.seconds * 1000)

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        assert seconds > 0
        self.seconds += seconds
        self.on_sleep()


OPENED = []


@pytest.fixture(autouse=True)
def _close_sources():
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def clock():
    return SteppingClock()


def _rows(n, first=0):
    return "".join(f"{i},u,s,i{i}\n" for i in range(first, first + n))


def _write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(PACKERS[path.suffix if path.suffix in PACKERS else ""](data))
    return path


def _source(*paths, clock=None, clicks=None, **settings):
    files = config.FileSource(paths=paths, **settings)
    source = FileSource(files, clicks or config.Clicks(), clock or SteppingClock())
    OPENED.append(source)
    return source


def test_each_file_has_the_mapping_of_its_name(tmp_path):
    events = _write(tmp_path / "events.tsv", "\t".join(["x"] * 131) + "\n{}\n")
    clicks = _write(tmp_path / "clicks.csv", "who,sku,ts\nu,a,1\n")
    flat = _write(tmp_path / "flat.jsonl", '{"who":"u","item_id":"b","ts":1}\n')
    tables = {
        "events.tsv": {"preset": "snowplow", "only": {}, "time": "se_value", "time_unit": "ms"},
        "clicks.csv": {"item": "sku"},
    }

    source = _source(events, clicks, flat, clicks=config.Clicks(user="who", topics=tables))

    assert _polled(source) == [
        ("events.tsv", 0, "bad_time"),
        ("events.tsv", 1, "no_item"),
        ("clicks.csv", 0, "a"),
        ("flat.jsonl", 0, "b"),
    ]


def _item(batch, i):
    start = batch.item_starts[i]
    return batch.buffer[start : start + batch.item_lengths[i]].tobytes().decode()


def _polled(source, max_clicks=1_000_000):
    """Read to the end; return (file, offset, item or reason) of each record."""
    found = []
    while (batch := source.poll(0.0, max_clicks)) is not None:
        name = batch.partition.topic
        rows = [(name, int(at), _item(batch, i)) for i, at in enumerate(batch.offsets)]
        rows += [(name, letter.offset, letter.reason) for letter in batch.dead_letters]
        found += sorted(rows)
    return found


def _refused(*paths, **settings):
    with pytest.raises(ConfigError) as caught:
        _source(*paths, **settings)
    return caught.value.faults


@pytest.mark.parametrize("packed", sorted(PACKERS))
@pytest.mark.parametrize("max_clicks", [1, 100_000])
def test_files_are_read_one_after_another(tmp_path, packed, max_clicks):
    first = _write(tmp_path / f"a.csv{packed}", HEADER + _rows(3))
    second = _write(tmp_path / f"b.ndjson{packed}", '{"item_id":"x","user_id":1,"ts":2}\n' * 2)

    source = _source(first, second)

    assert _polled(source, max_clicks) == [
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
    path = _write(tmp_path / f"a.csv{packed}", HEADER + _rows(500))

    assert _polled(_source(path)) == [(path.name, i, f"i{i}") for i in range(500)]


def test_several_streams_in_one_compressed_file_are_one_content(tmp_path):
    gz, zst = tmp_path / "a.csv.gz", tmp_path / "b.csv.zst"
    gz.write_bytes(
        gzip.compress((HEADER + "0,u,s,i").encode()) + gzip.compress(b"0\n") + b"\0" * 99
    )
    zst.write_bytes(zstandard.compress((HEADER + "0,u,s,i").encode()) + zstandard.compress(b"0\n"))

    assert _polled(_source(gz, zst)) == [("a.csv.gz", 0, "i0"), ("b.csv.zst", 0, "i0")]


def test_blank_lines_are_no_records_but_have_a_number(tmp_path):
    path = _write(tmp_path / "a.csv", HEADER + "\n0,u,s,a\r\n\r\n\n1,u,s,b\n\n")

    source = _source(path)

    assert _polled(source) == [("a.csv", 1, "a"), ("a.csv", 4, "b")]
    assert source.position()[Partition("a.csv", 0)] == 5


def test_the_last_line_needs_no_end(tmp_path):
    path = _write(tmp_path / "a.csv", HEADER + "0,u,s,a\n1,u,s,b")

    assert _polled(_source(path)) == [("a.csv", 0, "a"), ("a.csv", 1, "b")]


@pytest.mark.parametrize("text", ["", HEADER, HEADER.strip(), HEADER + "\n\n"])
@pytest.mark.parametrize("packed", sorted(PACKERS))
def test_a_file_without_clicks_is_read_to_its_end(tmp_path, text, packed):
    path = _write(tmp_path / f"a.csv{packed}", text)

    source = _source(path)

    assert source.poll(1.0, 10) is None
    assert source.is_exhausted()


def test_a_compressed_file_of_no_bytes_is_empty(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.touch()

    assert _polled(_source(path)) == []


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_and_quoted_names_in_a_header_are_understood(tmp_path, mark):
    csv = _write(tmp_path / "a.csv", mark + b'"ts","user_id",item_id\n1,u,a\n')
    json = _write(tmp_path / "b.json", mark + b'{"ts":1,"user_id":"u","item_id":"b"}\n')

    assert _polled(_source(csv, json)) == [("a.csv", 0, "a"), ("b.json", 0, "b")]


def test_tabs_divide_a_tsv_and_a_delimiter_can_be_set(tmp_path):
    tsv = _write(tmp_path / "a.tsv", HEADER.replace(",", "\t") + "1\tu\ts\ta,b\n")
    csv = _write(tmp_path / "b.csv", HEADER.replace(",", ";") + "1;u;s;c\n")

    assert _polled(_source(tsv)) == [("a.tsv", 0, "a,b")]
    assert _polled(_source(csv, delimiter=";")) == [("b.csv", 0, "c")]


def test_a_format_that_is_set_goes_before_the_name(tmp_path):
    path = _write(tmp_path / "clicks.log", HEADER + _rows(1))

    assert _polled(_source(path, format="csv")) == [("clicks.log", 0, "i0")]


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_line_longer_than_a_block_is_a_record(tmp_path, quote):
    session = quote + "x" * (3 << 20) + quote
    path = _write(tmp_path / "a.csv", HEADER + f"1,u,{session},a\n2,u,s,b\n")

    assert [row[2] for row in _polled(_source(path))] == ["a", "b"]


@pytest.mark.parametrize("end", ["\n2,u,s,b\n", "\n", ""])
def test_a_line_longer_than_the_bound_is_a_dead_letter(tmp_path, end):
    whole = "1,u," + "x" * (MAX_RECORD_BYTES - 6) + ",a"
    path = _write(tmp_path / "a.csv", HEADER + whole + "\n" + whole + "x" + end)

    source = _source(path)
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
    path = _write(tmp_path / f"a.csv{packed}", HEADER + _noise(20_000))
    path.write_bytes(path.read_bytes()[:-1000])

    rows, message = _until_error(_source(path))

    assert len(rows) > 15_000
    assert [row[1] for row in rows] == list(range(len(rows)))
    assert str(path) in message
    assert f"behind line {len(rows)}" in message


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_damaged_file_gives_what_came_before_and_then_an_error(tmp_path, packed):
    path = _write(tmp_path / f"a.csv{packed}", HEADER + _rows(2000) + "2000,u,s,unf")
    path.write_bytes(path.read_bytes() + b"\x01damage")

    rows, message = _until_error(_source(path))

    assert [row[1] for row in rows] == list(range(2000))
    assert f"damage near byte {path.stat().st_size // 4096 * 4096}" in message
    assert "behind line 2000" in message


def test_a_sum_that_does_not_match_is_an_error(tmp_path):
    path = _write(tmp_path / "a.csv.gz", HEADER + _rows(2000))
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)

    assert "incorrect data check" in _until_error(_source(path))[1]


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
    good = _write(tmp_path / "good.csv", HEADER)
    not_gz = tmp_path / "text.csv.gz"
    not_gz.write_bytes(b"ts,user_id\n")
    columns = _write(tmp_path / "columns.csv", "a,b\n")

    faults = _refused(tmp_path / "nothing.csv", tmp_path / "directory.csv", good, not_gz, columns)

    assert len(faults) == 4
    assert "nothing.csv: expected a file that can be read, found: no such file" in faults[0]
    assert "directory.csv: expected a file, found a directory" in faults[1]
    assert "text.csv.gz: expected whole compressed data" in faults[2]
    assert "columns.csv: expected item column 'item_id'" in faults[3]
    assert "['a', 'b']" in faults[3]
    assert "source.files.delimiter not right, or the first line no header?" in faults[3]


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = _write(tmp_path / "a.csv", HEADER)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")

    assert "permission denied" in _refused(path)[0]


def test_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    paths = _write(tmp_path / "a.csv", HEADER), _write(tmp_path / "b" / "a.csv", HEADER)

    assert "'a.csv' twice" in _refused(*paths)[0]


@pytest.mark.parametrize("name", ["clicks", "clicks.parquet", "clicks.gz"])
def test_a_name_that_tells_no_format_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")

    assert "source.files.format" in _refused(path)[0]


@pytest.mark.parametrize("text", [b"\xff\xfe\n", b'"a\n', b"\n1,2\n"])
def test_a_header_that_is_none_is_refused(tmp_path, text):
    assert "a.csv" in _refused(_write(tmp_path / "a.csv", text))[0]


def test_a_delimiter_that_cannot_divide_is_refused(tmp_path):
    assert "delimiter" in _refused(_write(tmp_path / "a.csv", HEADER), delimiter='"')[0]


def test_a_seek_reads_what_a_finished_file_has_gained(tmp_path):
    first = _write(tmp_path / "a.csv", HEADER + _rows(5))
    second = _write(tmp_path / "b.csv", HEADER + _rows(5))
    source = _source(first, second)

    source.seek(Offsets({Partition("a.csv", 0): 3, Partition("b.csv", 0): 4}), {})

    assert [row[:2] for row in _polled(source)] == [("a.csv", 3), ("a.csv", 4), ("b.csv", 4)]


def test_a_seek_to_the_end_is_exhausted_before_the_first_poll(tmp_path):
    source = _source(_write(tmp_path / "a.csv", HEADER + _rows(5)))

    source.seek(Offsets({Partition("a.csv", 0): 5}), {})

    assert source.is_exhausted()
    assert source.poll(5.0, 1) is None


def test_a_seek_behind_the_end_says_that_the_file_was_replaced(tmp_path):
    source = _source(_write(tmp_path / "a.csv", HEADER + _rows(5)))

    with pytest.raises(ConfigError, match=r"a\.csv: expected at least 6 lines.* found 5"):
        source.seek(Offsets({Partition("a.csv", 0): 6}), {})


MARKED = ["", ".gz", ".zst"]
ODD_ENDS = "\n0,u,s,a\r\n\r\n\n1,u,s,b\n2,u,s,c\n\n3,u,s,d\n\n"
A = Partition("a.csv", 0)


def _read_to(source, n_records):
    """Poll so many records; return the state to go on from."""
    while n_records > 0:
        n_records -= source.poll(0.0, n_records).n_read
    return source.position(), source.marks()


def _gone_on(path, state, **settings):
    source = _source(path, **settings)
    source.seek(*state)
    return _polled(source)


@pytest.mark.parametrize("packed", MARKED)
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_mark_is_the_sum_of_the_content_wherever_it_is_cut(
    tmp_path, packed, block, step, monkeypatch
):
    path = _write(tmp_path / f"a.csv{packed}", HEADER + ODD_ENDS + _rows(20))
    content = (HEADER + ODD_ENDS + _rows(20)).encode().split(b"\n")
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    monkeypatch.setattr(lines, "PIECE_BYTES", 5)
    partition = Partition(path.name, 0)
    source = _source(path)

    marks = {}
    while source.poll(0.0, step) is not None:
        marks[source.position()[partition]] = source.marks()[partition]

    assert 29 in marks
    for n, mark in marks.items():
        before = b"\n".join(content[: n + 1]).removesuffix(b"\r")
        assert mark == f"crc32:{zlib.crc32(before):08x}"
        again = _source(path)
        again.seek(Offsets({partition: n}), {partition: mark})
        _polled(again, step)
        assert again.marks() == source.marks()


@pytest.mark.parametrize("packed", MARKED)
@pytest.mark.parametrize(
    "other",
    [
        HEADER + _rows(9).replace("i0", "j0"),
        HEADER + "".join(reversed(_rows(9).splitlines(keepends=True))),
        HEADER + _rows(9, first=5),
        HEADER.replace("\n", ",page\n") + _rows(9).replace("\n", ",1\n"),
        (HEADER + _rows(9)).replace(",", ";"),
        HEADER.replace("\n", "\r\n") + _rows(9),
        HEADER + "\n" * 5 + _rows(9),
        HEADER + _rows(1) + _rows(9),
    ],
)
def test_a_file_that_was_replaced_is_refused(tmp_path, packed, other):
    path = _write(tmp_path / f"a.csv{packed}", HEADER + _rows(9))
    state = _read_to(_source(path), 5)
    _write(path, other)
    source = _source(path, delimiter=";" if ";" in other else ",")

    with pytest.raises(ConfigError, match=r"expected the file whose first 5 lines.*\(crc32:"):
        source.seek(*state)
    with pytest.raises(ConfigError, match="expected the file"):
        source.poll(0.0, 1)
    _write(path, HEADER + _rows(5) + "other,u,s,x\n")
    assert [row[1] for row in _gone_on(path, state)] == [5]


def test_a_file_that_is_read_in_another_format_is_refused(tmp_path):
    path = _write(tmp_path / "clicks", HEADER + _rows(9))
    state = _read_to(_source(path, format="csv"), 5)

    with pytest.raises(ConfigError, match="expected the file whose first 5 lines"):
        _source(path, format="jsonl").seek(*state)


@pytest.mark.parametrize("grown", ["fee\n", "fee", "fee\n2,u,s,c\n", " ", "\r\r\n"])
@pytest.mark.parametrize("packed", MARKED)
def test_a_last_line_that_was_read_and_has_grown_is_refused(tmp_path, grown, packed):
    text = HEADER + "0,u,s,a\n1,u,s,cof"
    path = _write(tmp_path / f"a.csv{packed}", text)
    state = _read_to(_source(path), 2)
    _write(path, text + grown)

    with pytest.raises(ConfigError, match="an unfinished last line that has grown"):
        _source(path).seek(*state)


def test_a_last_line_that_was_read_and_grows_while_followed_is_refused(tmp_path):
    path = _write(tmp_path / "a.csv", HEADER + "0,u,s,cof")
    state = _read_to(_source(path), 1)
    source = _source(path, follow=True)
    source.seek(*state)
    with path.open("a") as file:
        file.write("fee\n1,u,s,b\n")

    with pytest.raises(ConfigError, match="an unfinished last line that has grown"):
        source.poll(0.0, 1)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", "\n\n"])
@pytest.mark.parametrize("added", ["", "\n", "\r\n", "\n2,u,s,c\n", "\r\n\n2,u,s,c"])
@pytest.mark.parametrize("packed", MARKED)
def test_a_file_that_was_appended_to_goes_on(tmp_path, end, added, packed):
    if end == "\r" and not added.startswith("\n"):
        pytest.skip("half an end, and then another one")
    text = HEADER + "0,u,s,a\n1,u,s,b" + end
    path = _write(tmp_path / f"a.csv{packed}", text)
    source = _source(path)
    _polled(source)
    _write(path, text + added)

    found = _gone_on(path, (source.position(), source.marks()))

    assert [row[2] for row in found] == (["c"] if "c" in added else [])


@pytest.mark.parametrize("packed", MARKED)
@pytest.mark.parametrize("at", [0, 5000, MAX_RECORD_BYTES + (3 << 20)])
def test_what_is_too_long_to_hold_is_in_the_mark(tmp_path, packed, at):
    long = bytearray(b"x" * (MAX_RECORD_BYTES + (4 << 20)))
    path = tmp_path / f"a.csv{packed}"
    _write(path, HEADER.encode() + long + b"\r")
    state = _read_to(_source(path), 1)
    _write(path, HEADER.encode() + long + b"\r\n0,u,s,a\n")
    assert [row[2] for row in _gone_on(path, state)] == ["a"]
    assert state[1] == {Partition(path.name, 0): f"crc32:{zlib.crc32(HEADER.encode() + long):08x}"}

    long[at] ^= 1
    _write(path, HEADER.encode() + long + b"\r\n0,u,s,a\n")

    with pytest.raises(ConfigError, match="expected the file whose first 1 lines"):
        _source(path).seek(*state)


def test_a_position_without_a_mark_is_not_compared(tmp_path):
    path = _write(tmp_path / "a.csv", HEADER + _rows(9, first=5))

    assert [row[1] for row in _gone_on(path, (Offsets({A: 5}), {}))] == [5, 6, 7, 8]


def test_nothing_read_has_no_mark_and_another_file_may_take_its_place(tmp_path):
    path = _write(tmp_path / "a.csv", HEADER)
    source = _source(path)
    _polled(source)
    _write(path, HEADER.replace("\n", ",page\n") + "0,u,s,a,p\n")

    assert source.marks() == {}
    assert [row[2] for row in _gone_on(path, (source.position(), source.marks()))] == ["a"]


def test_a_file_behind_others_is_compared_when_its_turn_comes(tmp_path):
    first = _write(tmp_path / "a.csv", HEADER + _rows(2))
    second = _write(tmp_path / "b.csv", HEADER + _rows(2))
    source = _source(first, second)
    state = _read_to(source, 3)
    _write(first, HEADER + _rows(3))
    _write(second, HEADER + _rows(2, first=5))
    source = _source(first, second)

    source.seek(*state)

    assert source.poll(0.0, 10).partition == A
    with pytest.raises(ConfigError, match=r"b\.csv: expected the file whose first 1 lines"):
        source.poll(0.0, 10)


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

    assert _polled(_source(path)) == [(name, 0, "a")]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_followed_file_whose_name_goes_to_another_is_an_error(tmp_path, is_there):
    path = _write(tmp_path / "a.csv", HEADER + _rows(9))
    source = _source(path, follow=True)
    source.poll(0.0, 4)
    path.rename(tmp_path / "a.csv.1")
    if is_there:
        _write(path, HEADER + _rows(99))

    assert source.poll(0.0, 100).n_read == 5
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"a\.csv: expected the file that is being followed"):
            source.poll(0.0, 1)


def test_a_poll_at_the_end_waits_no_longer_than_it_may(tmp_path, clock):
    path = _write(tmp_path / "a.csv", HEADER + _rows(1))
    source = _source(path, clock=clock, follow=True)
    source.poll(0.0, 10)

    assert source.poll(0.0, 10) is None
    assert clock.seconds == 0.0
    assert source.poll(0.3, 10) is None
    assert clock.seconds == pytest.approx(0.3)
    assert not source.is_exhausted()
    assert not list(source.ended())
    assert list(source.caught_up()) == [Partition("a.csv", 0)]
    assert source.lag().clicks == 0


def test_an_exhausted_source_does_not_wait(tmp_path, clock):
    source = _source(_write(tmp_path / "a.csv", HEADER), clock=clock)

    assert source.poll(9.0, 1) is None
    assert clock.seconds == 0.0


def test_a_paused_source_waits_instead_of_spinning(tmp_path, clock):
    source = _source(_write(tmp_path / "a.csv", HEADER + _rows(1)), clock=clock)
    source.pause()

    assert source.poll(0.2, 1) is None
    assert clock.seconds == pytest.approx(0.2)


def test_a_followed_file_gives_lines_once_they_have_an_end(tmp_path, clock):
    first = _write(tmp_path / "a.csv", HEADER + "0,u,s,a")
    path = _write(tmp_path / "b.csv", "")
    source = _source(first, path, clock=clock, follow=True)
    written = iter([HEADER[:5], HEADER[5:] + "0,u,", "s,b\n1,u,s,", "c", "c\n"])

    def append():
        with path.open("a") as file:
            file.write(next(written, ""))

    clock.on_sleep = append
    found = []
    while (batch := source.poll(0.5, 10)) is not None:
        found.append((batch.partition.topic, int(batch.offsets[0]), _item(batch, 0)))

    assert found == [("a.csv", 0, "a"), ("b.csv", 0, "b"), ("b.csv", 1, "cc")]


def test_a_followed_file_that_is_cut_back_is_an_error(tmp_path):
    path = _write(tmp_path / "a.csv", HEADER + _rows(9))
    source = _source(path, follow=True)
    source.poll(0.0, 100)
    _write(path, HEADER)

    with pytest.raises(ConfigError, match="only grows"):
        source.poll(0.0, 1)


def test_a_compressed_file_cannot_be_followed(tmp_path):
    packed = _write(tmp_path / "a.csv.gz", HEADER)
    plain = _write(tmp_path / "b.csv", HEADER)

    assert "to follow" in _refused(plain, packed, follow=True)[0]
    assert _source(packed, plain, follow=True).poll(0.0, 1) is None


def test_a_script_can_pause_abort_and_end_a_stream(tmp_path):
    path = _write(tmp_path / "a.csv", HEADER + _rows(9))
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
