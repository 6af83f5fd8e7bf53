"""The truth by which indexes are measured must be right about order, ties and edges."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.topk import keep_largest, largest, top_k


def sorted_out(scores, k):
    """Sort everything: largest score first, then smallest row; pad with (-inf, -1)."""
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]
    padding = k - len(order)
    return [scores[row] for row in order] + [-np.inf] * padding, order + [-1] * padding


@settings(max_examples=60, deadline=None)
@given(scores=st.lists(st.integers(-5, 5).map(lambda x: x / 4), max_size=40), k=st.integers(0, 12))
def test_largest_is_the_head_of_a_full_sort_with_ties_in_row_order(scores, k):
    best, rows = largest(np.array(scores, "f4"), k)

    assert (best.tolist(), rows.tolist()) == sorted_out(scores, k)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 30),
    m=st.integers(0, 5),
    k=st.integers(0, 8),
    dim=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_top_k_is_the_sort_of_all_inner_products(n, m, k, dim, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (n, dim)).astype("f4")  # whole numbers: products are exact
    queries = rng.integers(-3, 4, (m, dim)).astype("f4")

    best, rows = top_k(vectors, queries, k)

    expected = [sorted_out((vectors @ query).tolist(), k) for query in queries]
    assert best.tolist() == [scores for scores, _ in expected]
    assert rows.tolist() == [places for _, places in expected]


def test_more_queries_than_share_a_pass_are_all_answered():
    vectors = np.eye(5, dtype="f4")
    queries = np.tile(vectors, (61, 1))  # 305: two full passes and a rest

    best, rows = top_k(vectors, queries, 1)

    assert rows[:, 0].tolist() == list(range(5)) * 61
    assert (best == 1).all()


def test_a_nan_is_never_among_the_largest():
    scores = np.array([np.nan, 1, np.nan, -np.inf, 2], "f4")

    best, rows = largest(scores, 4)

    assert rows.tolist() == [4, 1, -1, -1]
    assert best.tolist() == [2, 1, -np.inf, -np.inf]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="plain Python takes any type")
def test_doubles_are_refused():
    with pytest.raises(TypeError):
        keep_largest(np.zeros(3), np.full(1, -np.inf, "f4"), np.full(1, -1))


def test_plain_python_and_compiled_agree():
    scores = np.random.default_rng(3).normal(size=50).astype("f4")
    best, rows = np.full(7, -np.inf, "f4"), np.full(7, -1)
    keep_largest.body(scores, best, rows)

    compiled = largest(scores, 7)

    assert compiled[0].tolist() == best.tolist()
    assert compiled[1].tolist() == rows.tolist()
