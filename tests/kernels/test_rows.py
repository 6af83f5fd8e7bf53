"""A newborn's values are a function of (seed, key); what is no number is found."""

import numpy as np
import pytest

from kernels.rows import find_non_finite, initialise

LARGEST = np.finfo(np.float32).max


def newborn(keys, seed=1, dim=64, half_width=0.5, rows=None):
    vectors = np.full((len(keys) + 2, dim), 9.0, np.float32)
    places = np.arange(len(keys)) if rows is None else np.array(rows)
    wanted = np.array(keys, np.uint64)
    initialise(vectors, dim, places, wanted, np.uint64(seed), np.float32(half_width))
    return vectors


def found(inputs, outputs, begin=0, end=None):
    end = len(inputs) if end is None else end
    out = np.full(end - begin, -1, np.int64)
    return out[: find_non_finite(inputs, outputs, begin, end, out)].tolist()


def test_values_are_uniform_between_the_bounds():
    values = newborn(range(50))[:50]
    assert values.min() >= -0.5
    assert values.max() < 0.5
    # 3,200 uniform values: five standard deviations.
    assert abs(values.mean()) < 5 * (1 / np.sqrt(12)) / np.sqrt(values.size)
    assert values.var() == pytest.approx(1 / 12, rel=0.1)
    assert np.isclose(values.max(), 0.5, atol=0.01)


def test_values_are_a_function_of_seed_and_key_whatever_the_row():
    one = newborn([5, 6, 7])
    other = newborn([7, 5, 6], rows=[0, 4, 2])
    assert np.array_equal(one[[0, 1, 2]], other[[4, 2, 0]])
    assert not np.isclose(newborn([5], seed=2)[0], one[0]).all()
    assert len(np.unique(one[:3], axis=0)) == 3


def test_only_the_named_rows_are_written():
    vectors = newborn([5, 6], rows=[1, 3])
    assert (vectors[[0, 2]] == 9).all()
    assert (np.abs(vectors[[1, 3]]) < 0.5).all()


def test_columns_behind_the_values_are_left():
    vectors = np.zeros((1, 16), np.float32)
    initialise(vectors, 6, np.array([0]), np.array([5], np.uint64), np.uint64(1), np.float32(0.5))
    assert (vectors[0, :6] != 0).all()
    assert (vectors[0, 6:] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("column", [0, 3, 7])
def test_one_value_that_is_not_finite_is_enough(value, side, column):
    inputs, outputs = np.ones((2, 5, 8), np.float32)
    (inputs if side == "inputs" else outputs)[2, column] = value
    assert found(inputs, outputs) == [2]


def test_infinities_that_cancel_are_found():
    inputs, outputs = np.ones((2, 5, 8), np.float32)
    inputs[1, 2], inputs[1, 3] = np.inf, -np.inf
    inputs[4, 2], outputs[4, 2] = np.inf, -np.inf
    assert found(inputs, outputs) == [1, 4]


def test_large_and_small_finite_values_are_left_alone():
    inputs, outputs = np.full((2, 5, 64), LARGEST)
    inputs[1] = -LARGEST
    outputs[2] = np.finfo(np.float32).smallest_subnormal
    assert found(inputs, outputs) == []


def test_only_the_given_rows_are_looked_at():
    inputs, outputs = np.full((2, 5, 8), np.nan, np.float32)
    assert found(inputs, outputs, 1, 3) == [1, 2]
    assert found(inputs, outputs, 2, 2) == []
