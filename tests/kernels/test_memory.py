"""Popularity is a sum of decayed weights, however long the stream is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.memory import add_log2, read_popularity, remember
from tests.oracles import decayed_count
from tests.strategies import examples

HALF_LIVES = np.array([4.0, 60.0])


def remembered(clicks, n_rows=3):
    """Count clicks (row, weight), which are accepted one after the other."""
    popularity = np.full((n_rows, 2), -np.inf)
    for accepted, (row, weight) in enumerate(clicks, start=1):
        remember(popularity, row, np.log2(weight), accepted, HALF_LIVES)
    return popularity


def read(popularity, accepted, half_lives=HALF_LIVES):
    out = np.full((len(popularity), 2), -1, np.float32)
    read_popularity(popularity, accepted, half_lives, out)
    return out


@examples(80)
@given(
    clicks=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from((1.0, 3.0, 0.5))), min_size=1, max_size=80
    ),
    since=st.integers(0, 30),
)
def test_it_reads_the_sum_of_decayed_weights(clicks, since):
    now = len(clicks) + since
    found = read(remembered(clicks), now)
    for row in range(3):
        mine = [(at, weight) for at, (of, weight) in enumerate(clicks, start=1) if of == row]
        truth = [decayed_count(mine, now, half_life) for half_life in HALF_LIVES]
        np.testing.assert_allclose(found[row], truth, rtol=1e-5, atol=1e-12)


def test_a_click_just_now_counts_one_and_half_of_that_a_half_life_later():
    popularity = remembered([(1, 1.0)])
    assert read(popularity, 1).tolist() == [[0, 0], [1, 1], [0, 0]]
    assert read(popularity, 5)[1, 0] == pytest.approx(0.5)
    assert read(popularity, 61)[1, 1] == pytest.approx(0.5)


def test_what_was_never_clicked_counts_nothing():
    assert (read(remembered([]), 10**9) == 0).all()


def test_a_long_stream_neither_overflows_nor_forgets_the_last_clicks():
    now = 10**12
    popularity = np.full((1, 2), -np.inf)
    for accepted in range(now - 200, now):
        remember(popularity, 0, 0.0, accepted + 1, HALF_LIVES)
    truth = [decayed_count([(t + 1, 1.0) for t in range(now - 200, now)], now, 4.0)]
    # A float64 of about 2^38 resolves 2^-15, so log2 of a weight is off by less than 2e-4 a click.
    assert read(popularity, now)[0, 0] == pytest.approx(truth[0], rel=1e-3)


@pytest.mark.parametrize(
    ("total", "term", "both"),
    [(-np.inf, 3.0, 3.0), (3.0, 3.0, 4.0), (0.0, 2.0, np.log2(5)), (2000.0, -2000.0, 2000.0)],
)
def test_logarithms_add_as_their_powers_do(total, term, both):
    assert add_log2(total, term) == pytest.approx(both, rel=1e-15)
