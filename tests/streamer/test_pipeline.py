"""The state after n clicks is a function of those clicks, and each of them is accounted for."""

import base64
import dataclasses
import json
from collections import Counter
from itertools import repeat
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash

from state.offsets import Offsets, Partition
from streamer.pipeline import Start
from streamer.settings.sources import Clicks
from streamer.settings.sources import FileSource as FileSettings
from streamer.sources.contract import LocalSource
from streamer.sources.dead_letters import DeadLetters
from streamer.sources.files import FileSource
from streamer.windows.sessions import SessionWindows
from tests import oracles
from tests.state.stored import LEARNED, by_id
from tests.streamer import streams

N = 1500


@pytest.fixture(scope="module")
def records():
    return streams.stream(N)


def random_sizes():
    rng = np.random.default_rng(4)
    while True:
        yield int(rng.integers(1, 40))


SIZES = {
    "1": lambda: repeat(1),
    "7": lambda: repeat(7),
    "random": random_sizes,
    "100,000": lambda: repeat(100_000),
}


@pytest.fixture
def run(tmp_path, manual_clock):
    """Run a stream through a pipeline of its own; return the pipeline."""
    made = []

    def run(records, sizes=None, finish=True, event_of=streams.no_event, **settings):
        directory = tmp_path / str(len(made))
        configured = streams.config(directory, **settings)
        one = streams.pipeline(configured, directory, manual_clock)
        made.append(one)
        for batch in streams.batches(configured, records, sizes or repeat(100_000), event_of):
            one.apply(batch)
        if finish:
            one.finish()
        return one

    yield run
    for one in made:
        one._dead_letters.close()


def everything(pipeline):
    """Return the state by what it means, so that it can be compared bit for bit."""
    sections = pipeline.cut().sections
    arrays = {name: one.tobytes() for name, one in sections["windows"].arrays.items()}
    return {
        "items": by_id(sections),
        "accepted": pipeline.store.accepted,
        "ledger": sections["ledger"].values,
        "windows": (arrays, sections["windows"].values),
        "watermarks": sections["watermarks"].values,
        "pairs": (
            {name: one.tobytes() for name, one in sections["pairs"].arrays.items()},
            sections["pairs"].values,
        ),
        "event_ids": {name: one.tobytes() for name, one in sections["event_ids"].arrays.items()},
        "quality": (
            {name: one.tobytes() for name, one in sections["quality"].arrays.items()},
            sections["quality"].values,
        ),
        "offsets": pipeline.offsets.to_json(),
        "held": pipeline.windows.held,
    }


# cut-free


@pytest.mark.parametrize("emission", ["early", "on_close"])
def test_the_state_depends_on_the_clicks_and_not_on_how_they_are_cut(emission, run, records):
    truth = everything(run(records, finish=False, emission=emission, audit=True))
    for name, sizes in SIZES.items():
        for n_shards in (1, 8):
            settings = {"emission": emission, "n_shards": n_shards, "audit": True}
            one = run(records, sizes(), finish=False, **settings)

            assert everything(one) == truth, f"batches of {name}, {n_shards} shards"


def test_the_stream_of_these_tests_holds_every_kind_of_click(run, records):
    one = run(records, finish=False)
    counts = one.windows.counts()
    assert one.ledger.filtered.keys() == {"late", "bot"}
    assert one.ledger.dead_lettered.keys() == {"malformed", "future"}
    assert min(counts["merged"], counts["dropped"], counts["closed"]) > 5
    assert len(one.windows) > 5


@pytest.mark.parametrize("bound", [{"max_open": 7}, {"max_items": 40}, {"max_kept": 1}])
def test_bounds_bite_at_the_same_clicks_however_they_are_cut(bound, run, records):
    for emission in ("early", "on_close"):
        truth = everything(run(records, finish=False, emission=emission, **bound))
        for sizes in SIZES.values():
            one = run(records, sizes(), finish=False, emission=emission, **bound)
            assert everything(one) == truth


@pytest.mark.parametrize("n", [1, 7, 333, 100_000])
def test_a_source_may_be_polled_for_any_number_of_clicks(n, tmp_path, manual_clock, records):
    paths = [tmp_path / f"{index}.jsonl" for index in (0, 1)]
    for index, path in enumerate(paths):
        lines = [one.raw for one in records if one.partition == index]
        path.write_bytes(b"\n".join(lines) + b"\n")

    def polled(directory, max_clicks):
        settings = streams.config(directory, emission="on_close")
        one = streams.pipeline(settings, directory, manual_clock)
        source = FileSource(FileSettings(paths=tuple(paths)), settings.clicks, manual_clock)
        n_read = 0
        while not source.is_exhausted():
            n_read += one.step(source, 1.0, max_clicks)
        found = everything(one)
        one._dead_letters.close()
        assert n_read == one.clicks == N
        assert one.windows.counts()["closed_by_idle"] > 0
        return found

    assert polled(tmp_path / "one", n) == polled(tmp_path / "all", 1 << 20)


# resume-is-start


@pytest.mark.parametrize("emission", ["early", "on_close"])
@pytest.mark.parametrize("cut", [0, 1, 400, 1499])
def test_a_restored_pipeline_has_an_equal_state_and_an_equal_future(
    emission, cut, run, records, tmp_path, manual_clock
):
    truth = run(records, finish=False, emission=emission, audit=True)
    before = run(records[:cut], finish=False, emission=emission, audit=True)
    state = before.cut()

    settings = streams.config(tmp_path / "again", emission=emission, audit=True)
    start = Start(state.sections, state.offsets, "another space")
    after = streams.pipeline(settings, tmp_path / "again", manual_clock, start)

    assert everything(after) == everything(before)
    for batch in streams.batches(settings, records[cut:], repeat(11)):
        after.apply(batch)
    assert everything(after) == everything(truth)
    assert after.store.space_id == "space"
    after._dead_letters.close()


def test_a_generation_that_was_written_without_sums_of_pairs_goes_on(
    run, records, tmp_path, manual_clock
):
    state = run(records[:500], finish=False).cut()
    sections = {name: one for name, one in state.sections.items() if name != "pairs"}
    settings = streams.config(tmp_path / "again")
    start = Start(sections, state.offsets, "another space")
    after = streams.pipeline(settings, tmp_path / "again", manual_clock, start)

    assert [row[2:] for row in after.pairs.by_partition()] == [[0, "0" * 16]] * 2
    before = after.ledger.pairs
    for batch in streams.batches(settings, records[500:], repeat(11)):
        after.apply(batch)
    assert sum(count for *_, count, _ in after.pairs.by_partition()) == after.ledger.pairs - before
    after._dead_letters.close()


# nothing-vanishes


def counted_by_the_oracle(records, settings, event_of=streams.no_event):
    """Return what becomes of each record by the semantics, and the ids that have a row."""
    ms = 1000
    sessions = settings.sessions
    rules = SimpleNamespace(
        gap=sessions.gap_seconds * ms,
        lateness=sessions.lateness_seconds * ms,
        out_of_orderness=sessions.out_of_orderness_seconds * ms,
        max_jump=sessions.max_jump_seconds * ms,
        max_kept=sessions.max_kept,
        max_trained=sessions.max_trained,
        max_open=sessions.max_open,
        window=settings.training.window,
        is_early=sessions.emission == "early",
    )
    oracle = oracles.Sessions(rules, 2, max_events=settings.clicks.max_event_ids)
    items, fates = set(), {}
    for record in records:
        click = streams.parsed(record)
        fate = "malformed"
        if click is not None:
            user, item, time = click
            is_full = item not in items and len(items) >= settings.store.max_items
            place = (record.partition, record.offset)
            event = event_of(*place)
            arrived = oracles.Click(user, item, time, *place, is_refused=is_full, event=event)
            fate = oracle.arrive(arrived)
        if fate in {"accepted", "repeat"}:
            items.add(click[1])
        fates[record.partition, record.offset] = fate.replace("refused", "store_full")
    return list(fates.values()), items, oracle


@pytest.mark.parametrize("emission", ["early", "on_close"])
@pytest.mark.parametrize("size", SIZES)
def test_each_click_is_counted_as_what_became_of_it(emission, size, run, records):
    settings = {"emission": emission, "max_items": 40}
    one = run(records, SIZES[size](), finish=False, **settings)

    fates, items, oracle = counted_by_the_oracle(records, one._config)
    n_applied = sum(fate in {"accepted", "repeat"} for fate in fates)
    assert {fate for fate in fates} > {"late", "future", "bot", "store_full", "malformed"}
    assert one.ledger.filtered == {
        reason: fates.count(reason) for reason in ("late", "bot", "store_full")
    }
    assert one.ledger.dead_lettered == {
        reason: fates.count(reason) for reason in ("future", "malformed")
    }
    assert one.windows.held == oracle.held
    assert one.ledger.applied == n_applied - oracle.held
    assert one.ledger.pairs == sum(2 * len(tile.neighbours) for tile in oracle.tiles)
    assert {name.decode() for name in by_id(one.cut().sections)[0]} == items
    assert one.missing == 0
    one.finish()
    assert (one.windows.held, one.ledger.applied, one.missing) == (0, n_applied, 0)


def pairs_by_session(pipeline):
    arrays = pipeline.cut().sections["pairs"].arrays
    rows = (arrays[name].tolist() for name in ("keys", "counts", "sums"))
    return {key: (count, total) for key, count, total in zip(*rows, strict=True)}


@pytest.mark.parametrize("emission", ["early", "on_close"])
@pytest.mark.parametrize("size", SIZES)
def test_the_pairs_of_partitions_and_sessions_are_those_of_the_oracle(emission, size, run, records):
    one = run(records, SIZES[size](), emission=emission, max_items=40, audit=True)

    *_, oracle = counted_by_the_oracle(records, one._config)
    oracle.close_all()
    by_partition = oracles.PairSums().add(oracle.tiles).found()
    by_session = oracles.PairSums(lambda click: xxhash.xxh64_intdigest(click.key.encode(), seed=2))
    rows = [["clicks", at, n, f"{total:016x}"] for at, (n, total) in by_partition.items()]
    assert len(rows) == 2
    assert sorted(one.cut().facts["pairs"]) == sorted(rows)
    assert pairs_by_session(one) == by_session.add(oracle.tiles).found()
    assert sum(n for n, _ in by_partition.values()) == one.ledger.pairs


# Event ids


def event_of(partition, offset):
    """One click in three has none; of the others many come again, some after a long time."""
    return 0 if offset % 3 == 0 else 1 + offset * (5 + 2 * partition) % 331


@pytest.mark.parametrize("emission", ["early", "on_close"])
@pytest.mark.parametrize("max_event_ids", [1, 120, 1_000_000])
def test_a_click_whose_event_id_is_remembered_is_left_out(emission, max_event_ids, run, records):
    settings = {"emission": emission, "max_items": 40, "max_event_ids": max_event_ids}
    truth = run(records, finish=False, event_of=event_of, **settings)

    fates, _, oracle = counted_by_the_oracle(records, truth._config, event_of)
    expected = Counter(fate for fate in fates if fate not in {"accepted", "repeat"})
    assert (expected["duplicate"] > 100) == (max_event_ids > 1)
    assert truth.ledger.filtered + truth.ledger.dead_lettered == expected
    assert truth.ledger.pairs == sum(2 * len(tile.neighbours) for tile in oracle.tiles)
    assert truth.missing == 0
    for size in SIZES.values():
        one = run(records, size(), finish=False, event_of=event_of, **settings)
        assert everything(one) == everything(truth)


@pytest.mark.parametrize("cut", [1, 60, 400, 1499])
def test_what_is_remembered_of_event_ids_survives_a_restart(
    cut, run, records, tmp_path, manual_clock
):
    truth = run(records, finish=False, event_of=event_of, max_event_ids=120)
    state = run(records[:cut], finish=False, event_of=event_of, max_event_ids=120).cut()
    settings = streams.config(tmp_path / "again", max_event_ids=120)
    start = Start(state.sections, state.offsets, "another space")
    after = streams.pipeline(settings, tmp_path / "again", manual_clock, start)

    for batch in streams.batches(settings, records[cut:], repeat(11), event_of):
        after.apply(batch)

    assert everything(after) == everything(truth)
    after._dead_letters.close()


def click_at(offset, ts):
    return streams.Record(0, offset, b'{"user_id":"u","item_id":"i%d","ts":%d}' % (offset, ts))


def test_a_click_from_the_future_may_come_again_with_another_time(run):
    start, far = 1_700_000_000_000, 1_700_000_000_000 + 9 * streams.MAX_JUMP_MS
    clicks = [click_at(0, start), click_at(1, far), click_at(2, start), click_at(3, start)]
    for size in (1, 4):
        one = run(clicks, repeat(size), event_of=lambda _, offset: 8 + (offset > 0))
        assert one.ledger.dead_lettered == {"future": 1}
        assert one.ledger.filtered == {"duplicate": 1}
        assert one.ledger.applied == 2


def test_without_event_ids_a_producers_duplicate_is_two_clicks(run):
    clicks = [click_at(0, 1_700_000_000_000), click_at(1, 1_700_000_000_000)]
    one = run(clicks, finish=False)
    assert one.ledger.applied == 2
    assert len(one.event_ids) == 0


def test_a_dropped_click_is_missed(run, records, monkeypatch):
    arrive = SessionWindows.arrive

    def forgetful(self, arrivals, *others):
        n = len(arrivals.times) - (100 in arrivals.offsets)
        return arrive(self, type(arrivals)(*(one[:n] for one in arrivals)), *others)

    monkeypatch.setattr(SessionWindows, "arrive", forgetful)
    assert run(records).missing == sum(one.offset == 100 for one in records) == 2


@pytest.mark.parametrize("reason", ["late", "bot", "store_full"])
def test_a_reason_that_is_not_counted_is_missed(reason, run, records, monkeypatch):
    one = run(records[:1], finish=False, max_items=40)
    count = one.ledger.filter
    monkeypatch.setattr(one.ledger, "filter", lambda why, n: why == reason or count(why, n))
    for batch in streams.batches(one._config, records[1:], repeat(50)):
        one.apply(batch)
    assert one.missing > 0


def test_dead_letters_carry_their_bytes_and_their_place(run, records, tmp_path):
    one = run(records, repeat(13))
    one.cut()

    lines = (tmp_path / "0" / "dead_letters.jsonl").read_text().splitlines()
    letters = [json.loads(line) for line in lines]
    fates, *_ = counted_by_the_oracle(records, one._config)
    expected = {
        ("clicks", record.partition, record.offset): (fate, record.raw)
        for record, fate in zip(records, fates, strict=True)
        if fate in {"malformed", "future"}
    }
    assert len(letters) == len(expected) == one.ledger.dead_lettered.total()
    assert {
        (letter["topic"], letter["partition"], letter["offset"]): (
            letter["reason"],
            letter["raw"].encode(),
        )
        for letter in letters
    } == expected


def test_a_dead_letter_that_is_no_text_keeps_its_bytes(run, tmp_path):
    raw = b'{"user_id": "\xff"}'
    run([streams.Record(0, 0, raw)]).cut()
    (line,) = (tmp_path / "0" / "dead_letters.jsonl").read_text().splitlines()
    assert base64.b64decode(json.loads(line)["raw_base64"]) == raw


def test_a_long_click_from_the_future_is_cut_as_other_dead_letters_are(run, tmp_path):
    user = "u" * 10_000
    clicks = [
        streams.Record(0, at, b'{"ts":%d,"item_id":"i","user_id":"%s"}' % (ts, user.encode()))
        for at, ts in enumerate([0, streams.MAX_JUMP_MS * 9])
    ]
    run(clicks).cut()
    (line,) = (tmp_path / "0" / "dead_letters.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "future"
    assert json.loads(line)["raw"] == clicks[1].raw[:4096].decode()


def test_a_click_from_the_future_is_a_letter_with_its_key_and_all_its_bytes(run, monkeypatch):
    letters = []
    monkeypatch.setattr(DeadLetters, "append", lambda self, more: letters.extend(more))
    clicks = [
        streams.Record(0, at, b'{"ts":%d,"item_id":"i","user_id":"%s"}' % (ts, b"u" * 10_000))
        for at, ts in enumerate([0, streams.MAX_JUMP_MS * 9])
    ]
    one = run(clicks[:1])
    (batch,) = streams.batches(one._config, clicks[1:], repeat(1))

    one.apply(dataclasses.replace(batch, record_keys=[b"key"]))

    assert [(one.offset, one.reason, one.raw, one.key) for one in letters] == [
        (1, "future", clicks[1].raw, b"key")
    ]


def test_types_are_filtered_and_counted_and_their_weights_count_in_popularity(
    tmp_path, manual_clock
):
    settings = streams.config(tmp_path).model_copy(
        update={"clicks": Clicks(type="kind", types={"view": 1, "buy": 8})}
    )
    raw = b'{"user_id":"u%d","item_id":"%s","ts":%d,"kind":"%s"}'
    kinds = [b"view", b"buy", b"scroll", b""]
    records = [
        streams.Record(0, n, raw % (n, b"of-" + kind, 1000 + n, kind))
        for n, kind in enumerate(kinds)
    ]
    one = streams.pipeline(settings, tmp_path, manual_clock)
    for batch in streams.batches(settings, records, repeat(3)):
        one.apply(batch)

    assert one.ledger.filtered == {"unlisted_type": 2}
    assert (one.ledger.applied, one.missing) == (2, 0)
    items, *_ = by_id(one.cut().sections)
    assert items.keys() == {b"of-view", b"of-buy"}
    at = LEARNED.index("popularity")
    popularity = {item: np.frombuffer(values[at])[-1] for item, values in items.items()}
    # log2 of the weights, and one click's decay by a half-life of 50,000 clicks between them
    assert popularity[b"of-buy"] - popularity[b"of-view"] == pytest.approx(3, abs=1e-4)
    one._dead_letters.close()


def test_event_time_goes_on_while_the_store_is_full(run):
    step_ms = streams.MAX_JUMP_MS // 2
    clicks = [
        streams.Record(0, at, b'{"user_id":"u","item_id":"i%d","ts":%d}' % (item, at * step_ms))
        for at, item in enumerate([0, *range(1, 40), 0])
    ]
    one = run(clicks, max_items=1)
    assert one.ledger.filtered == {"store_full": 39}
    assert one.ledger.dead_lettered == {}
    assert one.ledger.applied == 2


def test_a_hash_collision_is_filtered_and_counted(run, records, tmp_path):
    one = run(records, finish=False)
    items = len(one.store)
    (batch,) = streams.batches(
        one._config,
        [streams.Record(0, 10_000, b'{"user_id":"u1","item_id":"impostor","ts":1700001500000}')],
        repeat(1),
    )
    key = next(iter(one.store.vocabulary.arrays.keys))
    one.apply(dataclasses.replace(batch, item_keys=np.array([key])))

    assert one.ledger.filtered["hash_collision"] == 1
    assert one.missing == 0
    assert len(one.store) == items


def test_a_hash_collision_of_two_new_items_in_one_batch_is_filtered(run, records):
    one = run(records, finish=False)
    items = len(one.store)
    new = [
        streams.Record(
            0, 10_000 + at, b'{"user_id":"u%d","item_id":"%s","ts":1700001500000}' % pair
        )
        for at, pair in enumerate([(1, b"new"), (2, b"impostor"), (3, b"new"), (4, b"other")])
    ]
    (batch,) = streams.batches(one._config, new, repeat(4))
    keys = batch.item_keys.copy()
    keys[1] = keys[0]
    one.apply(dataclasses.replace(batch, item_keys=keys))

    assert one.ledger.filtered["hash_collision"] == 1
    assert one.missing == 0
    assert len(one.store) == items + 2


def test_the_end_of_a_stream_applies_what_was_held(run, records):
    one = run(records, emission="on_close")
    assert one.windows.held == 0
    assert len(one.windows) == 0
    assert one.store.accepted == one.ledger.applied
    assert one.missing == 0


def test_what_is_appended_after_an_end_is_not_late(run):
    def click(offset, ts):
        raw = b'{"user_id":"u1","item_id":"i%d","ts":%d}' % (offset, ts)
        return streams.Record(0, offset, raw)

    for emission in ("early", "on_close"):
        one = run([click(0, 1_700_000_000_000)], emission=emission)
        for batch in streams.batches(one._config, [click(1, 1_700_000_001_000)], repeat(1)):
            one.apply(batch)
        one.finish()
        assert one.ledger.applied == 2


@pytest.mark.parametrize("cut", [1, 700])
def test_a_stream_that_ended_and_goes_on_is_one_that_never_ended(cut, run, records):
    one = run(records[:cut])
    for batch in streams.batches(one._config, records[cut:], repeat(50)):
        one.apply(batch)

    assert everything(one) == everything(run(records, finish=False))


class Standing(LocalSource):
    """A source at the beginning of one partition."""

    def __init__(self, partition):
        self.partition = partition

    def partitions(self):
        return (self.partition,)

    def position(self):
        return Offsets({self.partition: 0})

    def marks(self):
        return {}


def test_the_end_of_a_stream_leaves_sessions_to_be_continued_elsewhere(run, tmp_path, manual_clock):
    start = 1_700_000_000_000
    clicks = [click_at(at, start + 1000 * at) for at in range(4)]
    whole = run(clicks)
    begun = run(clicks[:2])
    assert begun.finish() == 0
    assert len(begun.windows) == 1

    state = begun.cut()
    settings = streams.config(tmp_path / "again")
    one = streams.pipeline(
        settings, tmp_path / "again", manual_clock, Start(state.sections, state.offsets, "")
    )
    live = Partition("live", 0)
    one.begin_at(Standing(live))
    for batch in streams.batches(settings, clicks[2:], repeat(1)):
        one.apply(dataclasses.replace(batch, partition=live))
    one.finish()

    assert one.ledger.pairs == whole.ledger.pairs == 2 * (1 + 2 + 3)
    assert [row[:3] for row in one.pairs.by_partition()] == [["clicks", 0, 2], ["live", 0, 10]]
    assert one.windows.counts() == {**dict.fromkeys(one.windows.counts(), 0), "opened": 1}
    one._dead_letters.close()


def test_offsets_are_the_next_ones_to_read(run, records):
    one = run(records, repeat(9))
    ends = [sum(record.partition == index for record in records) for index in (0, 1)]
    assert [one.offsets[Partition("clicks", index)] for index in (0, 1)] == ends
