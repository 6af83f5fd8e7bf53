"""Co-occurrence counts and item-kNN over the tiles that the daemon trains."""

import itertools

import numpy as np
from numpy.typing import NDArray

from kernels import baselines as kernels
from kernels import table
from kernels.baselines import N_CLICKS, N_EDGES, Edges, Grid
from kernels.tiles import Tiles
from streamer.growing import grown
from streamer.training.ranker import MAX_QUERY, MISSED

HALF_LIVES = (4_000.0, 12_000.0, 40_000.0, 150_000.0, np.inf)  # in clicks
DECAYS = (0.2, 0.4, 0.55, 0.7)
WIDE_HALF_LIVES = (1_000.0, 2_000.0, *HALF_LIVES[:-1], 500_000.0, np.inf)
WIDE_DECAYS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
_FIRST_ROOM = 1 << 16


class CoOccurrence:
    """Counts every pair, and ranks by every setting of a grid; rows are those of one store."""

    def __init__(self, n_rows: int, *, is_wide: bool = False) -> None:
        half_lives = np.array(WIDE_HALF_LIVES if is_wide else HALF_LIVES)
        decays = np.array(WIDE_DECAYS if is_wide else DECAYS, np.float32)
        self._grid = Grid(half_lives, decays)
        n = len(half_lives)
        self._edges = Edges(
            table_keys=np.zeros(2 * _FIRST_ROOM, np.uint64),
            table_slots=np.full(2 * _FIRST_ROOM, -1, np.int64),
            first=np.full(n_rows, -1, np.int64),
            following=np.zeros(_FIRST_ROOM, np.int64),
            targets=np.zeros(_FIRST_ROOM, np.int64),
            after=np.zeros((_FIRST_ROOM, n), np.float32),
            before=np.zeros((_FIRST_ROOM, n), np.float32),
            times=np.zeros(_FIRST_ROOM, np.int64),
            shared=np.zeros(_FIRST_ROOM, np.float32),
            clicks=np.zeros(n_rows, np.int64),
            used=np.zeros(2, np.int64),
        )
        self._scores = np.full((n_rows, len(self.counts) + len(self.knn)), -1.0, np.float32)
        self._touched = np.zeros(n_rows, np.int64)

    @property
    def counts(self) -> list[str]:
        """What each setting of the counts is, in the order of the ranks."""
        lives, decays = self._grid.half_lives.tolist(), self._grid.decays.tolist()
        settings = itertools.product(lives, decays, ("directed", "symmetric"))
        return [f"{way}, half-life {life:g}, decay {decay:.2f}" for life, decay, way in settings]

    @property
    def knn(self) -> list[str]:
        """What each setting of item-kNN is; their ranks stand behind those of the counts."""
        return [f"decay {decay:.2f}" for decay in self._grid.decays.tolist()]

    def count(
        self, tiles: Tiles, span: range, items: NDArray[np.int64], neighbours: NDArray[np.int64]
    ) -> None:
        """Count the pairs of some tiles; `items` and `neighbours` are the rows of all of them."""
        self._reserve(2 * int(tiles.n_neighbours[span.start : span.stop].sum()))
        kernels.count_pairs(
            self._edges, tiles, items, neighbours, span.start, span.stop, self._grid.half_lives
        )

    def ranks(self, target: int, session: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rank of a row under each setting; `session` has the last row first."""
        ranks = np.empty(self._scores.shape[1], np.int64)
        kernels.rank_by_counts(
            self._edges,
            session[:MAX_QUERY],
            target,
            self._grid,
            self._scores,
            self._touched,
            ranks,
        )
        return np.where(ranks < 0, MISSED, ranks)

    @property
    def clicks(self) -> int:
        """Clicks counted."""
        return int(self._edges.used[N_CLICKS])

    def _reserve(self, n_more: int) -> None:
        edges, needed = self._edges, int(self._edges.used[N_EDGES]) + n_more
        room = len(edges.targets)
        if needed <= room:
            return
        while room < needed:
            room *= 2
        larger = {
            name: grown(getattr(edges, name), room)
            for name in ("following", "targets", "after", "before", "times", "shared")
        }
        keys, slots = np.zeros(2 * room, np.uint64), np.full(2 * room, -1, np.int64)
        used = edges.table_slots >= 0
        table.insert_many(keys, slots, edges.table_keys[used], edges.table_slots[used])
        self._edges = edges._replace(table_keys=keys, table_slots=slots, **larger)
