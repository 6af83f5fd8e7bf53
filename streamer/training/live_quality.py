"""A sample of clicks ranked before they are trained, under each query setting; one is ahead."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kernels.ranking import N_TERMS
from kernels.sampling import pick
from kernels.tiles import Tiles
from state.sections import Section
from state.store import Store
from streamer.training.ranker import Ranker, rows_before

TOP = 20
ALL_DRAWS = (1 << 64) - 1
# One click in 20 at most; `evaluate` tests others: none is ever among both.
SAMPLED_BELOW = ALL_DRAWS // 20
PERIOD = 1 << 14  # accepted clicks between two looks at how many items there are
MANY_SCORED = 2000  # from here on the sample may cost no more than `_COST` of training
_COST = 0.05
_COST_OF_A_ROW = 0.03  # to rank one item, in clicks trained
_HIT = 0.35  # what a place among the first 20 is worth beside its reciprocal rank
_KEPT = 0.9998  # of the scoreboard with each click that is ranked
_LEAD = 3.0  # that of the shipped setting at the start

SHIPPED = (1.0, 0.1, 0.0, 0.1, 0.2)
VECTORS_ALONE = (1.0, 0.0, 0.0, 0.0, 0.0)
POPULARITY_ALONE = (0.0, 1.0, 0.0, 0.0, 0.0)
CONTENDERS = ("chosen", "vectors", "popularity")


def query_settings() -> NDArray[np.float32]:
    """Return the grid, (n, N_TERMS): the weight of the fast or the slow popularity, and so on."""
    popularity = [(b, 0.0) for b in (0.0, 0.05, 0.1, 0.15)] + [(0.0, b) for b in (0.05, 0.1, 0.15)]
    others = itertools.product(popularity, (0.0, 0.05, 0.1, 0.2), (0.0, 0.1, 0.2, 0.3))
    grid = np.array([(1.0, *b, c, s) for b, c, s in others], np.float32)
    assert grid.shape[1] == N_TERMS
    return grid


def worth(ranks: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the reciprocal ranks within the first 20, 0 behind them, and who is among them."""
    is_hit = ranks < TOP
    return np.where(is_hit, 1.0 / (1.0 + np.minimum(ranks, TOP)), 0.0), is_hit


class LiveQuality:
    """Ranks a sample of the clicks; the scoreboard is part of the state.

    Which clicks are sampled depends on the clicks alone, and nothing of it touches what is trained.
    """

    def __init__(self, store: Store, decay: float, seed: int, section: Section) -> None:
        self._store = store
        self.decay = decay
        self._ranker = Ranker(store, decay)
        self._seed = np.uint64(seed)
        self._grid = query_settings()
        alone = np.array([VECTORS_ALONE, POPULARITY_ALONE], np.float32)
        self._asked = np.concatenate([self._grid, alone])
        is_shipped = (self._grid == np.array(SHIPPED, np.float32)).all(axis=1)
        shipped = int(np.flatnonzero(is_shipped)[0])
        self._board = section.arrays.get("board", np.zeros(len(self._grid)))
        self.n_scored: int = section.values.get("n_scored", 0)
        self._chosen: int = section.values.get("chosen", shipped)
        if not section.arrays:
            self._board[shipped] = _LEAD
        self._period: int = section.values.get("period", -1)
        self._below: int = section.values.get("below", SAMPLED_BELOW)
        self._draw = 0  # of the click that is looked at next
        # Decayed sums, of each of the contenders.
        self._recall = section.arrays.get("recall", np.zeros(3))
        self._mrr = section.arrays.get("mrr", np.zeros(3))

    @property
    def setting(self) -> NDArray[np.float32]:
        """The weights that are ahead, (N_TERMS,)."""
        weights: NDArray[np.float32] = self._grid[self._chosen]
        return weights

    @property
    def figures(self) -> dict[str, tuple[float, float]]:
        """Recall@20 and MRR@20 of the last few thousand ranked clicks; empty before the first.

        Of the setting in use, of vectors alone and of popularity alone.
        """
        if self.n_scored == 0:
            return {}
        weight = (1.0 - _KEPT**self.n_scored) / (1.0 - _KEPT)
        recalls, mrrs = (self._recall / weight).tolist(), (self._mrr / weight).tolist()
        return dict(zip(CONTENDERS, zip(recalls, mrrs, strict=True), strict=True))

    def picks(self, tiles: Tiles, partition_keys: NDArray[np.uint64]) -> Iterator[int]:
        """Yield the tiles whose clicks are ranked."""
        found, draws = picked(tiles, self._seed, partition_keys, 0, SAMPLED_BELOW)
        first = self._store.accepted
        for t, draw in zip(found, draws.tolist(), strict=True):
            if draw < self._below or (first + t) // PERIOD > self._period:
                self._draw = draw
                yield t

    def examine(self, tiles: Tiles, t: int) -> None:
        """Rank a click, and keep the score."""
        self._reconsider()
        if self._draw >= self._below:
            return
        row, session = rows_before(tiles, t, self._store)
        ranks = self._ranker.ranks(row, session, self._asked, int(tiles.numbers[t]))
        reciprocal, is_hit = worth(ranks)
        n = len(self._grid)
        used = [self._chosen, n, n + 1]
        self._recall = self._recall * _KEPT + is_hit[used]
        self._mrr = self._mrr * _KEPT + reciprocal[used]
        self._board = self._board * _KEPT + reciprocal[:n] + _HIT * is_hit[:n]
        self.n_scored += 1
        ahead = int(self._board.argmax())
        if self._board[ahead] > self._board[self._chosen]:
            self._chosen = ahead

    def trained(self, tiles: Tiles) -> None:
        """Nothing is kept of tiles."""

    def _reconsider(self) -> None:
        """Let the sample be smaller where there are more items, once in so many clicks.

        Counted in clicks, so that the sample is the same wherever batches are cut.
        """
        period = self._store.accepted // PERIOD
        if period == self._period:
            return
        self._period = period
        if self.n_scored >= MANY_SCORED:
            cost = _COST_OF_A_ROW * max(1, self._store.count_clicked())
            self._below = min(SAMPLED_BELOW, int(ALL_DRAWS * _COST / cost))

    def snapshot(self) -> Section:
        """Return what a restart needs."""
        arrays = {"board": self._board, "recall": self._recall, "mrr": self._mrr}
        copies = {name: one.copy() for name, one in arrays.items()}
        counts = {"n_scored": self.n_scored, "chosen": self._chosen}
        return Section(copies, {**counts, "period": self._period, "below": self._below})


def picked(
    tiles: Tiles, seed: np.uint64, partition_keys: NDArray[np.uint64], low: int, high: int
) -> tuple[list[int], NDArray[np.uint64]]:
    """Return the tiles that can be ranked and whose draw is in [low, high), and the draws."""
    n = int(tiles.used[0])
    found, draws = np.empty(n, np.int64), np.empty(n, np.uint64)
    n = pick(tiles, seed, partition_keys, np.uint64(low), np.uint64(high), found, draws)
    return found[:n].tolist(), draws[:n]
