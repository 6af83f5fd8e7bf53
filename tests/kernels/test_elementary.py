"""The logistic function against its definition in float64."""

import math

import numpy as np
import pytest

from kernels.elementary import sigmoid


def test_it_is_the_logistic_function_to_within_three_ten_millionths():
    grid = np.concatenate([np.linspace(-20, 20, 20_001), np.linspace(-0.01, 0.01, 201)])
    for x in grid.astype(np.float32):
        assert sigmoid(x) == pytest.approx(1 / (1 + math.exp(-float(x))), rel=0, abs=3e-7)


def test_it_rises_but_for_its_error():
    found = np.array([sigmoid(x) for x in np.linspace(-17, 17, 3_001).astype(np.float32)])
    assert (np.diff(found) >= -3e-7).all()
    assert sigmoid(np.float32(0.0)) == 0.5


@pytest.mark.parametrize("x", [16.1, 60_000.0, 1e30, np.inf])
def test_far_out_it_is_exactly_one_and_zero(x):
    assert sigmoid(np.float32(x)) == 1.0
    assert sigmoid(np.float32(-x)) == 0.0


def test_what_is_no_number_stays_none():
    assert np.isnan(sigmoid(np.float32(np.nan)))
