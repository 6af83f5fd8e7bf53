"""The file of unusable clicks, and when there are too many."""

import base64
import json
from dataclasses import replace

import pytest

from state.errors import NoSpace
from state.offsets import Partition
from streamer.errors import DeadLetterLimit
from streamer.sources.clicks import DeadLetter
from streamer.sources.dead_letters import DeadLetters, from_line, to_line

PARTITION = Partition("clicks", 2)


def _letter(offset=7, raw=b"{", reason="malformed"):
    return DeadLetter(PARTITION, offset, reason, "expected a JSON object", raw)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dead-letters.jsonl"


def _lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_each_letter_is_a_line_of_json(path):
    letters = DeadLetters(path, 0, 0.0)
    letters.append([_letter(raw='{"é\n'.encode())])
    letters.append([])
    length = letters.sync()
    letters.close()

    assert length == path.stat().st_size
    assert _lines(path) == [
        {
            "topic": "clicks",
            "partition": 2,
            "offset": 7,
            "reason": "malformed",
            "detail": "expected a JSON object",
            "raw": '{"é\n',
        }
    ]


@pytest.mark.parametrize("raw", [b"x" * 10_000, b"\xff" * 10_000])
def test_a_line_holds_the_head_of_a_long_letter(path, raw):
    letters = DeadLetters(path, 0, 0.0)
    letters.append([_letter(raw=raw)])
    letters.close()

    (line,) = _lines(path)
    held = line["raw"].encode() if "raw" in line else base64.b64decode(line["raw_base64"])
    assert held == raw[:4096]


def test_bytes_that_are_no_text_are_base64(path):
    letters = DeadLetters(path, 0, 0.0)
    letters.append([_letter(raw=b"\xff\x00")])
    letters.close()

    (line,) = _lines(path)
    assert base64.b64decode(line["raw_base64"]) == b"\xff\x00"
    assert "raw" not in line


def test_a_long_record_is_cut_and_its_line_says_how_long_it_was(path):
    letters = DeadLetters(path, 0, 0.0)
    letters.append([_letter(raw=b"x" * 4096), _letter(raw=b"y" * 4097)])
    letters.close()

    whole, cut = _lines(path)
    assert (whole["raw"], whole.get("raw_bytes")) == ("x" * 4096, None)
    assert (cut["raw"], cut["raw_bytes"]) == ("y" * 4096, 4097)


@pytest.mark.parametrize("key", [None, b"ann", b"", b"\xff"])
@pytest.mark.parametrize("raw", [b"{", b"", b"\xff\x00", "é\n".encode()])
def test_a_letter_can_be_read_back_from_its_line(raw, key):
    headers = (("é", key), ("é", raw), ("empty", b""))
    letter = DeadLetter(PARTITION, 7, "malformed", "expected a JSON object", raw, key, headers)

    assert from_line(to_line(letter, 100)) == (letter, len(raw))
    head, n_bytes = from_line(to_line(letter, at_most=1))
    assert (head.raw, n_bytes) == (raw[:1], len(raw))
    assert from_line(to_line(head, n_bytes=n_bytes)) == (head, n_bytes)


def test_headers_that_are_too_long_for_a_line_are_left_out_and_counted():
    letter = DeadLetter(PARTITION, 7, "r", "d", b"{", None, (("name", b"x" * 96),))

    assert from_line(to_line(letter, 100)) == (letter, 1)
    line = to_line(letter, 99)
    assert json.loads(line)["headers_bytes"] == 100
    assert from_line(line) == (replace(letter, headers=()), 1)


def test_a_letter_of_a_line_that_has_no_key_yet_is_read_back():
    line = b'{"topic":"clicks","partition":2,"offset":7,"reason":"r","detail":"d","raw":"{"}'

    assert from_line(line) == (DeadLetter(PARTITION, 7, "r", "d", b"{"), 1)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b'{"user_id":"u","item_id":"i","ts":5}',
        b'{"topic":"clicks","partition":2,"offset":7,"reason":"r","detail":"d"}',
        b'{"topic":"c","partition":2,"offset":7,"reason":"r","detail":"d","raw_base64":"!"}',
        b'{"topic":"c","partition":"2","offset":7,"reason":"r","detail":"d","raw":"{"}',
        b"[" * 10_000,
    ],
)
def test_a_line_that_is_no_letter_is_told(line):
    with pytest.raises(ValueError, match=r"expected|base64"):
        from_line(line)


def test_letters_that_have_left_and_that_wait_are_counted(path, monkeypatch):
    letters = DeadLetters(path, 0, 0.0)
    letters.append([_letter(1), _letter(2)])
    before = (letters.n_sent, letters.n_waiting)

    def full(content):
        raise NoSpace

    monkeypatch.setattr(letters._log, "append", full)
    letters.append([_letter(3)])
    meanwhile = (letters.n_sent, letters.n_waiting)
    monkeypatch.undo()
    letters.sync()
    letters.close()

    assert (before, meanwhile) == ((2, 0), (2, 1))
    assert (letters.n_sent, letters.n_waiting) == (3, 0)


def test_a_restore_cuts_back_what_will_be_written_again(path):
    letters = DeadLetters(path, 0, 0.0)
    letters.append([_letter(1)])
    committed = letters.sync()
    letters.append([_letter(2), _letter(3)])
    letters.close()

    restored = DeadLetters(path, 0, 0.0)
    restored.truncate_to(committed)
    restored.append([_letter(2)])
    restored.close()

    assert [line["offset"] for line in _lines(path)] == [1, 2]


@pytest.mark.parametrize(
    ("n_dead", "n_read"), [(0, 0), (100, 100), (101, 10_100), (500, 50_000), (99, 99)]
)
def test_within_either_limit_all_is_well(path, n_dead, n_read):
    letters = DeadLetters(path, 100, 0.01)

    letters.check(n_dead, n_read)
    letters.close()


@pytest.mark.parametrize(("n_dead", "n_read"), [(101, 101), (101, 10_099), (501, 50_000)])
def test_beyond_both_limits_the_message_says_where_to_look(path, n_dead, n_read):
    letters = DeadLetters(path, 100, 0.01)
    letters.append([_letter(41), _letter(42, reason="bad_time")])

    with pytest.raises(DeadLetterLimit) as caught:
        letters.check(n_dead, n_read)
    letters.close()

    message = str(caught.value)
    assert f"{n_dead} of {n_read}" in message
    assert "bad_time at clicks[2] offset 42" in message
    assert str(path) in message


def test_the_limit_holds_before_this_life_has_seen_a_letter(path):
    letters = DeadLetters(path, 0, 0.0)

    with pytest.raises(DeadLetterLimit, match="found 1 of 9"):
        letters.check(1, 9)
    letters.close()
    letters.close()
