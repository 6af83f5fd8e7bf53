"""Clicks are picked by what they are alone: where a session can be asked, and by their draw."""

import numpy as np
import pytest

from kernels.sampling import pick
from kernels.tiles import empty_tiles

KEYS = np.array([7, 8], np.uint64)
ALL = (1 << 64) - 1


def tiles(n, first=0):
    made = empty_tiles(n, 2)
    made.used[0] = n
    made.n_before[:] = 1
    made.offsets[:] = first + np.arange(n)
    return made


def picks(of, low=0, high=ALL, seed=1):
    n = int(of.used[0])
    found, draws = np.full(n, -1), np.zeros(n, np.uint64)
    n = pick(of, np.uint64(seed), KEYS, np.uint64(low), np.uint64(high), found, draws)
    return found[:n].tolist(), draws[:n].tolist()


def test_a_click_with_nothing_before_it_or_itself_before_it_cannot_be_ranked():
    made = tiles(4)
    made.n_before[1] = 0
    made.n_own[2] = 1
    assert picks(made)[0] == [0, 3]


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_range_of_draws_picks_its_share(share):
    found, _ = picks(tiles(20_000), high=int(share * ALL))
    assert len(found) == pytest.approx(20_000 * share, rel=0.1)


def test_ranges_that_do_not_meet_pick_different_clicks():
    made = tiles(1000)
    low, high = picks(made, high=ALL // 20)[0], picks(made, low=ALL // 20)[0]
    assert sorted(low + high) == list(range(1000))


def test_a_draw_is_that_of_the_click_wherever_it_stands():
    later, _ = picks(tiles(100, first=50), high=ALL // 4)
    assert [50 + t for t in later] == [t for t in picks(tiles(150), high=ALL // 4)[0] if t >= 50]
    other = tiles(150)
    other.partitions[:] = 1
    assert picks(other, high=ALL // 4) != picks(tiles(150), high=ALL // 4)
    assert picks(tiles(150), high=ALL // 4, seed=2) != picks(tiles(150), high=ALL // 4)
