"""The noise table holds recent clicks; draws follow it, and nothing but a click's own numbers."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.negatives import Noise, add_noise, draw_noise
from kernels.rng import number
from tests.strategies import examples

START = np.uint64(12345)


def draw(at):
    return np.uint64(number(START, np.uint64(at)))


def empty(size):
    return Noise(np.full(size, -1, np.int64), np.zeros(1, np.int64))


def filled(rows):
    noise = empty(len(rows))
    for row in rows:
        add_noise(noise, row, np.uint64(0))
    return noise


def drawn(noise, n, start=START, counter=0):
    out = np.full(n, -1, np.int64)
    draw_noise(noise, start, counter, out, n)
    return out.tolist()


@examples(60)
@given(rows=st.lists(st.integers(0, 50), min_size=1, max_size=60), size=st.integers(1, 20))
def test_the_table_fills_in_order_then_replaces_one_entry_a_click(rows, size):
    noise, held = empty(size), []
    for at, row in enumerate(rows):
        before = noise.entries.copy()
        add_noise(noise, row, draw(at))
        if at < size:
            held.append(row)
            assert noise.entries[: at + 1].tolist() == held
        else:
            changed = np.flatnonzero(noise.entries != before)
            assert len(changed) <= 1
            assert (noise.entries[changed] == row).all()
            assert row in noise.entries
        assert noise.filled[0] == min(at + 1, size)


def test_every_entry_may_be_replaced():
    size, n = 16, 400
    noise = filled([-7] * size)
    for at in range(n):
        add_noise(noise, at, draw(at))
    # An entry is left alone by 400 draws with probability (15/16)^400 = 6e-12.
    assert (noise.entries >= 0).all()


def test_draws_follow_how_often_a_row_is_in_the_table():
    noise, n = filled([1] * 8 + [2] * 4 + [3] * 2 + [4, 5]), 4000
    counts = Counter(drawn(noise, n))
    for row, share in ((1, 8), (2, 4), (3, 2), (4, 1), (5, 1)):
        expected = n * share / 16
        # Five standard deviations of a binomial.
        assert counts[row] == pytest.approx(expected, abs=5 * np.sqrt(expected))


def test_only_what_has_been_entered_is_drawn():
    noise = empty(100)
    for row in (3, 4):
        add_noise(noise, row, np.uint64(0))
    assert set(drawn(noise, 200)) == {3, 4}


def test_draws_go_on_at_the_counter():
    noise = filled(list(range(64)))
    assert drawn(noise, 5) + drawn(noise, 7, counter=5) == drawn(noise, 12)
    assert drawn(noise, 12, start=START + np.uint64(1)) != drawn(noise, 12)
