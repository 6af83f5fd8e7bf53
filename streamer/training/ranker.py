"""The rank of an item among all, for the session query, under settings of its weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import memory, ranking
from kernels.memory import NO_SESSION, Ballot
from kernels.ranking import Rivals
from kernels.table import places
from kernels.tiles import Tiles
from state.store import Store

MAX_QUERY = 5  # items of a session that a query is made of, from the last one back
MISSED = np.iinfo(np.int64).max  # the rank of an item that was never clicked before


@dataclass(frozen=True, slots=True)
class Query:
    """The distinct items of a session, and what each of them counts."""

    rows: NDArray[np.int64]  # (n,)
    weights: NDArray[np.float32]  # (n,)

    @classmethod
    def of(cls, rows: NDArray[np.int64], decay: float) -> "Query":
        """Return the query of a session's rows, the last one first."""
        distinct, at = np.unique(rows[:MAX_QUERY], return_inverse=True)
        weights = np.bincount(at, decay ** np.arange(len(at)))
        return cls(distinct, weights.astype(np.float32))


class Ranker:
    """Ranks items of one store; everything happens on the calling thread."""

    def __init__(self, store: Store, decay: float) -> None:
        self._store = store
        self._decay = decay
        rows = store.rows
        n_rows, columns = rows.inputs.shape
        self._query = np.zeros(columns, np.float32)
        self._terms = np.zeros((ranking.N_TERMS, n_rows), np.float32)
        self._rivals = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.float32)
        room = MAX_QUERY * rows.memory.held_by.shape[1]
        self._ballot = Ballot(
            keys=np.zeros(places(room), np.uint64),
            slots=np.zeros(places(room), np.int64),
            places=np.zeros(room, np.int64),
            shared=np.zeros(room, np.float32),
        )

    def ranks(
        self,
        target: int,
        session: NDArray[np.int64],
        settings: NDArray[np.float32],
        own: int = NO_SESSION,
    ) -> NDArray[np.int64]:
        """Return the rank of a row for a session, the last row first, under each setting.

        The session's own items are left out; ties count against the target, which is not among
        them. `settings` is (n, N_TERMS). The session of number `own` has no vote.
        """
        ranks = np.full(len(settings), MISSED)
        if self._store.rows.clicks[target] == 0:
            return ranks
        query = Query.of(session, self._decay)
        begins, ends = self._store.vocabulary.spans()
        self._fill(query, own, begins, ends)
        self._terms[ranking.SIMILARITY, query.rows] = -np.inf
        rivals = Rivals(*self._rivals, *np.zeros((2, len(settings)), np.float32))
        weights = np.ascontiguousarray(settings.T)
        ranking.rank(self._terms, begins, ends, target, weights, rivals, ranks)
        return ranks

    def _fill(
        self, query: Query, own: int, begins: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> None:
        rows, half_lives = self._store.rows, self._store.settings.memory.half_lives
        terms, asked = self._terms, (query.rows, query.weights)
        ranking.compose_query(rows.inputs, rows.outputs, *asked, self._query)
        for begin, end in zip(begins, ends, strict=True):
            terms[[ranking.TRANSITIONS, ranking.VOTES], begin:end] = 0.0
        now, half_life = self._store.accepted, half_lives.transitions
        memory.add_transitions(rows.memory, now, half_life, *asked, terms[ranking.TRANSITIONS])
        memory.add_votes(rows.memory, *asked, own, self._ballot, terms[ranking.VOTES])
        for begin, end in zip(begins, ends, strict=True):
            ranking.fill_terms(rows, self._query, half_lives, begin, end, terms)


def rows_before(tiles: Tiles, t: int, store: Store) -> tuple[int, NDArray[np.int64]]:
    """Return the row of a tile's click, and those before it in its session, the last one first."""
    keys = tiles.neighbours[t, : min(int(tiles.n_before[t]), MAX_QUERY)]
    rows = store.vocabulary.rows_of(np.concatenate([tiles.items[t : t + 1], keys]))
    return int(rows[0]), rows[1:]
