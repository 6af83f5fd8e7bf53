"""The terms of a query are those of the blueprint's formula, and ranks count what is no worse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import ranking
from kernels.elementary import exp2, log
from kernels.scratch import padded
from kernels.sgns import Rows
from state import shard
from state.shard import MemorySettings
from tests.strategies import examples

N_ROWS, DIM = 9, 5
MEMORY = MemorySettings((4.0, 60.0), 8.0, 3, 3, 5, 4)


def rows(seed=1, accepted=40):
    """Rows with random values, of which row 3 was never clicked."""
    rng = np.random.default_rng(seed)
    keys, slots = np.zeros(32, np.uint64), np.full(32, -1, np.int64)
    made = shard.allocate(N_ROWS, DIM, MEMORY, keys, slots)
    shard.forget(made.memory, np.arange(N_ROWS))
    for vectors in (made.inputs, made.outputs):
        vectors[:, :DIM] = rng.normal(size=(N_ROWS, DIM))
    made.clicks[:] = 1
    made.clicks[3] = 0
    made.memory.popularity[:] = rng.uniform(-3, 12, (N_ROWS, 2))
    made.memory.popularity[5] = -np.inf
    made.accepted[0] = accepted
    return made


def published(made: Rows):
    vectors = (made.inputs + made.outputs)[:, :DIM].astype(float)
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def composed(made, at, weights):
    query = np.full(padded(DIM), np.nan, np.float32)
    weights = np.array(weights, np.float32)
    has_direction = ranking.compose_query(made.inputs, made.outputs, np.array(at), weights, query)
    return query, has_direction


@pytest.mark.parametrize("exponent", [-126.0, -30.5, -1.0, -0.499, 0.0, 0.3, 1.0, 17.77, 126.0])
def test_powers_of_two(exponent):
    found = exp2(np.float32(exponent))
    assert found == pytest.approx(2.0 ** float(np.float32(exponent)), rel=3e-7)


def test_a_power_of_two_that_is_none_is_nothing():
    assert exp2(np.float32(-np.inf)) < 1e-37


def test_logarithms_of_all_sizes():
    values = np.concatenate([1 + np.logspace(-7, 0, 200), np.logspace(0, 30, 300)])
    for x in values.astype(np.float32):
        assert log(x) == pytest.approx(np.log(float(x)), rel=3e-7, abs=2e-7)


def test_a_query_is_the_weighted_sum_of_published_vectors():
    made = rows()
    query, has_direction = composed(made, [2, 7], [1.0, 0.4])
    truth = published(made)[2] + 0.4 * published(made)[7]
    assert has_direction
    np.testing.assert_allclose(query[:DIM], truth / np.linalg.norm(truth), rtol=1e-5)
    assert not query[DIM:].any()


def test_a_query_of_opposite_vectors_has_no_direction():
    made = rows()
    made.inputs[1], made.outputs[1] = -made.inputs[0], -made.outputs[0]
    query, has_direction = composed(made, [0, 1], [1.0, 1.0])
    assert not has_direction
    assert not query.any()


def test_terms_are_those_of_the_formula():
    made = rows()
    query, _ = composed(made, [2, 7], [1.0, 0.4])
    raw = np.random.default_rng(2).uniform(0, 3, (2, N_ROWS)).astype(np.float32)
    terms = np.full((ranking.N_TERMS, N_ROWS), np.nan, np.float32)
    terms[3:] = raw
    ranking.fill_terms(made, query, MEMORY.half_lives, 0, N_ROWS, terms)
    similarity = published(made) @ query[:DIM]
    similarity[3] = -np.inf
    np.testing.assert_allclose(terms[ranking.SIMILARITY], similarity, rtol=1e-4, atol=1e-6)
    counts = 2.0 ** (made.memory.popularity - 40 / np.array([4.0, 60.0]))
    np.testing.assert_allclose(terms[1:3].T, np.log1p(counts), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(terms[3], np.log1p(10 * raw[0]), rtol=1e-5)
    np.testing.assert_allclose(terms[4], np.log1p(raw[1]), rtol=1e-5)


weights = st.sampled_from((0.0, 0.5, 1.0))
settings = st.lists(st.tuples(*[weights] * ranking.N_TERMS), min_size=1, max_size=6)


@examples(150)
@given(
    settings=settings,
    values=st.lists(
        st.tuples(*[st.sampled_from((-1.0, 0.0, 0.5, 2.0))] * ranking.N_TERMS),
        min_size=N_ROWS,
        max_size=N_ROWS,
    ),
    target=st.integers(0, N_ROWS - 1),
    unranked=st.sets(st.integers(0, N_ROWS - 1), max_size=3),
)
def test_a_rank_counts_all_others_that_score_no_less(settings, values, target, unranked):
    """Of two shards with a gap between; under any weights, also none of the similarity."""
    terms = np.array(values, np.float32).T.copy()
    others = [row for row in (0, 1, 2, 3, 6, 7, 8) if row not in unranked and row != target]
    terms[ranking.SIMILARITY, list(unranked - {target})] = -np.inf
    if target in {4, 5}:
        return
    asked = np.array(settings, np.float32).T.copy()
    n = len(settings)
    ranks, leads = np.zeros(n, np.int64), np.zeros(N_ROWS, np.float32)
    room = np.zeros((2, n), np.float32)
    rivals = ranking.Rivals(np.zeros(N_ROWS, np.int64), leads, *room)
    spans = np.array([0, 6]), np.array([4, N_ROWS])
    ranking.rank(terms, *spans, target, asked, rivals, ranks)
    for g, setting in enumerate(settings):
        goal = np.dot(setting, values[target])
        assert ranks[g] == sum(np.dot(setting, values[row]) >= goal for row in others)
