"""Open windows as one object: spans cover the arrivals, and a restore goes on as before."""

import numpy as np
import pytest

from kernels import sessions as kernels
from kernels.seen import NO_EVENT
from state.offsets import Partition
from state.sections import Section
from streamer.settings.stream import Sessions
from streamer.windows import sessions
from streamer.windows.event_ids import EventIds
from streamer.windows.sessions import SessionWindows
from streamer.windows.watermark import Watermarks
from tests import oracles

WINDOW, N = 3, 3000
EMPTY = (Section(), Section())
NOTHING_SEEN = EventIds(1, Section()).with_room(np.zeros(0, np.uint64))


class Both:
    """Session windows with their watermarks, over one stream of two partitions."""

    def __init__(self, settings, sections=EMPTY):
        self.watermarks = Watermarks(sections[0])
        for index in (0, 1):
            self.watermarks.index_of(Partition("clicks", index))
        self.windows = SessionWindows(settings, WINDOW, self.watermarks, sections[1])
        self.tiles, self.fates = [], []

    def arrive(self, clicks, partition):
        arrivals = arrived(clicks)
        fates, begin = np.full(len(clicks), 255, np.uint8), 0
        for span in self.windows.arrive(arrivals, partition, NOTHING_SEEN, fates):
            assert span.begin == begin
            assert (fates[span.begin : span.end] <= kernels.BOT).all()
            assert (fates[span.end :] == 255).all()
            begin = span.end
            self.take(span.tiles)
        assert begin == len(clicks)
        self.fates += fates.tolist()

    def close_all(self):
        for span in self.windows.close_all():
            assert (span.begin, span.end) == (0, 0)
            self.take(span.tiles)

    def take(self, tiles):
        for t in range(int(tiles.used[0])):
            where = int(tiles.partitions[t]), int(tiles.offsets[t]), int(tiles.numbers[t])
            neighbours = tiles.neighbours[t, : tiles.n_neighbours[t]].tolist()
            self.tiles.append((*where, tuple(neighbours)))

    def snapshots(self):
        return self.watermarks.snapshot(), self.windows.snapshot()


def arrived(clicks):
    keys, items, times, offsets = zip(*clicks, strict=True) if clicks else ((), (), (), ())
    return kernels.Arrivals(
        np.array(keys, np.uint64),
        np.array(items, np.uint64),
        np.array(times, np.int64),
        np.array(offsets, np.int64),
        np.ones(len(clicks), np.float32),
        np.zeros(len(clicks), np.uint8),
        np.full(len(clicks), NO_EVENT),
    )


def stream(n=N, n_keys=1500, seed=1):
    """Runs of clicks of two partitions; more windows than the first room."""
    rng = np.random.default_rng(seed)
    runs, offset = [], [0, 0]
    for begin in range(0, n, 50):
        partition = begin // 50 % 2
        clicks = []
        for at in range(50):
            time = 1000 * (begin + at) - int(rng.integers(0, 400)) * 1000
            clicks.append(
                (int(rng.integers(n_keys)), int(rng.integers(1, 30)), time, offset[partition])
            )
            offset[partition] += 1
        runs.append((partition, clicks))
    return runs


def settings(emission="on_close"):
    return Sessions(gap_seconds=200, lateness_seconds=100, emission=emission, max_kept=5)


def play(one, runs):
    for partition, clicks in runs:
        one.arrive(clicks, partition)
    return one


def assert_equal(found, truth):
    for one, other in zip(found, truth, strict=True):
        assert one.values == other.values
        assert one.arrays.keys() == other.arrays.keys()
        for name, values in other.arrays.items():
            assert np.array_equal(one.arrays[name], values), name


@pytest.mark.parametrize("emission", ["early", "on_close"])
def test_windows_beyond_the_first_room_are_those_of_the_oracle(emission):
    chosen = settings(emission)
    found = play(Both(chosen), stream())
    oracle = oracles.Sessions(found.windows._rules, 2)
    fates = [
        oracle.arrive(oracles.Click(key, item, time, partition, offset))
        for partition, clicks in stream()
        for key, item, time, offset in clicks
    ]

    assert len(found.windows) == len(oracle.windows) > 100
    assert found.windows.held == oracle.held
    names = ("accepted", "repeat", "late", "future", "bot")
    assert [names[fate] for fate in found.fates] == fates
    found.close_all()
    oracle.close_all()
    assert found.tiles == [
        (tile.click.partition, tile.click.offset, tile.number, tile.neighbours)
        for tile in oracle.tiles
    ]
    counts = {name: n for name, n in found.windows.counts().items() if n}
    assert counts == {**oracle.counts, "opened": oracle.n_opened}


@pytest.mark.parametrize("tiles", [1, 2, 7])
def test_tiles_that_do_not_fit_come_in_several_spans(tiles, monkeypatch):
    whole = play(Both(settings()), stream(600, n_keys=20))
    whole.close_all()

    monkeypatch.setattr(sessions, "_TILES", tiles)
    parts = play(Both(settings()), stream(600, n_keys=20))
    parts.close_all()

    assert parts.tiles == whole.tiles
    assert parts.fates == whole.fates
    assert_equal(parts.snapshots(), whole.snapshots())


@pytest.mark.parametrize("emission", ["early", "on_close"])
@pytest.mark.parametrize("cut", [0, 1, 17, 59])
def test_restored_windows_have_equal_values_and_an_equal_future(emission, cut):
    runs, chosen = stream(), settings(emission)
    one = play(Both(chosen), runs[:cut])

    other = Both(chosen, one.snapshots())

    assert_equal(other.snapshots(), one.snapshots())
    assert (len(other.windows), other.windows.held) == (len(one.windows), one.windows.held)
    assert other.windows.counts() == one.windows.counts()
    for each in (one, other):
        each.tiles.clear()
        play(each, runs[cut:])
        each.close_all()
    assert other.tiles == one.tiles
    assert_equal(other.snapshots(), one.snapshots())


def test_a_generation_that_was_written_before_windows_were_spread_is_restored():
    one = play(Both(settings()), stream(600))
    watermarks, windows = one.snapshots()
    counts = {name: n for name, n in windows.values["counts"].items() if name != "spread"}
    assert one.windows.counts()["spread"] > 0

    other = Both(settings(), (watermarks, Section(windows.arrays, {"counts": counts, "held": 0})))

    assert other.windows.counts() == {**counts, "spread": 0}


def test_a_snapshot_is_not_touched_by_later_clicks():
    runs = stream()
    one = play(Both(settings()), runs[:30])
    _, snapshot = one.snapshots()
    kept = {name: values.copy() for name, values in snapshot.arrays.items()}

    play(one, runs[30:])

    for name, values in kept.items():
        assert np.array_equal(snapshot.arrays[name], values)


def test_a_snapshot_is_in_the_order_of_keys_and_starts():
    _, snapshot = play(Both(settings()), stream()).snapshots()
    keys, starts = snapshot.arrays["keys"].tolist(), snapshot.arrays["windows"][:, 0].tolist()
    order = list(zip(keys, starts, strict=True))
    assert order == sorted(order)
    assert len(snapshot.arrays["clicks"]) == snapshot.arrays["windows"][:, 2].sum()


def test_a_longer_lateness_after_a_restart_keeps_windows_open_longer():
    one = play(Both(settings()), [(0, [(1, 1, 0, 0), (2, 2, 300_000, 1)])])
    patient = Sessions(gap_seconds=200, lateness_seconds=1000, emission="on_close")
    for chosen, n_open in ((settings(), 2), (patient, 3)):
        again = Both(chosen, one.snapshots())
        play(again, [(0, [(3, 3, 320_000, 2)])])
        assert len(again.windows) == n_open


def test_a_lower_bound_after_a_restart_closes_what_is_too_many():
    many = [(0, [(key, 1, 10 * key, key) for key in range(6)])]
    before = play(Both(settings()), many)
    assert len(before.windows) == 6
    again = Both(Sessions(gap_seconds=200, emission="on_close", max_open=3), before.snapshots())
    play(again, [(0, [(9, 3, 100, 9)])])
    assert len(again.windows) == 3


def test_no_arrivals_are_no_spans():
    one = Both(settings())
    assert list(one.windows.arrive(arrived([]), 0, NOTHING_SEEN, np.empty(0, np.uint8))) == []
