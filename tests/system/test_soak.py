"""The soak's verdict: what grows is told from what a commit needs for a moment."""

import numpy as np
import pytest

from tests.system.soak import judged

SECONDS = np.arange(0.0, 1200.0)


def samples(percent_per_hour=0.0, lag_per_second=0.0):
    """Twenty minutes: 260 MB, some noise, and 15 MB more for 2 s at every commit."""
    rng = np.random.default_rng(1)
    memory = 260.0 * (1 + percent_per_hour / 100 * SECONDS / 3600) + rng.normal(0, 0.15, 1200)
    memory += 15.0 * (SECONDS % 12.5 < 2)
    lag = 150.0 + lag_per_second * SECONDS
    return np.stack([SECONDS, memory, lag, 20_000 * SECONDS], axis=1)


def test_memory_that_stays_is_steady():
    verdict = judged(samples(), [], 20.0)
    assert verdict.is_steady
    assert verdict.clicks_per_second == 20_000


@pytest.mark.parametrize("percent", [1.2, 5.0])
def test_memory_that_grows_is_not(percent):
    verdict = judged(samples(percent_per_hour=percent), [], 20.0)
    assert not verdict.is_steady
    assert verdict.slope_percent_per_hour == pytest.approx(percent, abs=0.3)


def test_a_lag_that_grows_is_not_steady_and_nor_is_a_warning():
    assert not judged(samples(lag_per_second=100.0), [], 20.0).is_steady
    assert not judged(samples(), ["source_stalled"], 20.0).is_steady
