"""A rank for a session is that of the blueprint's score over all items that were clicked."""

import numpy as np
import pytest

from kernels.scratch import scratch
from kernels.sgns import Learning
from kernels.tiles import empty_tiles
from state.shard import MemorySettings
from state.store import Store, StoreSettings
from streamer.training.ranker import MISSED, Query, Ranker
from tests import oracles
from tests.state.test_store import new_pairs
from tests.state.test_vocabulary import ids, names

N_ITEMS, N_CLICKS, WINDOW, DECAY = 40, 600, 3, 0.4
MEMORY = MemorySettings((30.0, 500.0), 100.0, 1000, 1000, 64, 8)
SETTINGS = StoreSettings(
    dim=8, max_items=60, n_shards=4, seed=3, noise_table_size=64, memory=MEMORY
)
ALL = ids(*names(N_ITEMS))


class Trained:
    """A store after random clicks, and what is to be remembered of them by its definition."""

    def __init__(self):
        self.store = Store(SETTINGS, {}, "s")
        self.rows = self.store.admit(ALL)
        self.transitions = oracles.Transitions(MEMORY.transition_half_life, 1000)
        self.sessions = oracles.RecentSessions(64, 8, 1000)
        self.clicks = {}
        rng = np.random.default_rng(1)
        for now in range(1, N_CLICKS + 1):
            # The last item is never clicked.
            x, *before = rng.permutation(N_ITEMS - 1)[: 1 + WINDOW].tolist()
            self.click(x, before, 1 + now // 4, now)

    def click(self, x, before, number, now):
        tile = empty_tiles(1, WINDOW)
        tile.items[0], tile.numbers[0] = ALL.keys[x], number
        tile.neighbours[0, : len(before)] = ALL.keys[before]
        tile.n_before[0] = tile.n_neighbours[0] = len(before)
        tile.weights[0], tile.offsets[0], tile.used[0] = 1.0, now, 1
        learning = Learning(
            seed=np.uint64(1),
            learning_rate=np.float32(0.2),
            epsilon=np.float32(1e-8),
            dim=SETTINGS.dim,
            negatives=4,
            passes=1,
            half_lives=MEMORY.half_lives,
            partition_keys=np.array([5], np.uint64),
        )
        self.store.train(tile, range(1), new_pairs(), learning, scratch(8, WINDOW, 4, 1))
        self.clicks.setdefault(x, []).append((now, 1.0))
        for j, y in enumerate(before, 1):
            self.transitions.add(y, x, 1 / j, now)
        self.sessions.add(number, x)

    def score(self, item, session, setting, own):
        """Score an item by ARCHITECTURE.md, Semantics; `session` has the last item first."""
        e, o = self.store.rows.inputs, self.store.rows.outputs
        vectors = (e + o)[self.rows][:, : SETTINGS.dim].astype(float)
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
        query = sum(DECAY**j * vectors[one] for j, one in enumerate(session))
        query /= np.linalg.norm(query)
        asked = [(one, DECAY**j) for j, one in enumerate(session)]
        counts = [
            oracles.decayed_count(self.clicks[item], N_CLICKS, half_life)
            for half_life in MEMORY.popularity_half_lives
        ]
        terms = [
            query @ vectors[item],
            *np.log1p(counts),
            np.log1p(10 * self.transitions.read(asked, N_CLICKS).get(item, 0.0)),
            np.log1p(self.sessions.vote(asked, own).get(item, 0.0)),
        ]
        return float(np.dot(setting, terms))


@pytest.fixture(scope="module")
def trained():
    return Trained()


GRID = np.array(
    [
        (1, 0, 0, 0, 0),
        (1, 0.1, 0, 0.1, 0.2),
        (1, 0, 0.15, 0.2, 0.3),
        (0, 0.1, 0, 0.1, 0.2),
        (0, 1, 0, 0, 0),
    ],
    np.float32,
)


@pytest.mark.parametrize("session", [[3], [5, 11], [7, 0, 22, 31, 9]])
@pytest.mark.parametrize("own", [0, 140])
def test_a_rank_is_that_of_the_score(session, own, trained):
    ranker = Ranker(trained.store, DECAY)
    others = [item for item in range(N_ITEMS - 1) if item not in session]
    for target in (1, 2, 15, 30):
        asked = trained.rows[session]
        ranks = ranker.ranks(int(trained.rows[target]), asked, GRID, own)
        for g, setting in enumerate(GRID):
            scores = [trained.score(one, session, setting, own) for one in others]
            goal = trained.score(target, session, setting, own)
            above = sum(score > goal + 1e-4 for score in scores)
            no_less = sum(score > goal - 1e-4 for score in scores) - 1
            assert above <= ranks[g] <= no_less


def test_an_item_that_was_never_clicked_is_missed(trained):
    never = int(trained.rows[N_ITEMS - 1])
    assert (Ranker(trained.store, DECAY).ranks(never, trained.rows[[1]], GRID) == MISSED).all()


def test_an_item_that_comes_twice_in_a_session_counts_for_both_places():
    query = Query.of(np.array([4, 9, 4, 1, 2, 3]), 0.5)
    assert query.rows.tolist() == [1, 2, 4, 9]
    assert query.weights.tolist() == [0.125, 0.0625, 1.25, 0.5]
