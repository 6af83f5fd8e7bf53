"""Figures are the means of what tests add, and ratios are paired."""

import numpy as np
import pytest

from streamer.evaluation.figures import Ranked

N = 4000


def results_of(**ranks):
    rng = np.random.default_rng(1)
    return Ranked(
        sessions=rng.integers(0, 900, N),
        times_ms=np.arange(N),
        is_cold=np.arange(N) % 4 == 0,
        ranks={name: np.array(of).reshape(-1, N).T for name, of in ranks.items()},
    )


def test_a_place_counts_within_twenty_and_by_its_reciprocal():
    ranks = np.full(N, 20)
    ranks[:1000], ranks[1000:2000] = 0, 19
    found = results_of(one=ranks).results()["one"]
    assert found["recall_at_20"] == 0.5
    assert found["mrr_at_20"] == pytest.approx(0.25 * (1 + 1 / 20))
    assert found["cold_recall_at_20"] == 0.5


def test_each_figure_takes_the_setting_that_is_best_for_it():
    first, second = np.full(N, 19), np.full(N, 50)
    second[: N // 10] = 0
    found = results_of(one=[first, second]).results()["one"]
    assert found["recall_at_20"] == 1.0
    assert found["mrr_at_20"] == pytest.approx(0.1)


def test_the_interval_of_a_ratio_is_that_of_the_difference():
    rng = np.random.default_rng(2)
    base = np.where(rng.random(N) < 0.4, 3, 99)
    better = np.where(rng.random(N) < 0.02, 3, base)
    ratio, low, high = results_of(base=base, ours=better).ratios("base", 1)["ours"]["recall_at_20"]
    assert ratio == pytest.approx((better < 20).mean() / (base < 20).mean(), abs=1e-3)
    assert 1.005 < low < ratio < high < ratio + 0.02


def test_where_nothing_was_found_there_is_no_ratio():
    missed = np.full(N, 99)
    assert results_of(base=missed, ours=missed).ratios("base", 1)["ours"]["recall_at_20"] == [
        0,
        0,
        0,
    ]
