"""What is remembered is what its definitions say, however long the stream is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.memory import (
    NO_SESSION,
    Ballot,
    HalfLives,
    add_log2,
    add_transitions,
    add_votes,
    read_popularity,
    remember_click,
    remember_in_session,
    remember_transition,
)
from kernels.table import places
from state import shard
from state.shard import MemorySettings
from tests import oracles
from tests.strategies import examples

HALF_LIVES = np.array([4.0, 60.0])
N_ROWS, N_FOLLOWERS, N_SESSIONS, N_HELD_BY, N_KEPT = 7, 3, 5, 3, 4


def new_memory(n_rows=N_ROWS):
    bounds = N_FOLLOWERS, N_HELD_BY, N_SESSIONS, N_KEPT
    memory = shard.new_memory(n_rows, MemorySettings((4.0, 60.0), 8.0, *bounds))
    shard.forget(memory, np.arange(n_rows))
    return memory


def remembered(clicks, n_rows=3):
    """Count clicks (row, weight), which are accepted one after the other."""
    memory = new_memory(n_rows)
    for accepted, (row, weight) in enumerate(clicks, start=1):
        remember_click(memory, row, np.log2(weight), accepted, HalfLives(HALF_LIVES, 8.0))
    return memory.popularity


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
        truth = [oracles.decayed_count(mine, now, half_life) for half_life in HALF_LIVES]
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
    memory = new_memory(1)
    for accepted in range(now - 200, now):
        remember_click(memory, 0, 0.0, accepted + 1, HalfLives(HALF_LIVES, 8.0))
    truth = [oracles.decayed_count([(t + 1, 1.0) for t in range(now - 200, now)], now, 4.0)]
    # A float64 of about 2^38 resolves 2^-15, so log2 of a weight is off by less than 2e-4 a click.
    assert read(memory.popularity, now)[0, 0] == pytest.approx(truth[0], rel=1e-3)


@pytest.mark.parametrize(
    ("total", "term", "both"),
    [(-np.inf, 3.0, 3.0), (3.0, 3.0, 4.0), (0.0, 2.0, np.log2(5)), (2000.0, -2000.0, 2000.0)],
)
def test_logarithms_add_as_their_powers_do(total, term, both):
    assert add_log2(total, term) == pytest.approx(both, rel=1e-15)


def touched(memory, steps, half_life=8.0):
    """Add transitions (item, follower, weight), one with each accepted click."""
    lives = HalfLives(HALF_LIVES, half_life)
    for now, (item, follower, weight) in enumerate(steps, start=1):
        remember_transition(memory, item, follower, np.float32(weight), now, lives)


def transitions(memory, query, now, half_life=8.0):
    out = np.zeros(N_ROWS, np.float32)
    rows, weights = (np.array(column) for column in zip(*query, strict=True))
    add_transitions(memory, now, half_life, rows, weights.astype(np.float32), out)
    return out


def as_dense(found):
    return [found.get(row, 0.0) for row in range(N_ROWS)]


rows = st.integers(0, N_ROWS - 1)
queries = st.dictionaries(rows, st.sampled_from((1.0, 0.4, 0.16)), min_size=1, max_size=4)
# Powers of two without decay, so that float32 and float64 agree on which is the least.
exact = st.sampled_from((1.0, 0.5, 0.25, 4.0))


@examples(150)
@given(steps=st.lists(st.tuples(rows, rows, exact), max_size=60), query=queries)
def test_what_comes_anew_takes_the_place_and_the_weight_of_the_least(steps, query):
    truth, memory = oracles.Transitions(math.inf, N_FOLLOWERS), new_memory()
    for now, step in enumerate(steps, start=1):
        truth.add(*step, now)
    touched(memory, steps, half_life=np.inf)
    found = transitions(memory, query.items(), len(steps), np.inf)
    np.testing.assert_allclose(found, as_dense(truth.read(query.items(), 0)), rtol=1e-6)


@examples(150)
@given(
    steps=st.lists(st.tuples(rows, st.integers(0, N_FOLLOWERS - 1), exact), max_size=60),
    since=st.integers(0, 40),
    query=queries,
)
def test_transitions_are_sums_of_decayed_weights(steps, since, query):
    truth, memory = oracles.Transitions(8.0, N_FOLLOWERS), new_memory()
    for now, step in enumerate(steps, start=1):
        truth.add(*step, now)
    touched(memory, steps)
    now = len(steps) + since
    found = transitions(memory, query.items(), now)
    np.testing.assert_allclose(found, as_dense(truth.read(query.items(), now)), rtol=1e-4)


def test_a_transition_that_has_decayed_to_nothing_gives_its_place_away():
    memory = new_memory()
    touched(memory, [(0, 1, 1.0)] + [(2, 3, 1.0)] * 2000 + [(0, 4, 1.0)], half_life=2.0)
    assert transitions(memory, [(0, 1.0)], 2002, 2.0).tolist() == [0, 0, 0, 0, 1, 0, 0]


def votes(memory, query, own=NO_SESSION):
    out = np.zeros(N_ROWS, np.float32)
    rows, weights = (np.array(column) for column in zip(*query, strict=True))
    room = len(rows) * N_HELD_BY
    ballot = Ballot(
        keys=np.zeros(places(room), np.uint64),
        slots=np.zeros(places(room), np.int64),
        places=np.zeros(room, np.int64),
        shared=np.full(room, np.nan, np.float32),
    )
    add_votes(memory, rows, weights.astype(np.float32), own, ballot, out)
    return out


@examples(200)
@given(
    steps=st.lists(st.tuples(st.integers(1, 3 * N_SESSIONS), rows), max_size=80),
    query=queries,
    own=st.integers(0, 3 * N_SESSIONS),
)
def test_sessions_that_share_items_with_a_query_vote_for_what_they_held(steps, query, own):
    truth, memory = oracles.RecentSessions(N_SESSIONS, N_KEPT, N_HELD_BY), new_memory()
    for number, row in steps:
        truth.add(number, row)
        remember_in_session(memory, number, row)
    found = votes(memory, query.items(), own)
    np.testing.assert_allclose(found, as_dense(truth.vote(query.items(), own)), rtol=1e-5)


def test_a_session_of_three_that_shares_two_items_with_the_query():
    memory = new_memory()
    for row in (1, 2, 3, 2):
        remember_in_session(memory, 9, row)
    found = votes(memory, [(2, 1.0), (3, 0.4), (5, 0.16)])
    np.testing.assert_allclose(found[[1, 2, 3]], 1.4**2 / math.sqrt(3), rtol=1e-6)
    assert found[[0, 4, 5, 6]].tolist() == [0, 0, 0, 0]
    assert not votes(memory, [(2, 1.0)], own=9).any()
