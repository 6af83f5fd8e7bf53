"""Decoding: plain and other records side by side, and a reason for each that is no click."""

import json

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from state.offsets import Partition
from streamer.errors import ConfigError
from streamer.settings import sources as config
from streamer.sources.clicks import REASONS, TOO_LONG
from streamer.sources.csv_clicks import CsvDecoder
from streamer.sources.json_clicks import JsonDecoder

PARTITION = Partition("clicks", 3)
HEADER = ["ts", "user_id", "session_id", "item_id"]
ITEM, SESSION, USER = 0, 1, 2  # the seeds, as the format states them


def _decoded(decoder, records, is_read_only=False):
    data = b"".join(record or b"" for record in records)
    lengths = np.array([-1 if r is None else len(r) for r in records], np.int64)
    sizes = np.maximum(lengths, 0)
    buffer = np.frombuffer(data if is_read_only else bytearray(data), np.uint8)
    offsets = np.arange(len(records), dtype=np.int64) * 2 + 100
    batch = decoder.decode(PARTITION, buffer, np.cumsum(sizes) - sizes, lengths, offsets, 999)
    assert len(batch) + len(batch.dead_letters) + sum(batch.filtered.values()) == batch.n_read
    assert batch.n_read == len(records)
    assert (batch.partition, batch.next_offset) == (PARTITION, 999)
    return batch


def _clicks(batch):
    return [
        (
            batch.buffer[start : start + length].tobytes().decode(),
            int(session),
            int(time),
            int(offset),
        )
        for start, length, session, time, offset in zip(
            batch.item_starts,
            batch.item_lengths,
            batch.session_keys,
            batch.event_times_ms,
            batch.offsets,
            strict=True,
        )
    ]


def _json(*records, **names):
    return _decoded(JsonDecoder(config.Clicks(**names)), records)


def _csv(*lines, **names):
    return _decoded(CsvDecoder(config.Clicks(**names), HEADER, ","), lines)


def _one(batch):
    (click,) = _clicks(batch)
    return click


def _key(text, seed):
    return xxhash.xxh64_intdigest(text.encode(), seed)


def _reasons(batch):
    return [letter.reason for letter in batch.dead_letters]


def _record(**members):
    return json.dumps({"item_id": "a", "user_id": "u", "ts": 5, **members}).encode()


def test_plain_and_unusual_records_and_dead_letters_keep_their_order():
    batch = _json(
        _record(item_id="a"),
        _record(item_id="é"),
        b"no click",
        _record(item_id="c", tags=["x", {"y": 1}]),
        _record(item_id="d"),
    )

    assert [(item, offset) for item, _, _, offset in _clicks(batch)] == [
        ("a", 100),
        ("é", 102),
        ("c", 106),
        ("d", 108),
    ]
    assert [(letter.offset, letter.reason) for letter in batch.dead_letters] == [(104, "malformed")]
    assert batch.dead_letters[0].raw == b"no click"
    assert batch.weights.tolist() == [1.0] * 4
    raw = [
        batch.buffer[start : start + length].tobytes()
        for start, length in zip(batch.record_starts, batch.record_lengths, strict=True)
    ]
    assert raw[1] == _record(item_id="é")
    assert raw[3] == _record(item_id="d")


def test_keys_are_xxh64_of_the_ids_under_the_seed_of_their_kind():
    batch = _json(
        _record(item_id="7", user_id="5", session_id="5"),
        _record(item_id=7, user_id=5, session_id=""),
        _record(item_id="\u00e9", user_id="5", session_id=None),
        _record(item_id="7", user_id=None, session_id="é"),
    )

    assert batch.item_keys.tolist() == [_key(item, ITEM) for item in ("7", "7", "é", "7")]
    assert batch.session_keys.tolist() == [
        _key("5", SESSION),
        _key("5", USER),
        _key("5", USER),
        _key("é", SESSION),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"   ", "malformed"),
        (b"[1]", "malformed"),
        (b'"a"', "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"9" * 5000, "malformed"),
        (_record() + b"}", "malformed"),
        (b'{"item_id":"\\ud800x","user_id":"u","ts":1}', "malformed"),
        (_record(item_id=1.5), "malformed"),
        (_record(user_id=True), "malformed"),
        (_record(session_id=["s"]), "malformed"),
        (b'{"item_id":"\xff","user_id":"u","ts":1}', "not_utf8"),
        (_record(item_id=""), "no_item"),
        (_record(item_id="i" * 1025), "long_item"),
        (_record(item_id="é" * 513), "long_item"),
        (_record(item_id=None), "no_item"),
        (b"{}", "no_item"),
        (_record(user_id=""), "no_user"),
        (_record(user_id=None), "no_user"),
        (_record(ts=None), "bad_time"),
        (_record(ts=True), "bad_time"),
        (_record(ts="yesterday"), "bad_time"),
        (_record(ts="NaN"), "bad_time"),
        (_record(ts="1" * 5000), "bad_time"),
        (_record(ts=10**18), "bad_time"),
        (_record(ts=-(10**17)), "bad_time"),
        (_record(ts=1e300), "bad_time"),
        (_record(ts={}), "bad_time"),
    ],
)
def test_a_record_that_is_no_click_is_a_dead_letter_with_a_reason(record, reason):
    batch = _json(_record(), record, _record())

    assert _reasons(batch) == [reason]
    assert reason in REASONS
    assert len(batch) == 2
    assert len(batch.dead_letters[0].detail) < 300


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,u,s", "malformed"),
        (b"1,u,s,a,b", "malformed"),
        (b'1,u,s,"a', "malformed"),
        (b'1,u,s,"a"b', "malformed"),
        (b"1,u\r,s,a", "malformed"),
        (b"1,u,s,\xe9", "not_utf8"),
        (b"1,u,s,", "no_item"),
        (b"1,u,s," + b"i" * 1025, "long_item"),
        (b'1,u,s,""', "no_item"),
        (b"1,,,a", "no_user"),
        (b",u,s,a", "bad_time"),
        (b"1 ,u,s,a", "bad_time"),
        (b"1_0,u,s,a", "bad_time"),
        ("\u0661,u,s,a".encode(), "bad_time"),  # a digit, and no ASCII one
    ],
)
def test_a_line_that_is_no_click_is_a_dead_letter_with_a_reason(line, reason):
    batch = _csv(b"1,u,s,a", line, b"2,u,s,a")

    assert _reasons(batch) == [reason]
    assert [time for _, _, time, _ in _clicks(batch)] == [1, 2]


@pytest.mark.parametrize(
    ("line", "item"),
    [
        (b'1,u,s,"a,b"', "a,b"),
        (b'1,"u",s,"say ""a"""\r', 'say "a"'),
        ("1,u,s,é".encode(), "é"),
        (b"1,u,s, a ", " a "),
        (b"1," + b"x" * 200_000 + b",s," + b"i" * 1024, "i" * 1024),
        (b'1,u,"' + b"x" * 200_000 + b'",a', "a"),
    ],
)
def test_quoted_and_long_and_foreign_columns_are_read(line, item):
    assert _one(_csv(line))[::2] == (item, 1)


@pytest.mark.parametrize(
    ("unit", "written", "time_ms"),
    [
        ("ms", 1506826800026, 1506826800026),
        ("s", 1506826800, 1506826800000),
        ("s", -1, -1000),
        ("s", "1506826800.026", 1506826800026),
        ("s", 1506826800.026, 1506826800026),
        ("s", 1.5e9, 1500000000000),
        ("us", 1506826800026999, 1506826800026),
        ("us", -1, -1),
        ("ns", 1506826800026999999, 1506826800026),
        ("ns", "1506826800026999999", 1506826800026),
        ("ms", "0012", 12),
        ("ms", 253402300799999, 253402300799999),
        ("iso8601", "2017-10-01T03:00:00.026Z", 1506826800026),
        ("iso8601", "2017-10-01 03:00:00", 1506826800000),
        ("iso8601", "2017-10-01T05:00:00+02:00", 1506826800000),
    ],
)
def test_times_of_every_unit_become_milliseconds(unit, written, time_ms):
    record = _record(ts=written)
    line = f"{written},u,s,a".encode()

    assert _one(_json(record, time_unit=unit))[2] == time_ms
    assert _one(_csv(line, time_unit=unit))[2] == time_ms


@pytest.mark.parametrize(
    ("unit", "written"),
    [
        ("s", 253402300800),
        ("s", 10**17),
        ("ms", 253402300800000),
        ("us", 253402300800000000),
        ("ns", "253402300800000000000"),
        ("iso8601", 1506826800),
        ("iso8601", "2017-13-01"),
        ("ms", "2017-10-01T03:00:00Z"),
    ],
)
def test_a_time_that_is_none_in_its_unit_is_a_bad_time(unit, written):
    assert _reasons(_json(_record(ts=written), time_unit=unit)) == ["bad_time"]


@given(
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.lists(st.integers(-(10**18) + 1, 10**18 - 1), min_size=1, max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_the_fast_and_the_slow_path_read_the_same_time(unit, times):
    plain = _json(*(_record(ts=time) for time in times), time_unit=unit)
    slow = _json(*(_record(ts=time, x=[]) for time in times), time_unit=unit)

    assert _clicks(plain) == _clicks(slow)
    assert _reasons(plain) == _reasons(slow)


def test_of_a_member_that_occurs_twice_the_last_one_counts():
    record = b'{"item_id":"a","item_id":"b","user_id":"u","ts":1}'

    assert _one(_json(record))[0] == "b"


def test_names_are_configured():
    record = b'{"who":"u","what":"a","when":1,"visit":"v"}'

    batch = _json(record, user="who", item="what", time="when", session="visit")

    assert _one(batch)[1] == _key("v", SESSION)


@pytest.mark.parametrize("session", ["", "user_id"])
def test_without_a_session_field_of_its_own_the_user_is_the_session(session):
    batch = _json(_record(), _record(x=[]), session=session)

    assert batch.session_keys.tolist() == [_key("u", USER)] * 2


def test_a_dead_letter_keeps_all_of_its_bytes():
    batch = _json(b"x" * 10_000)

    assert batch.dead_letters[0].raw == b"x" * 10_000


def test_a_record_of_which_only_the_head_is_there_is_malformed():
    data = np.frombuffer(bytearray(_record() + _record()), np.uint8)
    lengths = np.array([TOO_LONG, len(_record())], np.int64)
    starts = np.array([0, len(_record())], np.int64)

    batch = JsonDecoder(config.Clicks()).decode(PARTITION, data, starts, lengths, starts, 7)

    assert _reasons(batch) == ["malformed"]
    assert len(batch) == 1


def test_each_click_and_each_dead_letter_has_the_key_and_the_headers_of_its_record():
    values = [_record(), b"no click", _record(), _record()]
    starts = np.cumsum([0, *(len(value) for value in values[:-1])])
    lengths = np.array([len(value) for value in values], np.int64)
    data = np.frombuffer(bytearray(b"".join(values)), np.uint8)
    keys = [b"a", b"b", None, b"d"]
    headers = [(), [("h", b"of b")], [], [("h", None), ("h", b"of d")]]

    batch = JsonDecoder(config.Clicks()).decode(
        PARTITION, data, starts, lengths, starts, 9, keys, headers
    )

    assert list(batch.record_keys) == [b"a", None, b"d"]
    assert [(one.key, one.headers) for one in batch.dead_letters] == [(b"b", (("h", b"of b"),))]
    late = batch.dead_letter(2, "future", "why")
    assert (late.raw, late.key, late.offset) == (_record(), b"d", int(starts[3]))
    assert late.headers == (("h", None), ("h", b"of d"))
    of_no_record = _json(_record()).dead_letter(0, "future", "why")
    assert (of_no_record.key, of_no_record.headers) == (None, ())


def test_a_buffer_that_cannot_be_written_is_decoded_too():
    batch = _decoded(JsonDecoder(config.Clicks()), [_record(), _record(x=[])], is_read_only=True)

    assert len(batch) == 2


def test_no_records_are_an_empty_batch():
    assert len(_json()) == len(_csv()) == 0


@given(st.lists(st.binary(max_size=30) | st.just(_record()), max_size=8))
@settings(max_examples=100, deadline=None)
def test_whatever_the_bytes_each_record_is_a_click_or_a_dead_letter(records):
    for batch in (_json(*records), _csv(*records)):
        places = [*batch.offsets.tolist(), *(letter.offset for letter in batch.dead_letters)]
        assert sorted(places) == [100 + 2 * i for i in range(len(records))]


def test_without_a_session_column_users_are_sessions():
    decoder = CsvDecoder(config.Clicks(), ["ts", "user_id", "item_id", "rating"], ",")

    batch = _decoded(decoder, [b"1,u,a,5"])

    assert _one(batch) == ("a", _key("u", USER), 1, 100)


def test_without_a_user_column_sessions_are_enough():
    decoder = CsvDecoder(config.Clicks(), ["ts", "session_id", "item_id"], ",")

    assert _one(_decoded(decoder, [b"1,s,a"]))[1] == _key("s", SESSION)


@pytest.mark.parametrize(
    ("names", "header", "expected"),
    [
        ({}, ["ts", "user_id"], "item column 'item_id'"),
        ({}, ["item_id", "user_id"], "time column 'ts'"),
        ({}, ["ts", "item_id"], "user column 'user_id'"),
        ({}, ["ts", "user_id", "item_id", "item_id"], "'item_id' once"),
        ({"session": "visit"}, ["ts", "user_id", "item_id"], "session column 'visit'"),
        ({"item": "sku"}, HEADER, "item column 'sku'"),
        ({}, [], "clicks.item and clicks.time and clicks.user"),
    ],
)
def test_columns_that_are_not_there_are_named(names, header, expected):
    with pytest.raises(ConfigError, match=r"in\.csv") as caught:
        CsvDecoder(config.Clicks(**names), header, ",", "in.csv")

    assert expected in str(caught.value)
    assert repr(header) in str(caught.value)


@pytest.mark.parametrize("delimiter", ['"', "\n", "¦", ""])
def test_a_delimiter_that_cannot_divide_is_refused(delimiter):
    with pytest.raises(ConfigError, match="delimiter"):
        CsvDecoder(config.Clicks(), HEADER, delimiter)
