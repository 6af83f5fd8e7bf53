"""Clicks are tested before they are trained, by contenders that know the past alone."""

import numpy as np
import pytest

from streamer.clock import SystemClock
from streamer.config import Config
from streamer.errors import ConfigError
from streamer.evaluation.evaluate import WARM_UP, Workplace, draw, evaluate
from streamer.evaluation.report import as_object, as_table
from streamer.settings.sources import FileSource, Source
from streamer.training.trainer import Trainer
from tests.system.runs import write_csv

N_ITEMS, N_CLICKS = 400, 6000


def clicks(follows):
    """Clicks of sessions of four, a second apart; `follows(rng, item)` says what comes next."""
    rng = np.random.default_rng(1)
    item, rows = 0, []
    for at in range(N_CLICKS):
        item = follows(rng, item) if at % 4 else int(rng.integers(N_ITEMS))
        rows.append({"user_id": f"u{at // 4}", "item_id": f"i{item}", "ts": 10**12 + 1000 * at})
    return rows


def anything(rng, item):
    return int(rng.integers(N_ITEMS))


def the_next(rng, item):
    return (item + 1) % N_ITEMS


@pytest.fixture
def workplace(tmp_path):
    def make(rows):
        path = write_csv(tmp_path / "clicks.csv", rows)
        config = Config(
            source=Source(files=FileSource(paths=(path,))),
            training={"dim": 8},
            store={"max_items": 1000, "recent_sessions": 1 << 12, "directory": tmp_path / "state"},
        )
        return Workplace(config, SystemClock(), tmp_path)

    return make


def evaluated(at, n_tests=500, **settings):
    return evaluate(at, draw(at, n_tests), ages_ms={}, **settings)


def test_as_many_are_drawn_as_are_asked_for_and_none_of_the_first(workplace):
    at = workplace(clicks(anything))
    tests = evaluated(at, 500)
    assert len(tests.sessions) == 500
    assert tests.times_ms.min() >= 10**12 + 1000 * WARM_UP * N_CLICKS
    everything = draw(at, 10**9)
    assert everything.high == (1 << 64) - 1
    assert 3000 < everything.n_tests < N_CLICKS * (1 - WARM_UP) * 3 / 4


def test_what_always_follows_is_found(workplace):
    results = evaluated(workplace(clicks(the_next))).results()
    for name in ("default", "chosen", "co_occurrence", "item_knn"):
        assert results[name]["recall_at_20"] > 0.7, name
    assert results["popularity"]["recall_at_20"] < 0.15


def test_what_cannot_be_known_is_not_found(workplace):
    """Chance finds 20 of 400."""
    results = evaluated(workplace(clicks(anything))).results()
    for name, figures in results.items():
        assert figures["recall_at_20"] < 0.13, name


def test_a_leak_is_caught(workplace, monkeypatch):
    """Each test click is trained before it is ranked: what cannot be known is found."""
    train = Trainer.train

    def trained_first(self, tiles, partition_keys):
        examiner = self.examiner

        class Late:
            def picks(self, tiles, keys):
                for t in examiner.picks(tiles, keys):
                    self.t = t
                    yield t + 1

            def examine(self, tiles, t):
                examiner.examine(tiles, self.t)

            def trained(self, tiles):
                examiner.trained(tiles)

        self.examiner = Late()
        try:
            return train(self, tiles, partition_keys)
        finally:
            self.examiner = examiner

    at = workplace(clicks(anything))
    drawn = draw(at, 500)
    monkeypatch.setattr(Trainer, "train", trained_first)
    results = evaluate(at, drawn, ages_ms={}).results()
    assert results["default"]["recall_at_20"] > 0.2


def test_what_is_served_an_hour_old_knows_nothing_of_that_hour(workplace):
    """After 3,600 clicks, one a second, all items are new; an hour old none of them is known."""
    rows = clicks(the_next)
    for at, row in enumerate(rows):
        row["item_id"] += "-new" * (at >= 3000)
    at = workplace(rows)
    tests = evaluate(at, draw(at, 10**9), ages_ms={"an_hour": 3_600_000, "a_minute": 60_000})
    is_new = tests.times_ms > 10**12 + 1000 * 4600
    is_early = tests.times_ms < 10**12 + 5_900_000
    assert (tests.ranks["an_hour"][is_new & is_early] > 20).all()
    assert (tests.ranks["a_minute"][is_new] < 20).mean() > 0.7


def test_an_item_is_cold_for_six_hours(workplace):
    rows = clicks(the_next)
    for at, row in enumerate(rows):
        row["ts"] = 10**12 + 10_000 * at  # 16 h 40 min
    tests = evaluated(workplace(rows), 10**9)
    assert tests.is_cold[tests.times_ms < 10**12 + 21_000_000].all()
    assert tests.is_cold[tests.times_ms > 10**12 + 40_000_000].mean() < 0.05


def test_the_report_has_every_contender(workplace):
    found = as_object(evaluated(workplace(clicks(the_next)), 200), 1)
    assert found["tests"] == 200
    assert set(found["ratios"]) == set(found["results"]) - {"co_occurrence"}
    table = as_table(found)
    assert all(name in table for name in found["results"])


def test_a_file_in_which_nothing_follows_is_refused(workplace, tmp_path):
    rows = [{"user_id": f"u{n}", "item_id": "i", "ts": 10**12 + n} for n in range(50)]
    with pytest.raises(ConfigError, match="found none in the last 85% of 50 clicks"):
        draw(workplace(rows), 10)


def test_records_that_are_unusable_are_told_where_nothing_can_be_tested(workplace):
    rows = [{"user_id": "u", "item_id": f"i{n}", "ts": "soon"} for n in range(3)]
    with pytest.raises(ConfigError, match="of 0 clicks; unusable records: 3 bad_time"):
        draw(workplace(rows), 10)
