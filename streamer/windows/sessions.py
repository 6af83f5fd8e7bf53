"""Open windows as one object: extend, merge, close, snapshot, restore; bounded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import closing, table
from kernels import sessions as kernels
from kernels import windows as layout
from kernels.seen import Seen
from kernels.tiles import Tiles, empty_tiles
from state.sections import Section
from streamer.growing import grown
from streamer.settings.stream import Sessions
from streamer.windows.watermark import Watermarks

_FIRST_ROOM = 1 << 10
_TILES = 1 << 14
_COUNTED = {
    "opened": layout.OPENED,
    "closed": layout.CLOSED,
    "closed_by_idle": layout.CLOSED_BY_IDLE,
    "evicted": layout.EVICTED,
    "dropped": layout.DROPPED,
    "merged": layout.MERGED,
    "spread": layout.SPREAD,
}


@dataclass(frozen=True, slots=True)
class Span:
    """Clicks `begin` to `end` of the arrivals have been taken; `tiles` are to be trained now."""

    begin: int
    end: int
    tiles: Tiles


class SessionWindows:
    """The open session windows of all partitions.

    `fates` of a call to `arrive` says what became of each click, by the constants of
    `kernels.sessions`. Tiles must be trained before the next span is asked for.
    """

    def __init__(
        self, settings: Sessions, window: int, watermarks: Watermarks, section: Section
    ) -> None:
        is_early = settings.emission == "early"
        self._watermarks = watermarks
        self._rules = layout.Rules(
            gap=_ms(settings.gap_seconds),
            lateness=_ms(settings.lateness_seconds),
            out_of_orderness=_ms(settings.out_of_orderness_seconds),
            max_jump=_ms(settings.max_jump_seconds),
            max_kept=settings.max_kept,
            max_trained=settings.max_trained,
            max_open=settings.max_open,
            window=window,
            is_early=int(is_early),
        )
        self._tiles = empty_tiles(_TILES, window)
        self._arrays = _new_arrays()
        if section.arrays:
            self._restore(section)

    def __len__(self) -> int:
        return int(self._arrays.counters[layout.OPEN])

    @property
    def held(self) -> int:
        """Clicks that wait for their window to close before they are trained (on_close only)."""
        return int(self._arrays.counters[layout.HELD])

    def counts(self) -> dict[str, int]:
        """Return what has happened to windows since the space began, by name."""
        return {name: int(self._arrays.counters[place]) for name, place in _COUNTED.items()}

    def arrive(
        self, arrivals: kernels.Arrivals, partition: int, seen: Seen, fates: NDArray[np.uint8]
    ) -> Iterator[Span]:
        """Let clicks of one partition arrive; yield whenever tiles are to be trained.

        The spans cover the arrivals in order. `fates` is filled for a span when it is yielded.
        `seen` has room for the event keys of all of them.
        """
        begin, n = 0, len(arrivals.times)
        while begin < n:
            end = min(n, begin + _TILES)
            self._reserve(end - begin)
            self._share_partitions()
            part = kernels.Arrivals(*(column[begin:end] for column in arrivals))
            at = 0
            while at < end - begin:
                self._tiles.used[0] = 0
                taken = int(
                    kernels.extend(
                        self._arrays,
                        self._rules,
                        part,
                        partition,
                        at,
                        seen,
                        fates[begin:end],
                        self._tiles,
                    )
                )
                self._grow_tiles_if(taken == at)
                yield Span(begin + at, begin + taken, self._tiles)
                at = taken
            begin = end

    def close_all(self) -> Iterator[Span]:
        """Close every window; yield whenever tiles are to be trained."""
        done = False
        self._share_partitions()
        while not done:
            self._tiles.used[0] = 0
            done = bool(closing.close_all(self._arrays, self._rules, self._tiles))
            self._grow_tiles_if(not done)
            yield Span(0, 0, self._tiles)

    def snapshot(self) -> Section:
        """Return copies of the open windows in the order of (key, start)."""
        n_kept = self._kept()
        keys = np.empty(len(self), np.uint64)
        windows = np.empty((len(self), 6), np.int64)
        clicks = np.empty((n_kept, 3), np.int64)
        items = np.empty(n_kept, np.uint64)
        weights = np.empty(n_kept, np.float32)
        layout.collect(self._arrays, keys, windows, clicks, items, weights)
        order = np.lexsort((windows[:, 0], keys))
        by_click = _spans_in_order(windows[:, 2], order)
        arrays: dict[str, NDArray[Any]] = {
            "keys": keys[order],
            "windows": windows[order],
            "clicks": clicks[by_click],
            "items": items[by_click],
            "weights": weights[by_click],
        }
        return Section(arrays, {"counts": self.counts(), "held": self.held})

    def _restore(self, section: Section) -> None:
        arrays = section.arrays
        self._reserve(max(len(arrays["keys"]), len(arrays["items"])))
        self._share_partitions()
        layout.rebuild(
            self._arrays,
            self._rules,
            arrays["keys"],
            arrays["windows"],
            arrays["clicks"],
            arrays["items"],
            arrays["weights"],
        )
        counters = self._arrays.counters
        counters[layout.HELD] = section.values["held"]
        for name, place in _COUNTED.items():
            counters[place] = section.values["counts"].get(name, 0)

    def _kept(self) -> int:
        used = self._arrays.windows[: self._arrays.counters[layout.N_WINDOWS]]
        return int(used[used[:, layout.PARTITION] >= 0, layout.KEPT].sum())

    def _share_partitions(self) -> None:
        """Partitions are added by `Watermarks`; the kernels read and write the same rows."""
        self._arrays = self._arrays._replace(partitions=self._watermarks.rows)

    def _grow_tiles_if(self, is_full: bool) -> None:
        """Make `tiles` larger when one window alone has more clicks than it holds."""
        if is_full and self._tiles.used[0] == 0:
            capacity = 2 * len(self._tiles.items)
            self._tiles = empty_tiles(capacity, self._rules.window)

    def _reserve(self, n: int) -> None:
        """Make room for `n` more windows and clicks."""
        a = self._arrays
        windows = _room(len(a.keys), int(a.counters[layout.N_WINDOWS]) + n)
        clicks = _room(len(a.items), int(a.counters[layout.N_CLICKS]) + n)
        if windows > len(a.keys):
            a = a._replace(keys=grown(a.keys, windows), windows=grown(a.windows, windows))
        if clicks > len(a.items):
            a = a._replace(
                clicks=grown(a.clicks, clicks),
                items=grown(a.items, clicks),
                weights=grown(a.weights, clicks),
            )
        self._arrays = a
        if 2 * windows > len(a.table_keys):
            self._rehash(2 * windows)

    def _rehash(self, places: int) -> None:
        a = self._arrays
        keys = np.zeros(places, np.uint64)
        slots = np.full(places, -1, np.int64)
        used = a.table_slots >= 0
        table.insert_many(keys, slots, a.table_keys[used], a.table_slots[used])
        self._arrays = a._replace(table_keys=keys, table_slots=slots)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _room(have: int, needed: int) -> int:
    while have < needed:
        have *= 2
    return have


def _spans_in_order(lengths: NDArray[np.int64], order: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the indexes of consecutive spans' elements with the spans taken in `order`."""
    starts = np.cumsum(lengths) - lengths
    ordered = lengths[order]
    behind = np.cumsum(ordered) - ordered
    total = int(lengths.sum())
    return np.repeat(starts[order] - behind, ordered) + np.arange(total)


def _new_arrays() -> layout.Windows:
    counters = np.zeros(layout.N_COUNTERS, np.int64)
    counters[[layout.FREE_WINDOW, layout.FREE_CLICK]] = -1
    return layout.Windows(
        table_keys=np.zeros(2 * _FIRST_ROOM, np.uint64),
        table_slots=np.full(2 * _FIRST_ROOM, -1, np.int64),
        keys=np.zeros(_FIRST_ROOM, np.uint64),
        windows=np.zeros((_FIRST_ROOM, layout.WINDOW_COLUMNS), np.int64),
        clicks=np.zeros((_FIRST_ROOM, 5), np.int64),
        items=np.zeros(_FIRST_ROOM, np.uint64),
        weights=np.zeros(_FIRST_ROOM, np.float32),
        partitions=np.empty((0, layout.PARTITION_COLUMNS), np.int64),
        counters=counters,
    )
