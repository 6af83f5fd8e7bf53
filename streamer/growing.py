"""Arrays that grow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    """Return a copy of `n` >= len(array) rows, zeros behind those there were.

    >>> grown(np.array([3, 4]), 3)
    array([3, 4, 0])
    """
    larger = np.zeros((n, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
