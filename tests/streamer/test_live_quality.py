"""The setting that ranks sampled clicks best comes to be ahead, and stays over a restart."""

import numpy as np
import pytest

from kernels.tiles import empty_tiles
from state.sections import Section
from state.shard import MemorySettings
from state.store import Store, StoreSettings
from streamer.training import live_quality
from streamer.training.live_quality import LiveQuality, query_settings
from streamer.training.ranker import MISSED
from tests.state.test_vocabulary import ids, names

MEMORY = MemorySettings((30.0, 500.0), 100.0, 4, 4, 16, 4)
ALL = ids(*names(5))
KEYS = np.array([7], np.uint64)


class Ranked(LiveQuality):
    """Ranks that are given instead of found."""

    def __init__(self, store, section, best):
        super().__init__(store, 0.4, 1, section)
        self._ranker = self
        self._best = best

    def ranks(self, target, session, settings, own):
        ranks = np.full(len(settings), MISSED)
        ranks[self._best] = 0
        return ranks


@pytest.fixture
def store():
    made = Store(StoreSettings(8, 20, 1, 1, 4, MEMORY), {}, "s")
    made.admit(ALL)
    return made


def tiles(n):
    made = empty_tiles(n, 2)
    made.used[0] = n
    made.items[:] = ALL.keys[0]
    made.neighbours[:] = ALL.keys[1]
    made.n_before[:] = made.n_neighbours[:] = 1
    made.offsets[:] = np.arange(n)
    return made


def look(quality, n):
    """Let it look at n clicks, as if each were trained in its turn; return how many it ranked."""
    some, before = tiles(n), quality.n_scored
    for t in quality.picks(some, KEYS):
        quality._store._rows.accepted[0] = t
        quality.examine(some, t)
    return quality.n_scored - before


def test_the_grid_holds_the_shipped_setting_once_and_no_other_twice():
    grid = query_settings()
    assert len(np.unique(grid, axis=0)) == len(grid)
    assert (grid == np.array(live_quality.SHIPPED, np.float32)).all(axis=1).sum() == 1
    assert (grid >= 0).all()
    assert (grid[:, 0] == 1).all()


def test_the_shipped_setting_serves_until_another_is_ahead_by_its_lead(store):
    shipped, other = np.array(live_quality.SHIPPED, np.float32), query_settings()[5]
    seen = set()
    for n in range(1, 100):
        quality = Ranked(store, Section(), best=5)
        n_scored = look(quality, n)
        seen.add(n_scored)
        # Each is worth 1 + .35; the lead is 3.
        assert (quality.setting == (shipped if n_scored <= 2 else other)).all()
    assert {0, 2, 3} < seen


def test_one_click_in_twenty_is_sampled(store):
    assert look(Ranked(store, Section(), best=0), 8000) == pytest.approx(400, rel=0.2)


def test_once_many_are_scored_the_sample_shrinks_with_the_items(store, monkeypatch):
    monkeypatch.setattr(live_quality, "MANY_SCORED", 100)
    monkeypatch.setattr(live_quality, "PERIOD", 4096)
    store._rows.clicks[:5] = 1
    monkeypatch.setattr(live_quality, "_COST_OF_A_ROW", 2.0)  # 5 items: one click in 200
    quality = Ranked(store, Section(), best=0)
    assert look(quality, 60_000) == pytest.approx(205 + (60_000 - 4096) / 200, rel=0.15)


def test_a_restart_goes_on_where_it_was(store):
    one = Ranked(store, Section(), best=3)
    look(one, 3000)
    other = Ranked(store, one.snapshot(), best=3)
    for quality in (one, other):
        look(quality, 2000)
    assert one.snapshot().values == other.snapshot().values
    for name, values in one.snapshot().arrays.items():
        assert np.array_equal(values, other.snapshot().arrays[name])


def test_figures_are_means_over_what_was_ranked(store):
    quality = Ranked(store, Section(), best=len(query_settings()))  # vectors alone
    assert quality.figures == {}
    look(quality, 4000)
    assert quality.figures["vectors"] == pytest.approx((1.0, 1.0))
    assert quality.figures["chosen"] == quality.figures["popularity"] == (0.0, 0.0)
