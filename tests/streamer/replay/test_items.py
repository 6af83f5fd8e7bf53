"""What becomes of each letter, and of each line of a file of clicks."""

import base64
import gzip
import json
from dataclasses import replace

import pytest

from state.offsets import Partition
from streamer import config as settings
from streamer.errors import ConfigError
from streamer.replay.items import Choice, ClickFile, MendedLetters
from streamer.replay.letters import NO_LETTER, are_letters, letters_of_file
from streamer.sources.clicks import DeadLetter
from streamer.sources.dead_letters import to_line

NOW_MS = 1_800_000_000_000
GOOD = b'{"user_id":"ann","item_id":"i","ts":5000}'


def letter(offset=7, raw=GOOD, reason="future", key=None, topic="clicks"):
    return DeadLetter(Partition(topic, 2), offset, reason, "why", raw, key)


@pytest.fixture
def mended(tmp_path):
    """Write letters to a file, read them back, and return their items."""

    def mend(*letters, extra=b"", config=None, at_most=4096, **choice):
        path = tmp_path / "letters.jsonl"
        path.write_bytes(b"".join(to_line(one, at_most) for one in letters) + extra)
        config = config or settings.load(None)
        found = letters_of_file(path, 0)
        return MendedLetters(found, config, Choice(**choice)).items(NOW_MS)

    return mend


def test_a_letter_that_is_a_click_by_now_is_put_back_where_it_came_from(mended):
    (item,) = mended(letter(key=b"k"))

    topic, value, key, _, partition = item.record
    assert (topic, key, partition) == ("clicks", b"k", 2)
    assert json.loads(value) == {"user_id": "ann", "item_id": "i", "ts": NOW_MS}
    assert item.time_ms == NOW_MS


def test_without_a_key_the_session_or_the_user_is_the_key(mended):
    raw = b'{"user_id":"ann","item_id":"i","ts":5000,"session_id":"s"}'
    of_user, of_session, empty = mended(letter(1), letter(2, raw), letter(3, key=b""))

    assert (of_user.record.key, of_session.record.key) == (b"ann", b"s")
    assert empty.record.key == b""


def test_in_another_topic_the_key_decides_the_partition(mended):
    (item,) = mended(letter(key=b"k"), topic="other")

    assert (item.record.topic, item.record.partition, item.record.key) == ("other", None, b"k")


def test_times_may_be_kept(mended):
    (item,) = mended(letter(), keep_times=True)

    assert (item.record.value, item.time_ms) == (GOOD, 5000)


def test_what_is_still_no_click_is_left_with_the_reason_that_it_has_now(mended):
    (item,) = mended(letter(raw=b'{"user_id":"ann","ts":5}', reason="malformed"))

    assert (item.record, item.reason) == (None, "no_item")
    found = item.letter.letter
    assert found.reason == "no_item"
    assert "item_id" in found.detail
    assert found.raw == b'{"user_id":"ann","ts":5}'


def test_a_mapping_that_was_corrected_mends_letters(mended):
    config = settings.load(None, clicks={"item": "sku", "time_unit": "s"})
    raw = b'{"user_id":"ann","sku":"i","ts":5}'

    (item,) = mended(letter(raw=raw, reason="no_item"), config=config)

    assert json.loads(item.record.value) == {"user_id": "ann", "sku": "i", "ts": NOW_MS // 1000}


CALL = '{"type":"%s","event":"%s","userId":"u","properties":{"product_id":"p"},"timestamp":"%s"}'
CALLS = [
    (CALL % one).encode()
    for one in (
        ("track", "view", "2026-01-01"),
        ("track", "cart", "2026-01-01"),
        ("page", "view", "2026-01-01"),
    )
]


@pytest.fixture
def of_calls():
    """Return settings under which one topic has calls, and another clicks."""
    kafka = {"bootstrap_servers": ["a:1"], "topics": ["clicks", "calls"]}
    clicks = {"topics": {"calls": {"preset": "segment", "types": {"view": 1.0}}}}
    return settings.load(None, source={"kafka": kafka}, clicks=clicks)


def test_each_letter_is_read_under_the_mapping_of_its_topic(mended, of_calls):
    letters = [letter(at, raw, topic="calls") for at, raw in enumerate(CALLS)]

    items = mended(*letters, letter(9, GOOD), config=of_calls)

    assert [item.reason for item in items] == ["", "unlisted_type", "other_kind", ""]
    assert items[0].record.key == b"u"
    assert json.loads(items[0].record.value)["timestamp"].startswith("2027-")


def test_an_event_in_binary_is_put_back_with_its_headers(mended):
    told = [("ce_specversion", b"1.0"), ("ce_time", b"2026-01-01T00:00:00Z"), ("trace", b"\xff")]
    raw = b'{"item_id":"i","user_id":"u"}'
    one = replace(letter(raw=raw), headers=tuple(told))
    config = settings.load(None, clicks={"preset": "cloudevents"})

    (item,) = mended(one, config=config)

    told[1] = ("ce_time", b"2027-01-15T08:00:00Z")
    assert (item.record.value, item.record.headers) == (raw, tuple(told))
    assert item.time_ms == NOW_MS


def test_letters_are_not_put_where_they_would_be_no_clicks(mended, of_calls):
    with pytest.raises(ConfigError, match="in the mapping of topic 'clicks'"):
        mended(letter(1, CALLS[0], topic="calls"), config=of_calls, topic="clicks")


def test_a_letter_whose_time_cannot_be_moved_is_left_or_keeps_it(mended):
    config = settings.load(None, clicks={"preset": "cloudevents", "time": "data.at"})
    data = b'{"user_id":"u","item_id":"i","at":"2017-10-01T03:00:00Z"}'
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    raw = json.dumps({**event, "data_base64": base64.b64encode(data).decode()}).encode()

    (left,) = mended(letter(raw=raw), config=config)
    (kept,) = mended(letter(raw=raw), config=config, keep_times=True)

    assert (left.record, left.reason) == (None, "fixed_time")
    assert kept.record.value == raw


def test_only_reasons_that_are_asked_for_are_put_back(mended):
    letters = [letter(1), letter(2, reason="no_item"), letter(3, reason="bad_time")]

    items = mended(*letters, reasons=("no_item", "bad_time"))

    assert [item.reason for item in items] == ["not_asked_for", "", ""]
    assert items[0].letter.letter == letters[0]


def test_a_click_that_killed_the_process_is_put_back_only_by_name(mended):
    assert mended(letter(reason="poison"))[0].record is None
    assert mended(letter(reason="poison"), reasons=("poison",))[0].record is not None


def test_a_letter_that_was_cut_cannot_be_put_back(mended):
    (item,) = mended(letter(raw=GOOD + b" " * 100), at_most=len(GOOD))

    assert (item.record, item.reason) == (None, "cut")
    assert item.letter.n_bytes == len(GOOD) + 100


def test_a_letter_that_came_twice_is_put_back_once(mended):
    items = mended(letter(7), letter(8), letter(7), replace(letter(7), partition=Partition("c", 2)))

    assert [item.reason for item in items] == ["", "", "repeated", ""]


def test_a_line_among_letters_that_is_none_is_left(mended):
    items = mended(letter(1), extra=b"{what\n")

    assert [item.reason for item in items] == ["", NO_LETTER]
    assert items[1].letter.letter.raw == b"{what"


def test_a_letter_of_a_line_of_csv_becomes_json(tmp_path, mended):
    path = tmp_path / "clicks.csv"
    path.write_text("ts,user_id,item_id,color\n")
    config = settings.load(None, source={"files": {"paths": [str(path)]}})

    (item,) = mended(letter(raw=b"5000,ann,i,red", topic="clicks.csv"), config=config, topic="t")

    assert json.loads(item.record.value) == {
        "ts": NOW_MS,
        "user_id": "ann",
        "item_id": "i",
        "color": "red",
    }


def test_clicks_of_a_session_move_together(mended):
    raws = [
        b'{"user_id":"%s","item_id":"i","ts":%d}' % (user, time)
        for user, time in ((b"a", 1000), (b"b", 9_000_000), (b"a", 61_000))
    ]

    items = mended(*(letter(at, raw) for at, raw in enumerate(raws)))

    assert [NOW_MS - item.time_ms for item in items] == [60_000, 0, 0]
    assert [json.loads(i.record.value)["ts"] for i in items] == [i.time_ms for i in items]


CLICKS = "ts,user_id,session_id,item_id\n5000,ann,,i\n\n,bob,,i\n6000,bob,b1,j\n"


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.csv.gz"])
def test_a_file_of_clicks_is_published_as_json_keyed_by_session_or_user(tmp_path, name):
    path = tmp_path / name
    content = CLICKS.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    clicks = ClickFile(path, settings.load(None), "clicks", 0)
    first, bad, last = clicks

    assert clicks.count() == 3
    assert (first.at, first.record.key, first.time_ms) == (0, b"ann", 5000)
    assert json.loads(first.record.value) == {"ts": 5000, "user_id": "ann", "item_id": "i"}
    assert (bad.at, bad.reason, bad.letter.letter.raw) == (2, "bad_time", b",bob,,i")
    assert (last.at, last.record.key) == (3, b"b1")


def test_json_lines_are_published_as_they_are_and_from_a_line_on(tmp_path):
    path = tmp_path / "clicks.jsonl"
    path.write_bytes(GOOD + b"\n" + b' {"user_id":1,"item_id":"j", "ts":6}\r\n')

    clicks = ClickFile(path, settings.load(None), "clicks", 1)
    (item,) = clicks

    assert clicks.count() == 1
    assert (item.at, item.record.value) == (1, b' {"user_id":1,"item_id":"j", "ts":6}')
    assert item.record.key == b"1"


def test_a_file_is_of_the_kind_of_its_topic(tmp_path, of_calls):
    path = tmp_path / "calls.jsonl"
    path.write_bytes(b"\n".join(CALLS))

    first, second, third = ClickFile(path, of_calls, "calls", 0)

    assert (first.record.value, first.record.key) == (CALLS[0], b"u")
    assert (second.reason, third.reason) == ("unlisted_type", "other_kind")


def test_a_file_of_letters_is_told_from_one_of_clicks(tmp_path):
    found = {}
    for name, content in (("letters", to_line(letter())), ("clicks", GOOD), ("none", b"")):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(content)
        found[name] = are_letters(path)

    assert found == {"letters": True, "clicks": False, "none": None}


def over_kafka(*topics, **clicks):
    kafka = {"bootstrap_servers": ["localhost:1"], "topics": list(topics)}
    return settings.load(None, source={"kafka": kafka}, clicks=clicks)


def test_letters_of_each_topic_are_read_by_its_mapping(mended):
    nested = {"item": "{kind}:{page.id}", "user": ["login", "cookie"], "time": "meta.at"}
    config = over_kafka("clicks", "plays", topics={"plays": nested})
    raw = b'{"kind":"k","page":{"id":3},"cookie":"c","meta":{"at":5000,"x":[1, 2]}}'

    flat, deep = mended(letter(1), letter(2, raw, topic="plays"), config=config)

    assert flat.record.topic == "clicks"
    assert (deep.record.topic, deep.record.key, deep.record.partition) == ("plays", b"c", 2)
    assert deep.record.value == raw.replace(b"5000", str(NOW_MS).encode())


def test_what_a_mapping_filters_is_left(mended):
    config = over_kafka("clicks", only={"kind": "news"}, type="what", types={"buy": 2})
    raw = b'{"user_id":"u","item_id":"i","ts":5,"kind":"%s","what":"%s"}'

    other, unlisted, usable = mended(
        *(letter(at, raw % of) for at, of in enumerate([(b"x", b"buy"), (b"news", b"see")])),
        letter(2, raw % (b"news", b"buy")),
        config=config,
    )

    assert [one.reason for one in (other, unlisted, usable)] == ["other_kind", "unlisted_type", ""]
    assert other.letter.letter == letter(0, raw % (b"x", b"buy"))


def test_a_time_that_cannot_be_moved_leaves_the_letter_unless_times_are_kept(mended):
    config = over_kafka("clicks", preset="cloudevents", time="data.at", time_unit="ms")
    data = base64.b64encode(b'{"user_id":"u","item_id":"i","at":5}')
    raw = b'{"specversion":"1.0","data_base64":"%s"}' % data

    (moved,) = mended(letter(raw=raw), config=config)
    (kept,) = mended(letter(raw=raw), config=config, keep_times=True)

    assert (moved.record, moved.reason) == (None, "fixed_time")
    assert moved.letter.letter.reason == "fixed_time"
    assert kept.record.value == raw


def test_letters_of_avro_are_refused(mended):
    avro = {"format": "avro", "schema_registry": "http://localhost:8081"}
    config = over_kafka("clicks", topics={"clicks": avro})

    with pytest.raises(ConfigError, match=r"clicks of 'clicks' .* found format avro"):
        mended(letter(), config=config)


def test_clicks_are_not_put_where_they_would_be_none(mended, tmp_path):
    config = over_kafka("clicks", "plays", "more", topics={"plays": {"item": "sku"}, "more": {}})
    path = tmp_path / "clicks.csv"
    path.write_text("ts,user_id,item_id\n5,u,i\n")

    with pytest.raises(ConfigError, match="of 'clicks' in the mapping of topic 'plays', found"):
        mended(letter(), config=config, topic="plays")
    with pytest.raises(ConfigError, match="expected item column 'sku'"):
        ClickFile(path, config, "plays", 0)
    assert mended(letter(), config=config, topic="more")[0].record.topic == "more"
    assert mended(letter(), config=config, topic="not-ours")[0].record.topic == "not-ours"


def test_a_file_is_read_by_its_own_mapping_or_that_of_its_topic(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text("at,who,sku\n5000,ann,i\n")
    names = {"time": "at", "user": "who", "item": "sku"}
    as_topic = over_kafka("clicks", topics={"clicks": names})
    kafka = {"bootstrap_servers": ["localhost:1"], "topics": ["clicks"]}
    source = {"kafka": kafka, "files": {"paths": [str(path)]}}
    as_source = settings.load(None, source=source, clicks={"topics": {"old.csv": names}})

    (item,) = ClickFile(path, as_topic, "clicks", 0)
    (elsewhere,) = ClickFile(path, as_source, "other", 0)

    assert json.loads(item.record.value) == {"at": 5000, "who": "ann", "sku": "i"}
    assert elsewhere.record.value == item.record.value
    with pytest.raises(ConfigError, match=r"of 'old.csv' in the mapping of topic 'clicks'"):
        ClickFile(path, as_source, "clicks", 0)


def test_lines_that_a_mapping_filters_are_left(tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text("ts,user_id,item_id,kind\n5,u,i,ad\n6,u,i,news\n")
    clicks = ClickFile(path, over_kafka("clicks", only={"kind": "news"}), "clicks", 0)

    left, published = clicks

    assert (left.reason, left.letter.letter.raw) == ("other_kind", b"5,u,i,ad")
    assert json.loads(published.record.value)["kind"] == "news"
