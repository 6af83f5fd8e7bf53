"""The session kernels over arrays of a size of their own, to be compared with `tests.oracles`."""

from itertools import groupby

import numpy as np

from kernels import closing, sessions, windows
from kernels.seen import Seen
from kernels.table import places
from kernels.tiles import empty_tiles
from tests.oracles import Click, Tile
from tests.strategies import Idle

FATES = {
    sessions.ACCEPTED: "accepted",
    sessions.REPEAT: "repeat",
    sessions.LATE: "late",
    sessions.REFUSED: "refused",
    sessions.FUTURE: "future",
    sessions.BOT: "bot",
    sessions.DUPLICATE: "duplicate",
}
_COUNTS = {
    "closed": windows.CLOSED,
    "closed_by_idle": windows.CLOSED_BY_IDLE,
    "evicted": windows.EVICTED,
    "dropped": windows.DROPPED,
    "merged": windows.MERGED,
    "spread": windows.SPREAD,
}
ROOM = 1 << 11


def new_seen(capacity):
    room = places(capacity) if capacity else 0
    keys, slots = np.zeros(room, np.uint64), np.full(room, -1, np.int64)
    return Seen(keys, slots, np.zeros(capacity, np.uint64), np.zeros(2, np.int64))


def new_windows(n_partitions, room=ROOM):
    counters = np.zeros(windows.N_COUNTERS, np.int64)
    counters[[windows.FREE_WINDOW, windows.FREE_CLICK]] = -1
    partitions = np.zeros((n_partitions, windows.PARTITION_COLUMNS), np.int64)
    partitions[:, windows.WATERMARK] = windows.NEVER
    partitions[:, windows.ROOT] = -1
    return windows.Windows(
        table_keys=np.zeros(2 * room, np.uint64),
        table_slots=np.full(2 * room, -1, np.int64),
        keys=np.zeros(room, np.uint64),
        windows=np.zeros((room, windows.WINDOW_COLUMNS), np.int64),
        clicks=np.zeros((room, 5), np.int64),
        items=np.zeros(room, np.uint64),
        weights=np.zeros(room, np.float32),
        partitions=partitions,
        counters=counters,
    )


def arrivals(clicks):
    return sessions.Arrivals(
        np.array([one.key for one in clicks], np.uint64),
        np.array([one.item for one in clicks], np.uint64),
        np.array([one.time for one in clicks], np.int64),
        np.array([one.offset for one in clicks], np.int64),
        np.array([one.weight for one in clicks], np.float32),
        np.array([one.is_refused for one in clicks], np.uint8),
        np.array([one.event for one in clicks], np.uint64),
    )


class KernelSessions:
    """What `tests.oracles.Sessions` is, by the kernels; `capacity` tiles are written at once."""

    def __init__(self, rules, n_partitions, capacity=64, room=ROOM, topics=0, max_events=0):
        self.rules = rules
        self.arrays = new_windows(n_partitions, room)
        self.arrays.partitions[:, windows.TOPIC] = topics
        self.seen = new_seen(max_events)
        self.buffer = empty_tiles(capacity, rules.window)
        self.tiles = []
        self.clicks = {}
        self.n_resumed = 0

    def run(self, events, batch=1000):
        """Take a stream in batches of one partition; return the fates of its clicks."""
        fates = []
        for _, same in groupby(events, key=lambda one: (type(one), one.partition)):
            run = list(same)
            if isinstance(run[0], Idle):
                self.arrays.partitions[run[0].partition, windows.IDLE] = 1
                continue
            for at in range(0, len(run), batch):
                fates += self.arrive(run[at : at + batch])
        return fates

    def arrive(self, clicks):
        self.clicks |= {(one.partition, one.offset): one for one in clicks}
        assert self.arrays.counters[windows.N_CLICKS] + len(clicks) <= len(self.arrays.items)
        columns, fates = arrivals(clicks), np.full(len(clicks), 255, np.uint8)
        partition, taken = clicks[0].partition, 0
        while taken < len(clicks):
            before = taken
            taken = sessions.extend(
                self.arrays, self.rules, columns, partition, before, self.seen, fates, self.buffer
            )
            self._train(is_stuck=taken == before)
            self.n_resumed += taken < len(clicks)
        return [FATES[fate] for fate in fates.tolist()]

    def close_all(self):
        while not closing.close_all(self.arrays, self.rules, self.buffer):
            self._train(is_stuck=True)
        self._train(is_stuck=False)

    @property
    def counts(self):
        counts = {name: int(self.arrays.counters[at]) for name, at in _COUNTS.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def held(self):
        return int(self.arrays.counters[windows.HELD])

    def collected(self):
        counters = self.arrays.counters
        used = self.arrays.windows[: counters[windows.N_WINDOWS]]
        n_kept = int(used[used[:, windows.PARTITION] >= 0, windows.KEPT].sum())
        n_open = int(counters[windows.OPEN])
        out = (
            np.zeros(n_open, np.uint64),
            np.zeros((n_open, 6), np.int64),
            np.zeros((n_kept, 3), np.int64),
            np.zeros(n_kept, np.uint64),
            np.zeros(n_kept, np.float32),
        )
        windows.collect(self.arrays, *out)
        return out

    def open_windows(self):
        keys, spans, clicks, items, weights = self.collected()
        found, at = [], 0
        for key, (start, end, kept, trained, partition, number) in zip(
            keys.tolist(), spans.tolist(), strict=True
        ):
            kept_clicks = tuple(
                Click(key, int(items[c]), *clicks[c].tolist(), float(weights[c]))
                for c in range(at, at + kept)
            )
            at += kept
            found.append((key, start, end, trained, partition, number, kept_clicks))
        return sorted(found)

    def restored(self):
        """Return another one, rebuilt from copies of what this one holds."""
        other = KernelSessions(self.rules, len(self.arrays.partitions), len(self.buffer.items))
        other.arrays.partitions[:, : windows.ROOT] = self.arrays.partitions[:, : windows.ROOT]
        windows.rebuild(other.arrays, self.rules, *self.collected())
        for place in (*_COUNTS.values(), windows.OPENED, windows.HELD):
            other.arrays.counters[place] = self.arrays.counters[place]
        other.clicks = dict(self.clicks)
        return other

    def _train(self, is_stuck):
        tiles = self.buffer
        for t in range(int(tiles.used[0])):
            click = self.clicks[int(tiles.partitions[t]), int(tiles.offsets[t])]
            assert click.item == tiles.items[t]
            assert click.key == tiles.sessions[t]
            assert click.weight == tiles.weights[t]
            assert click.time == tiles.times[t]
            near, n_before = tiles.neighbours[t, : tiles.n_neighbours[t]], tiles.n_before[t]
            before, after = tuple(near[:n_before].tolist()), tuple(near[n_before:].tolist())
            number, n_own = int(tiles.numbers[t]), int(tiles.n_own[t])
            self.tiles.append(Tile(click, number, before, after, n_own))
        if is_stuck and tiles.used[0] == 0:
            self.buffer = empty_tiles(2 * len(tiles.items), self.rules.window)
        tiles.used[0] = 0


def run_oracle(oracle, events):
    fates = []
    for event in events:
        if isinstance(event, Idle):
            oracle.declare_idle(event.partition)
        else:
            fates.append(oracle.arrive(event))
    return fates
