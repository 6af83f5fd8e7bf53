"""Kernels run as plain Python under NUMBA_DISABLE_JIT, where numpy warns of what they mean."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _compiled_arithmetic():
    # As compiled code does it: uint64 wraps, exp(-score) of a great score is inf, 1 / inf is 0.
    with np.errstate(all="ignore"):
        yield
