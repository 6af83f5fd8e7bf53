"""Co-occurrence counts are sums of decayed weights over all pairs, and rank accordingly."""

from collections import Counter

import numpy as np
import pytest

from kernels.tiles import empty_tiles
from streamer.evaluation.baselines import CoOccurrence
from streamer.training.ranker import MISSED

N_ROWS, N_CLICKS, WINDOW = 12, 400, 3


def stream(seed=1):
    """Tiles of random clicks: (item, neighbours before it, neighbours after it)."""
    rng = np.random.default_rng(seed)
    clicks = []
    for _ in range(N_CLICKS):
        x, *near = rng.permutation(N_ROWS)[: 1 + rng.integers(0, 2 * WINDOW)].tolist()
        n_before = int(rng.integers(0, min(WINDOW, len(near)) + 1))
        clicks.append((x, near[:n_before], near[n_before : n_before + WINDOW]))
    return clicks


def counted(clicks, **settings):
    made = CoOccurrence(N_ROWS, **settings)
    tiles = empty_tiles(len(clicks), WINDOW)
    near = np.zeros((len(clicks), 2 * WINDOW), np.int64)
    for t, (_, before, after) in enumerate(clicks):
        near[t, : len(before) + len(after)] = before + after
        tiles.n_before[t], tiles.n_neighbours[t] = len(before), len(before) + len(after)
    items = np.array([x for x, *_ in clicks])
    cut = len(clicks) // 2
    for span in (range(cut), range(cut, cut + 1), range(cut + 1, len(clicks))):
        made.count(tiles, span, items, near.ravel())
    return made


def scores_by_definition(clicks, session, half_life, decay, *, is_symmetric):
    """Return {item: score}, of every pair of every click, in float64."""
    found = Counter()
    for now, (x, before, after) in enumerate(clicks, start=1):
        kept = 2.0 ** ((now - len(clicks)) / half_life)
        follows = [(y, x, j) for j, y in enumerate(before, 1)]
        follows += [(x, y, j) for j, y in enumerate(after, 1)]
        for first, then, distance in follows:
            for j, asked in enumerate(session):
                if first == asked:
                    found[then] += decay**j * kept / distance
                if then == asked and is_symmetric:
                    found[first] += decay**j * kept / distance
    return {item: score for item, score in found.items() if item not in session}


@pytest.mark.parametrize("session", [[3], [5, 1, 0], [2, 7, 4, 9, 6]])
@pytest.mark.parametrize("target", [8, 10, 11])
def test_ranks_are_those_of_the_definition(session, target):
    clicks = stream()
    made = counted(clicks)
    ranks = made.ranks(target, np.array(session))
    at = 0
    for half_life in made._grid.half_lives.tolist():
        for decay in made._grid.decays.tolist():
            for is_symmetric in (False, True):
                scores = scores_by_definition(
                    clicks, session, half_life, decay, is_symmetric=is_symmetric
                )
                goal = scores[target]
                above = sum(score > goal * (1 + 1e-5) for score in scores.values())
                no_less = sum(score > goal * (1 - 1e-5) for score in scores.values()) - 1
                assert above <= ranks[at] <= no_less
                at += 1
    assert at == len(made.counts)


def test_item_knn_is_the_cosine_of_neighbourhoods():
    clicks = [(0, [1], []), (2, [1], []), (2, [1], []), (3, [], []), (2, [], []), (2, [], [])]
    made = counted(clicks)
    # Items 0 and 2 were 1's neighbour once and twice, in 1 and 4 clicks: a draw.
    assert made.ranks(0, np.array([1]))[-1] == made.ranks(2, np.array([1]))[-1] == 1


def test_an_item_of_which_nothing_speaks_is_missed():
    made = counted([(0, [1], [])])
    assert (made.ranks(5, np.array([1])) == MISSED).all()
    assert (made.ranks(1, np.array([5])) == MISSED).all()


def test_counts_grow_beyond_the_first_room(monkeypatch):
    whole = counted(stream())
    monkeypatch.setattr("streamer.evaluation.baselines._FIRST_ROOM", 4)
    parts = counted(stream())
    for target in range(5):
        session = np.array([6, 7])
        assert parts.ranks(target, session).tolist() == whole.ranks(target, session).tolist()
