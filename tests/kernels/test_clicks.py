"""The parsers of plain clicks against msgspec and csv: flagged or the same, never wrong."""

import csv
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.clicks import parse_json, split_csv

NAMES = ("item_id", "user_id", "session_id", "ts")
HEADER = ("ts", "user_id", "session_id", "item_id")
LAYOUT = np.array([3, 1, 2, 0, 4], np.int64)
MANY = settings(max_examples=300, deadline=None)


def _packed(records):
    lengths = np.array([len(record) for record in records], np.int64)
    starts = np.cumsum(lengths) - lengths
    return np.frombuffer(bytearray(b"".join(records)), np.uint8), starts, lengths


def _clicks(buffer, spans, times, flags):
    found = []
    for i, flag in enumerate(flags):
        ids = [
            buffer[spans[row, i] : spans[row, i] + spans[row + 1, i]].tobytes() for row in (0, 2, 4)
        ]
        found.append(None if flag else (*ids, int(times[i])))
    return found


def _parsed(records, names=NAMES):
    buffer, starts, lengths = _packed(records)
    n = len(records)
    encoded = [name.encode() for name in names]
    text = np.frombuffer(bytearray(b"".join(encoded)), np.uint8)
    ends = np.cumsum([len(name) for name in encoded]).astype(np.int64)
    spans, times = np.full((6, n), 99, np.int64), np.full(n, 99, np.int64)
    flags = np.full(n, 9, np.uint8)
    n_flagged = parse_json(buffer, starts, lengths, text, ends, spans, times, flags)
    assert n_flagged == np.count_nonzero(flags)
    return _clicks(buffer, spans, times, flags)


def _split(lines, layout=LAYOUT, delimiter=","):
    buffer, starts, lengths = _packed(lines)
    n = len(lines)
    spans, times = np.full((6, n), 99, np.int64), np.full(n, 99, np.int64)
    flags = np.full(n, 9, np.uint8)
    n_flagged = split_csv(
        buffer, starts, lengths, layout, np.uint8(ord(delimiter)), spans, times, flags
    )
    assert n_flagged == np.count_nonzero(flags)
    return _clicks(buffer, spans, times, flags)


def _json_id(value):
    assert value is None or type(value) in (str, int)
    return b"" if value is None else str(value).encode()


def _json_truth(record):
    """What a full JSON parser finds in a record that the kernel has accepted."""
    click = msgspec.json.decode(record)
    needed = [name for name, _ in json.loads(record, object_pairs_hook=list) if name in NAMES]
    assert len(needed) == len(set(needed))
    assert type(click["ts"]) is int
    return (*(_json_id(click.get(name)) for name in NAMES[:3]), click["ts"])


def _csv_truth(line):
    (row,) = csv.reader([line.decode()], strict=True)
    assert len(row) == len(HEADER)
    click = dict(zip(HEADER, row, strict=True))
    return (*(click[name].encode() for name in NAMES[:3]), int(click["ts"]))


ids = st.one_of(
    st.none(), st.text(max_size=6), st.integers(-(10**19), 10**19), st.floats(), st.booleans()
)
plain_ids = st.one_of(st.text("abz019 _-", min_size=1, max_size=8), st.integers(0, 10**17))
members = st.one_of(ids, st.lists(st.integers(), max_size=2), st.dictionaries(st.text(), ids))


@st.composite
def json_records(draw):
    is_plain = draw(st.booleans())
    one = plain_ids if is_plain else ids
    times = st.integers(0, 10**13) if is_plain else ids
    pairs = [("item_id", draw(one)), ("user_id", draw(one)), ("ts", draw(times))]
    pairs += draw(st.lists(st.tuples(st.sampled_from(NAMES), one), max_size=1))
    pairs += draw(st.lists(st.tuples(st.text(max_size=8), members), max_size=2))
    pairs = draw(st.permutations(pairs))
    space = draw(st.sampled_from(["", " ", "\t", "\r\n"]))
    ascii_only = draw(st.booleans())
    inside = f",{space}".join(
        f"{json.dumps(name, ensure_ascii=ascii_only)}{space}:{space}"
        f"{json.dumps(value, ensure_ascii=ascii_only)}"
        for name, value in pairs
    )
    return f"{space}{{{space}{inside}{space}}}{space}".encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw, records, letters):
    record = bytearray(draw(records))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(record)))
        letter = draw(st.sampled_from(letters) | st.binary(min_size=1, max_size=1))
        record[at : at + draw(st.integers(0, 2))] = letter
    return bytes(record)


JSON_LETTERS = [bytes([c]) for c in b'{}[],:"\\ -+.eE0123456789ntfu\n\r\x00\x7f\x80']
CSV_LETTERS = [bytes([c]) for c in b',;"\\ -+.e0123456789\n\r\t\x00\x7f\x80']


@given(st.lists(mutated(json_records(), JSON_LETTERS), max_size=6))
@MANY
def test_a_json_record_that_is_accepted_reads_as_msgspec_reads_it(records):
    for record, click in zip(records, _parsed(records), strict=True):
        if click is not None:
            assert click == _json_truth(record)


@st.composite
def csv_lines(draw):
    field = st.text("ab0 19'", max_size=5) | st.text(max_size=4) | st.just('"a,b"')
    time = st.integers(-(10**19), 10**19).map(str) | st.integers(0, 10**13).map(str) | field
    columns = [draw(time), draw(field), draw(field), draw(field)]
    columns += draw(st.lists(field, max_size=1)) if draw(st.integers(0, 4)) == 0 else []
    end = draw(st.sampled_from(["", "\r"]))
    return (",".join(columns) + end).encode("utf-8", "surrogatepass")


@given(st.lists(mutated(csv_lines(), CSV_LETTERS), max_size=6))
@MANY
def test_a_csv_line_that_is_accepted_reads_as_csv_reads_it(lines):
    for line, click in zip(lines, _split(lines), strict=True):
        if click is not None:
            assert click == _csv_truth(line.removesuffix(b"\r"))


@given(st.lists(st.tuples(plain_ids, plain_ids, st.integers(-(10**12), 10**17)), max_size=5))
@MANY
def test_a_plain_click_is_never_flagged(clicks):
    records = [
        json.dumps({"ts": time, "item_id": item, "page": 1.5, "user_id": user, "ok": True}).encode()
        for item, user, time in clicks
    ]
    lines = [f"{time},{user},,{item}".encode() for item, user, time in clicks]
    expected = [(str(item).encode(), str(user).encode(), b"", time) for item, user, time in clicks]

    assert _parsed(records) == expected
    assert _split(lines) == expected


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"{}",
        b"null",
        b'{"item_id":"a","user_id":"u"}',
        b'{"item_id":"a","ts":1}',
        b'{"user_id":"u","ts":1}',
        b'{"item_id":"","user_id":"u","ts":1}',
        b'{"item_id":null,"user_id":"u","ts":1}',
        b'{"item_id":"a","user_id":"","ts":1}',
        b'{"item_id":"a","user_id":"u","ts":1.0}',
        b'{"item_id":"a","user_id":"u","ts":1e3}',
        b'{"item_id":"a","user_id":"u","ts":"1"}',
        b'{"item_id":"a","user_id":"u","ts":true}',
        b'{"item_id":"a","user_id":"u","ts":01}',
        b'{"item_id":"a","user_id":"u","ts":-}',
        b'{"item_id":"a","user_id":"u","ts":1234567890123456789}',
        b'{"item_id":1.5,"user_id":"u","ts":1}',
        b'{"item_id":-0,"user_id":"u","ts":1}',
        b'{"item_id":"a","item_id":"b","user_id":"u","ts":1}',
        b'{"item_id":"a","user_id":"u","ts":1,"ts":2}',
        b'{"item_id":"\\u0061","user_id":"u","ts":1}',
        b'{"item\\u005fid":"b","item_id":"a","user_id":"u","ts":1}',
        '{"item_id":"é","user_id":"u","ts":1}'.encode(),
        b'{"item_id":"a","user_id":"u","ts":1,"x":[1]}',
        b'{"item_id":"a","user_id":"u","ts":1,"x":{}}',
        b'{"item_id":"a","user_id":"u","ts":1,"x":nul}',
        b'{"item_id":"a","user_id":"u","ts":1}}',
        b'{"item_id":"a","user_id":"u","ts":1} x',
        b'{"item_id":"a","user_id":"u","ts":1,}',
        b'{"item_id":"a" "user_id":"u","ts":1}',
        b'{"item_id":"a\n","user_id":"u","ts":1}',
    ],
)
def test_what_is_not_plain_json_is_flagged(record):
    whole = b'{"item_id":"a","user_id":"u","ts":1}'

    assert _parsed([whole, record, whole]) == [
        (b"a", b"u", b"", 1),
        None,
        (b"a", b"u", b"", 1),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"1,u,s",
        b"1,u,s,a,",
        b"1,u,s,",
        b"1,,,a",
        b",u,s,a",
        b"-,u,s,a",
        b"1.0,u,s,a",
        b" 1,u,s,a",
        b"+1,u,s,a",
        b"1234567890123456789,u,s,a",
        b'1,u,s,"a"',
        b'1,u,s,a"',
        b"1,u,s,a\r\r",
        b"1,u\r,s,a",
        b"1,u,s,\x00",
        "1,u,s,é".encode(),
    ],
)
def test_what_is_not_plain_csv_is_flagged(line):
    assert _split([b"1,u,s,a", line, b"2,u,s,a\r"]) == [
        (b"a", b"u", b"s", 1),
        None,
        (b"a", b"u", b"s", 2),
    ]


def test_a_record_without_a_length_is_flagged():
    data, spans = np.zeros(4, np.uint8), np.zeros((6, 2), np.int64)
    starts, lengths = np.array([0, 4], np.int64), np.array([-1, -2], np.int64)
    times, flags = np.zeros(2, np.int64), np.zeros(2, np.uint8)
    names, ends = np.zeros(4, np.uint8), np.arange(1, 5)

    assert parse_json(data, starts, lengths, names, ends, spans, times, flags) == 2
    assert split_csv(data, starts, lengths, LAYOUT, np.uint8(44), spans, times, flags) == 2


def test_a_field_without_a_name_is_never_found():
    record = b'{"":"s","item_id":"a","user_id":"u","ts":1}'

    assert _parsed([record], ("item_id", "user_id", "", "ts")) == [(b"a", b"u", b"", 1)]


def test_a_name_that_only_begins_like_a_field_is_another():
    record = b'{"item_i":"x","item_id2":"y","item_id":"a","session_id":"s","ts":1}'

    assert _parsed([record]) == [(b"a", b"", b"s", 1)]


def test_absent_csv_columns_are_absent_ids_and_any_byte_may_divide():
    layout = np.array([1, -1, 0, 2, 3], np.int64)

    assert _split([b"s\ta,b\t-5"], layout, "\t") == [(b"a,b", b"", b"s", -5)]


def test_bytes_behind_a_record_are_not_read():
    record = b'{"item_id":"a","user_id":"u","ts":12}'
    buffer, starts, lengths = _packed([record])
    names = np.frombuffer(bytearray("".join(NAMES).encode()), np.uint8)
    ends = np.cumsum([len(name) for name in NAMES]).astype(np.int64)
    for cut in range(len(record)):
        spans, times, flags = np.zeros((6, 1), np.int64), np.zeros(1, np.int64), np.zeros(1, "u1")
        parse_json(buffer, starts, lengths * 0 + cut, names, ends, spans, times, flags)
        assert flags[0] == 1
