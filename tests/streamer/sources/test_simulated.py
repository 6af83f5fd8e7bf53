"""The generated traffic: the same from anywhere, and as its truth says."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from state.offsets import Offsets, Partition
from streamer.errors import ConfigError
from streamer.settings import sources as config
from streamer.sources.json_clicks import JsonDecoder
from streamer.sources.simulated import (
    CHUNK,
    TASTES,
    SimulatedClicks,
    TrafficSettings,
    item_name,
    named_items,
    taste_of,
)

PARTITION = Partition("simulated", 0)
COLUMNS = ("item_keys", "session_keys", "event_times_ms", "weights", "offsets")


class ManualClock:
    def __init__(self):
        self.now = 100.0
        self.slept = 0.0

    def now_ms(self):
        return int(self.now * 1000)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds


def make(**settings):
    return SimulatedClicks(TrafficSettings(**settings), ManualClock())


def read(source, n, sizes=(1 << 30,)):
    """Poll until `n` records are read; return columns, item ids and dead letters."""
    columns, items, dead = defaultdict(list), [], []
    left, turn = n, 0
    while left > 0:
        batch = source.poll(0.0, min(left, sizes[turn % len(sizes)]))
        assert len(batch) + len(batch.dead_letters) == batch.n_read
        left, turn = left - batch.n_read, turn + 1
        for name in COLUMNS:
            columns[name].extend(getattr(batch, name).tolist())
        for start, length in zip(batch.item_starts, batch.item_lengths, strict=True):
            items.append(batch.buffer[start : start + length].tobytes())
        dead.extend((one.offset, one.reason, one.raw) for one in batch.dead_letters)
    return dict(columns), items, dead


def test_polls_may_cut_the_stream_anywhere():
    whole = read(make(), CHUNK + 3000)
    cut = read(make(), CHUNK + 3000, sizes=(1, 700, 13, 4096))

    assert cut == whole


def test_a_seek_goes_on_as_if_never_stopped():
    first = CHUNK - 500
    source = make()
    read(source, first)
    expected = read(source, 2000)
    resumed = make()
    resumed.seek(Offsets({PARTITION: first}), {})

    assert read(resumed, 2000) == expected
    assert resumed.position() == source.position() == Offsets({PARTITION: first + 2000})


def test_another_seed_is_other_traffic():
    assert read(make(seed=1), 500)[1] != read(make(seed=2), 500)[1]


def test_no_chunk_repeats_another():
    items = read(make(malformed=0), 2 * CHUNK)[1]

    assert np.mean([a == b for a, b in zip(items[:CHUNK], items[CHUNK:], strict=True)]) < 0.05


def test_the_lines_say_what_the_columns_say():
    n = CHUNK + 1000
    columns, items, dead = read(make(), n)
    lines = list(make().lines(n))
    text = np.frombuffer(bytearray(b"".join(lines)), dtype=np.uint8)
    lengths = np.array([len(line) for line in lines])
    starts = np.cumsum(lengths) - lengths
    decoded = JsonDecoder(config.Clicks()).decode(PARTITION, text, starts, lengths, np.arange(n), n)

    assert {name: getattr(decoded, name).tolist() for name in COLUMNS} == columns
    spans = zip(decoded.item_starts, decoded.item_lengths, strict=True)
    assert [decoded.buffer[a : a + m].tobytes() for a, m in spans] == items
    assert [(one.offset, one.reason, one.raw) for one in decoded.dead_letters] == dead


def test_a_batch_points_at_the_raw_record_of_each_click():
    batch = make().poll(0.0, 200)
    for i in (0, 17, len(batch) - 1):
        start, length = batch.record_starts[i], batch.record_lengths[i]
        record = json.loads(batch.buffer[start : start + length].tobytes())
        at, size = batch.item_starts[i], batch.item_lengths[i]

        assert record["ts"] == batch.event_times_ms[i]
        assert record["item_id"].encode() == batch.buffer[at : at + size].tobytes()


def test_rows_are_the_clicks_that_can_be_read():
    rows = list(make(malformed=0.05).rows(2000))
    columns, items, dead = read(make(malformed=0.05), 2000)

    assert [row["ts"] for row in rows] == columns["event_times_ms"]
    assert [row["item_id"].encode() for row in rows] == items
    assert len(rows) == 2000 - len(dead)


def test_sessions_keep_to_their_taste():
    sessions = defaultdict(list)
    for row in make(late=0, too_late=0).rows(CHUNK):
        sessions[row["user_id"]].append(row["item_id"])
    people = [items for user, items in sessions.items() if user.startswith("u")]
    of_one_taste = [
        Counter(taste_of(item.encode()) for item in items).most_common(1)[0][1] / len(items)
        for items in people
    ]

    assert len(TASTES) >= 20
    assert len(people) > 4000
    assert 3 <= np.median([len(items) for items in people]) <= 12
    assert np.mean(of_one_taste) > 0.85
    assert max(len(items) for user, items in sessions.items() if user.startswith("b")) > 400


def test_shares_of_repeats_lateness_and_malformed_records_are_as_set():
    columns, _, dead = read(make(), 4 * CHUNK)
    times = np.array(columns["event_times_ms"])
    behind = np.maximum.accumulate(times) - times
    last, repeats = {}, 0
    for session, item in zip(columns["session_keys"], columns["item_keys"], strict=True):
        repeats += last.get(session) == item
        last[session] = item

    assert np.mean(behind > 1000) == pytest.approx(0.02, abs=0.002)
    assert np.mean(behind > 2_100_000) == pytest.approx(0.001, abs=0.0004)
    assert len(dead) / (4 * CHUNK) == pytest.approx(0.001, abs=0.0004)
    # beside the 3 % that are planted, a popular item is drawn twice in a row now and then
    assert 0.03 < repeats / len(times) < 0.12


def test_a_user_is_back_only_after_a_gap_of_half_an_hour():
    seen = defaultdict(list)
    for row in make(late=0, too_late=0).rows(13 * CHUNK):
        if row["user_id"].startswith("u"):
            seen[row["user_id"]].append(row["ts"])
    returned = [np.diff(times) for times in seen.values() if times[-1] - times[0] > 600_000]

    assert len(returned) > 1000
    assert all((gaps > 1_800_000).sum() == (gaps > 600_000).sum() == 1 for gaps in returned)


def test_newborn_items_are_popular_when_young_and_forgotten_when_old():
    def clicks_at(chunk):
        source = make()
        source.seek(Offsets({PARTITION: chunk * CHUNK}), {})
        return Counter(read(source, CHUNK)[1])

    births = 24 * 60
    young = {item_name(births + i).encode() for i in range(16)}
    before, at_birth, later = clicks_at(0), clicks_at(1), clicks_at(80)
    share = sum(at_birth[item] for item in young) / CHUNK

    assert not any(before[item] for item in young)
    assert share > 2 * 16 / births
    assert not any(later[item] for item in young)
    assert len(set(later) - set(before)) > 500


def test_tastes_drift():
    def shares(chunk):
        source = make()
        source.seek(Offsets({PARTITION: chunk * CHUNK}), {})
        tastes = Counter(taste_of(item) for item in read(source, CHUNK)[1])
        return np.array([tastes[t] / CHUNK for t in range(len(TASTES))])

    assert np.abs(shares(0) - shares(250)).max() > 0.015


def test_the_named_items_are_well_known_and_of_different_tastes():
    clicks = Counter(read(make(), CHUNK)[1])
    named = named_items(8)

    assert len({taste_of(item) for item in named}) == 8
    assert all(clicks[item] >= clicks.most_common(100)[-1][1] for item in named)


def test_names_are_unique_and_fit_their_record():
    names = [item_name(i) for i in range(20_000)]

    assert len(set(names)) == len(names)
    assert max(len(name.encode()) for name in names) <= 48


def test_the_limit_is_the_end():
    source = make(limit=700)
    n_read = source.poll(0.0, 10_000).n_read

    assert n_read == 700
    assert source.is_exhausted()
    assert source.ended() == (PARTITION,)
    assert source.lag().clicks == 0
    assert source.poll(0.0, 10) is None
    assert source.caught_up() == (PARTITION,)


def test_an_offset_beyond_the_limit_cannot_be_read():
    with pytest.raises(ConfigError, match="limit 700, found 701"):
        make(limit=700).seek(Offsets({PARTITION: 701}), {})


def test_a_rate_gives_what_is_due_and_waits_no_longer_than_it_may():
    clock = ManualClock()
    source = SimulatedClicks(TrafficSettings(rate=1000.0), clock)

    assert source.poll(0.001, 500).n_read == 1  # of the 20 that are worth a batch
    assert clock.slept == pytest.approx(0.001)
    clock.now += 0.3
    assert source.lag().clicks == 300
    assert source.poll(0.001, 200).n_read == 200
    assert source.poll(0.001, 200).n_read == 100
    assert source.poll(0.0, 200) is None
    assert source.caught_up() == (PARTITION,)


def test_a_rate_waits_for_a_batch_worth_20_ms_and_no_longer():
    clock = ManualClock()
    source = SimulatedClicks(TrafficSettings(rate=1024.0), clock)

    assert source.poll(10.0, 500).n_read == 20
    assert clock.slept == pytest.approx(20 / 1024)


def test_a_paused_source_gives_nothing_and_moves_nowhere():
    source = make()
    source.pause()

    assert source.poll(0.5, 10) is None
    assert source.position() == Offsets({PARTITION: 0})
    source.resume()
    assert source.poll(0.5, 10).n_read == 10
