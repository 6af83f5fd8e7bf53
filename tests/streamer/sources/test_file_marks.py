"""A file is known again by the sum of the lines that were read, and another is refused."""

import zlib

import pytest

from state.offsets import Offsets, Partition
from streamer.errors import ConfigError
from streamer.sources import lines
from streamer.sources.clicks import MAX_RECORD_BYTES
from tests.streamer.sources.opened_files import HEADER, opened, polled, some_rows, write

MARKED = ["", ".gz", ".zst"]
ODD_ENDS = "\n0,u,s,a\r\n\r\n\n1,u,s,b\n2,u,s,c\n\n3,u,s,d\n\n"
A = Partition("a.csv", 0)


def _read_to(source, n_records):
    """Poll so many records; return the state to go on from."""
    while n_records > 0:
        n_records -= source.poll(0.0, n_records).n_read
    return source.position(), source.marks()


def _gone_on(path, state, **settings):
    source = opened(path, **settings)
    source.seek(*state)
    return polled(source)


@pytest.mark.parametrize("packed", MARKED)
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_mark_is_the_sum_of_the_content_wherever_it_is_cut(
    tmp_path, packed, block, step, monkeypatch
):
    path = write(tmp_path / f"a.csv{packed}", HEADER + ODD_ENDS + some_rows(20))
    content = (HEADER + ODD_ENDS + some_rows(20)).encode().split(b"\n")
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    monkeypatch.setattr(lines, "PIECE_BYTES", 5)
    partition = Partition(path.name, 0)
    source = opened(path)

    marks = {}
    while source.poll(0.0, step) is not None:
        marks[source.position()[partition]] = source.marks()[partition]

    assert 29 in marks
    for n, mark in marks.items():
        before = b"\n".join(content[: n + 1]).removesuffix(b"\r")
        assert mark == f"crc32:{zlib.crc32(before):08x}"
        again = opened(path)
        again.seek(Offsets({partition: n}), {partition: mark})
        polled(again, step)
        assert again.marks() == source.marks()


@pytest.mark.parametrize("packed", MARKED)
@pytest.mark.parametrize(
    "other",
    [
        HEADER + some_rows(9).replace("i0", "j0"),
        HEADER + "".join(reversed(some_rows(9).splitlines(keepends=True))),
        HEADER + some_rows(9, first=5),
        HEADER.replace("\n", ",page\n") + some_rows(9).replace("\n", ",1\n"),
        (HEADER + some_rows(9)).replace(",", ";"),
        HEADER.replace("\n", "\r\n") + some_rows(9),
        HEADER + "\n" * 5 + some_rows(9),
        HEADER + some_rows(1) + some_rows(9),
    ],
)
def test_a_file_that_was_replaced_is_refused(tmp_path, packed, other):
    path = write(tmp_path / f"a.csv{packed}", HEADER + some_rows(9))
    state = _read_to(opened(path), 5)
    write(path, other)
    source = opened(path, delimiter=";" if ";" in other else ",")

    with pytest.raises(ConfigError, match=r"expected the file whose first 5 lines.*\(crc32:"):
        source.seek(*state)
    with pytest.raises(ConfigError, match="expected the file"):
        source.poll(0.0, 1)
    write(path, HEADER + some_rows(5) + "other,u,s,x\n")
    assert [row[1] for row in _gone_on(path, state)] == [5]


def test_a_file_that_is_read_in_another_format_is_refused(tmp_path):
    path = write(tmp_path / "clicks", HEADER + some_rows(9))
    state = _read_to(opened(path, format="csv"), 5)

    with pytest.raises(ConfigError, match="expected the file whose first 5 lines"):
        opened(path, format="jsonl").seek(*state)


@pytest.mark.parametrize("grown", ["fee\n", "fee", "fee\n2,u,s,c\n", " ", "\r\r\n"])
@pytest.mark.parametrize("packed", MARKED)
def test_a_last_line_that_was_read_and_has_grown_is_refused(tmp_path, grown, packed):
    text = HEADER + "0,u,s,a\n1,u,s,cof"
    path = write(tmp_path / f"a.csv{packed}", text)
    state = _read_to(opened(path), 2)
    write(path, text + grown)

    with pytest.raises(ConfigError, match="an unfinished last line that has grown"):
        opened(path).seek(*state)


def test_a_last_line_that_was_read_and_grows_while_followed_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", HEADER + "0,u,s,cof")
    state = _read_to(opened(path), 1)
    source = opened(path, follow=True)
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
    path = write(tmp_path / f"a.csv{packed}", text)
    source = opened(path)
    polled(source)
    write(path, text + added)

    found = _gone_on(path, (source.position(), source.marks()))

    assert [row[2] for row in found] == (["c"] if "c" in added else [])


@pytest.mark.parametrize("packed", MARKED)
@pytest.mark.parametrize("at", [0, 5000, MAX_RECORD_BYTES + (3 << 20)])
def test_what_is_too_long_to_hold_is_in_the_mark(tmp_path, packed, at):
    long = bytearray(b"x" * (MAX_RECORD_BYTES + (4 << 20)))
    path = tmp_path / f"a.csv{packed}"
    write(path, HEADER.encode() + long + b"\r")
    state = _read_to(opened(path), 1)
    write(path, HEADER.encode() + long + b"\r\n0,u,s,a\n")
    assert [row[2] for row in _gone_on(path, state)] == ["a"]
    assert state[1] == {Partition(path.name, 0): f"crc32:{zlib.crc32(HEADER.encode() + long):08x}"}

    long[at] ^= 1
    write(path, HEADER.encode() + long + b"\r\n0,u,s,a\n")

    with pytest.raises(ConfigError, match="expected the file whose first 1 lines"):
        opened(path).seek(*state)


def test_a_position_without_a_mark_is_not_compared(tmp_path):
    path = write(tmp_path / "a.csv", HEADER + some_rows(9, first=5))

    assert [row[1] for row in _gone_on(path, (Offsets({A: 5}), {}))] == [5, 6, 7, 8]


def test_nothing_read_has_no_mark_and_another_file_may_take_its_place(tmp_path):
    path = write(tmp_path / "a.csv", HEADER)
    source = opened(path)
    polled(source)
    write(path, HEADER.replace("\n", ",page\n") + "0,u,s,a,p\n")

    assert source.marks() == {}
    assert [row[2] for row in _gone_on(path, (source.position(), source.marks()))] == ["a"]


def test_a_file_behind_others_is_compared_when_its_turn_comes(tmp_path):
    first = write(tmp_path / "a.csv", HEADER + some_rows(2))
    second = write(tmp_path / "b.csv", HEADER + some_rows(2))
    source = opened(first, second)
    state = _read_to(source, 3)
    write(first, HEADER + some_rows(3))
    write(second, HEADER + some_rows(2, first=5))
    source = opened(first, second)

    source.seek(*state)

    assert source.poll(0.0, 10).partition == A
    with pytest.raises(ConfigError, match=r"b\.csv: expected the file whose first 1 lines"):
        source.poll(0.0, 10)
