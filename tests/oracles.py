"""Slow truths in plain Python and float64, written from ARCHITECTURE.md, Semantics, and papers."""

import heapq
import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import xxhash

AGREEING = 20
NEVER = -math.inf
_MASK = (1 << 64) - 1


class Click(NamedTuple):
    key: int  # of the session
    item: int
    time: int
    partition: int
    offset: int
    weight: float = 1.0
    is_refused: bool = False
    event: int = 0  # 0: has no event id

    @property
    def place(self):
        return self.time, self.partition, self.offset


class Tile(NamedTuple):
    click: Click
    number: int  # of the session, by the order in which windows opened
    before: tuple[int, ...]  # items, the nearest first
    after: tuple[int, ...] = ()
    n_own: int = 0  # places before the click that hold its item

    @property
    def neighbours(self):
        return self.before + self.after


@dataclass
class Window:
    """An open window; `partition` is that of the last click which joined it."""

    key: int
    start: int
    end: int
    partition: int
    number: int
    n_trained: int = 0
    clicks: list[Click] = field(default_factory=list)  # that have a position, in order


@dataclass
class _Partition:
    watermark: float = NEVER
    is_idle: bool = False
    n_settled: int = 0  # clicks near the watermark since it was set
    strays: list[int] = field(default_factory=list)  # times that were not, in a row


class Sessions:
    """Session windows by brute force, click by click; `rules` has the fields of the kernel's.

    Fates are words: accepted, repeat, late, future, bot, refused, duplicate; `tiles` in order of
    training. `topics` are those of the partitions, by default one.
    """

    def __init__(self, rules, n_partitions, topics=None, max_events=math.inf):
        self.rules = rules
        self.topics = topics or [0] * n_partitions
        self.max_events = max_events
        self.seen = {}  # event ids, the oldest first
        self.partitions = [_Partition() for _ in range(n_partitions)]
        self.windows: list[Window] = []
        self.tiles: list[Tile] = []
        self.counts = Counter()
        self.n_opened = 0
        self.closed: list[tuple[int, int, int]] = []  # (key, start, end), in order

    def declare_idle(self, partition):
        self.partitions[partition].is_idle = True

    def arrive(self, click):
        self.partitions[click.partition].is_idle = False
        if click.event and click.event in self.seen:
            return "duplicate"
        fate = self._arrive(click)
        if click.event and fate != "future":
            self.seen[click.event] = True
            if len(self.seen) > self.max_events:
                del self.seen[next(iter(self.seen))]
        return fate

    def _arrive(self, click):
        mine = self.partitions[click.partition]
        watermark = click.time - self.rules.out_of_orderness
        if self._is_stray(mine, click.time) and self._has_moved(mine, click.time):
            mine.watermark, mine.n_settled, mine.strays = watermark, 0, []
        if self._is_stray(mine, click.time):
            mine.strays.append(click.time)
            if click.time > mine.watermark:
                return "future"
        else:
            mine.n_settled, mine.strays = mine.n_settled + 1, []
        mine.watermark = max(mine.watermark, watermark)
        self._close_passed()
        if click.is_refused:
            return "refused"
        joined = [w for w in self._windows_of(click.key) if self._touches(w, click.time)]
        end = max([click.time] + [w.end for w in joined])
        if self._due(end) < mine.watermark:
            return "late"
        if not joined and len(self.windows) >= self.rules.max_open:
            self._close(min(self.windows, key=self._closing_order))
            self.counts["evicted"] += 1
        window = self._joined(joined, click)
        fate = "bot"
        if window.n_trained < self.rules.max_trained:
            window.n_trained += 1
            fate = self._take_position(window, click)
        while self.rules.is_early and len(window.clicks) > self.rules.max_kept:
            del window.clicks[0]
            self.counts["dropped"] += 1
        return fate

    def close_all(self):
        for window in sorted(self.windows, key=self._closing_order):
            self._close(window)
            self.counts["closed"] += 1

    def open_windows(self):
        """Return the open windows as (key, start, end, trained, partition, number, clicks), sorted.

        A window knows no event ids.
        """
        return sorted(
            (
                *(w.key, w.start, w.end, w.n_trained, w.partition, w.number),
                tuple(one._replace(event=0) for one in w.clicks),
            )
            for w in self.windows
        )

    @property
    def held(self):
        return 0 if self.rules.is_early else sum(len(w.clicks) for w in self.windows)

    def _is_stray(self, partition, time):
        if partition.watermark == NEVER:
            return False
        ahead = time - partition.watermark
        is_doubted = partition.n_settled < AGREEING
        return ahead > self.rules.max_jump or (is_doubted and -ahead > self.rules.max_jump)

    def _has_moved(self, partition, time):
        last = [*partition.strays, time][-AGREEING:]
        near = [one for one in last if abs(one - time) <= self.rules.max_jump]
        return len(last) == AGREEING and len(near) > AGREEING / 2

    def _due(self, end):
        return end + self.rules.gap + self.rules.lateness

    def _closing_order(self, window):
        return self._due(window.end), window.key

    def _windows_of(self, key):
        return [one for one in self.windows if one.key == key]

    def _passed(self):
        active = [p.watermark for p in self.partitions if not p.is_idle]
        passed = []
        for window in self.windows:
            owner = self.partitions[window.partition]
            limit = min(active) if owner.is_idle else owner.watermark
            if self._due(window.end) < limit:
                passed.append(window)
        return passed

    def _close_passed(self):
        for window in sorted(self._passed(), key=self._closing_order):
            idle = self.partitions[window.partition].is_idle
            self._close(window)
            self.counts["closed_by_idle" if idle else "closed"] += 1

    def _close(self, window):
        self.windows.remove(window)
        self.closed.append((window.key, window.start, window.end))
        if self.rules.is_early:
            return
        for at, click in enumerate(window.clicks):
            left = window.clicks[max(0, at - self.rules.window) : at]
            self._emit(click, window, left)

    def _touches(self, window, time):
        gap = self.rules.gap
        is_near_an_end = abs(time - window.start) <= gap or abs(time - window.end) <= gap
        return is_near_an_end or window.start <= time <= window.end

    def _joined(self, joined, click):
        if not joined:
            self.n_opened += 1
            window = Window(click.key, click.time, click.time, click.partition, self.n_opened)
            self.windows.append(window)
            return window
        topic = self.topics[click.partition]
        for one in joined:
            if one.partition != click.partition and self.topics[one.partition] == topic:
                self.counts["spread"] += 1
        window, *others = sorted(joined, key=lambda one: one.start)
        for other in others:
            window.start = min(window.start, other.start)
            window.end = max(window.end, other.end)
            window.n_trained += other.n_trained
            window.clicks = sorted(window.clicks + other.clicks, key=lambda one: one.place)
            self.windows.remove(other)
            self.counts["merged"] += 1
        window.start = min(window.start, click.time)
        window.end = max(window.end, click.time)
        window.partition = click.partition
        return window

    def _take_position(self, window, click):
        clicks = sorted([*window.clicks, click], key=lambda one: one.place)
        at = clicks.index(click)
        before, after = clicks[max(0, at - 1) : at], clicks[at + 1 : at + 2]
        if any(one.item == click.item for one in before + after):
            self._emit(click, window)
            if all(one.item == click.item for one in before + after) and before and after:
                # Three in a row of one item, of which the first keeps its position.
                window.clicks.remove(after[0])
                if not self.rules.is_early:
                    self._emit(after[0], window)
            return "repeat"
        window.clicks = clicks
        if self.rules.is_early:
            near = self.rules.window
            left, right = clicks[max(0, at - near) : at], clicks[at + 1 : at + 1 + near]
            self._emit(click, window, left, right)
        return "accepted"

    def _emit(self, click, window, left=(), right=()):
        before = tuple(one.item for one in reversed(left) if one.item != click.item)
        after = tuple(one.item for one in right if one.item != click.item)
        n_own = len(left) - len(before)
        self.tiles.append(Tile(click, window.number, before, after, n_own))


class _WindowsByKey:
    """What `Sessions` asks of its list of windows, without a search."""

    def __init__(self):
        self._of = defaultdict(list)
        self._n = 0

    def __iter__(self):
        return itertools.chain.from_iterable(self._of.values())

    def __len__(self):
        return self._n

    def of(self, key):
        return self._of.get(key, [])

    def append(self, window):
        self._of[window.key].append(window)
        self._n += 1

    def remove(self, window):
        left = [one for one in self._of.pop(window.key) if one is not window]
        self._n -= 1
        if left:
            self._of[window.key] = left


class KeyedSessions(Sessions):
    """The same without a look at every window for every click, for long streams.

    No partition may be idle.
    """

    def __init__(self, rules, n_partitions, topics=None, max_events=math.inf):
        super().__init__(rules, n_partitions, topics, max_events)
        self.windows = _WindowsByKey()
        self._queues = [[] for _ in range(n_partitions)]  # (due, number, window), some outdated
        self._numbers = itertools.count()

    def _windows_of(self, key):
        return self.windows.of(key)

    def _joined(self, joined, click):
        before = {id(one): one.partition for one in joined}
        window = super()._joined(joined, click)
        if window.partition != before.get(id(window)):
            self._enqueue(window)
        return window

    def _enqueue(self, window):
        entry = self._due(window.end), next(self._numbers), window
        heapq.heappush(self._queues[window.partition], entry)

    def _passed(self):
        passed = {}
        for at, queue in enumerate(self._queues):
            watermark = self.partitions[at].watermark
            while queue and queue[0][0] < watermark:
                window = heapq.heappop(queue)[-1]
                is_open = any(one is window for one in self.windows.of(window.key))
                if not is_open or window.partition != at:
                    continue
                if self._due(window.end) < watermark:
                    passed[id(window)] = window
                else:
                    self._enqueue(window)
        return list(passed.values())


def pairs_of(tiles):
    """Return the multiset of (input, output) of tiles: both directions of each pair."""
    pairs = Counter()
    for tile in tiles:
        for neighbour in tile.neighbours:
            pairs[tile.click.item, neighbour] += 1
            pairs[neighbour, tile.click.item] += 1
    return pairs


def pair_hash(input_key, output_key):
    """Return the hash of a pair of item keys (ARCHITECTURE.md, Semantics: Pairs, summed)."""
    return _mixed((0x9E3779B97F4A7C15 * input_key + output_key) & _MASK)


def _mixed(z):
    """Return the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class PairSums:
    """The pairs of tiles, counted and hash-summed by what `group_of` returns of their clicks.

    Items are ids, of which `key_of` returns the key: by default XXH64 under seed 0.
    """

    def __init__(self, group_of=lambda click: click.partition, key_of=None):
        self._group_of = group_of
        self._key_of = key_of or (lambda item: xxhash.xxh64_intdigest(item.encode(), seed=0))
        self._sums = defaultdict(lambda: (0, 0))

    def add(self, tiles):
        for tile in tiles:
            x = self._key_of(tile.click.item)
            for y in map(self._key_of, tile.neighbours):
                group = self._group_of(tile.click)
                count, total = self._sums[group]
                hashed = pair_hash(x, y) + pair_hash(y, x)
                self._sums[group] = count + 2, (total + hashed) & _MASK
        return self

    def found(self):
        """Return {group: (count, sum)} of the groups that have a pair."""
        return dict(self._sums)


def labelled_pairs(x, neighbours, negatives):
    """Return (input, output, label) of a tile's every pair, equal ones as often as they occur."""
    pairs = [(x, y, 1.0) for y in neighbours] + [(y, x, 1.0) for y in neighbours]
    for one, targets in [(x, set(neighbours))] + [(y, {x}) for y in neighbours]:
        pairs += [(one, n, 0.0) for n in negatives if n != one and n not in targets]
    return pairs


def tile_loss(inputs, outputs, pairs, weight):
    """Return the negative log likelihood of labelled pairs (Mikolov et al. 2013, equation 4)."""
    scores = np.array([inputs[i] @ outputs[o] for i, o, _ in pairs])
    signs = np.array([2 * label - 1 for _, _, label in pairs])
    return weight * np.logaddexp(0.0, -signs * scores).sum()


class Model(NamedTuple):
    """What a tile moves, in float64."""

    inputs: np.ndarray
    outputs: np.ndarray
    input_accumulators: np.ndarray
    output_accumulators: np.ndarray


def tile_update(model, pairs, weight, learning_rate, epsilon):
    """Move the rows of labelled pairs by row-wise AdaGrad, with the scores from before the tile."""
    gradients = {}
    for i, o, label in pairs:
        score = model.inputs[i] @ model.outputs[o]
        g = weight * (label - 1.0 / (1.0 + math.exp(-score)))
        for side, row, movement in ((0, i, g * model.outputs[o]), (1, o, g * model.inputs[i])):
            gradients[side, row] = gradients.get((side, row), 0.0) + movement
    for (side, row), gradient in gradients.items():
        vectors, accumulators = (model.inputs, model.outputs)[side], model[2 + side]
        accumulators[row] += np.mean(gradient**2)
        vectors[row] += learning_rate * gradient / math.sqrt(accumulators[row] + epsilon)


def decayed_count(weights_by_time, now, half_life):
    """Return a popularity by its definition: each click has lost half its weight per half-life."""
    return sum(w * 2.0 ** ((t - now) / half_life) for t, w in weights_by_time)


class Transitions:
    """What is clicked after each item, decayed; space-saving lists of `size` slots, in float64."""

    def __init__(self, half_life, size):
        self._half_life, self._size = half_life, size
        self._slots = defaultdict(list)  # item -> [[follower, weight, time of the weight]]

    def add(self, item, follower, weight, now):
        slots = self._slots[item]
        for slot in slots:
            slot[1:] = self._decayed(slot, now), now
        slot = next((slot for slot in slots if slot[0] == follower), None)
        if slot is None and len(slots) < self._size:
            slots.append(slot := [follower, 0.0, now])
        elif slot is None:
            slot = min(slots, key=lambda one: one[1])
            slot[0] = follower
        slot[1] += weight

    def read(self, query, now):
        """Return {item: its weight after a query of (item, weight)}."""
        found = defaultdict(float)
        for item, weight in query:
            for slot in self._slots[item]:
                found[slot[0]] += weight * self._decayed(slot, now)
        return dict(found)

    def _decayed(self, slot, now):
        return slot[1] * 2.0 ** ((slot[2] - now) / self._half_life)


class RecentSessions:
    """The last sessions, the first distinct items of each, and where each item was held last."""

    def __init__(self, n_sessions, n_items, n_held_by):
        self._n_sessions, self._n_items, self._n_held_by = n_sessions, n_items, n_held_by
        self._items = {}  # number -> items
        self._held_by = defaultdict(list)

    def add(self, number, item):
        rivals = [one for one in self._items if one % self._n_sessions == number % self._n_sessions]
        if any(one > number for one in rivals):
            return
        for one in rivals:
            if one < number:
                del self._items[one]
        items = self._items.setdefault(number, [])
        if item not in items and len(items) < self._n_items:
            items.append(item)
            self._held_by[item].append(number)

    def vote(self, query, own=None):
        """Return {item: its votes} for a query of (item, weight), the items distinct."""
        shared = defaultdict(float)
        for item, weight in query:
            for number in self._held_by[item][-self._n_held_by :]:
                if number in self._items and number != own:
                    shared[number] += weight
        votes = defaultdict(float)
        for number, weight in shared.items():
            items = self._items[number]
            for item in items:
                votes[item] += weight**2 / math.sqrt(len(items))
        return dict(votes)
