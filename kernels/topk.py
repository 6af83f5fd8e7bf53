"""Exact top-k, the truth against which an index is measured.

Results stand in the order of (score, largest first; row, smallest first). A NaN is never among
them. Where there are fewer than k, the rest is row -1 with score -inf.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.policy import kernel, part

# So many queries share one pass over the vectors: their scores stay in the nearest cache.
_TOGETHER = 128


@part
def _insert(best, rows, score, row):
    """Put a score that beats the last one in its place, behind its equals."""
    at = best.shape[0] - 1
    while at > 0 and best[at - 1] < score:
        best[at] = best[at - 1]
        rows[at] = rows[at - 1]
        at -= 1
    best[at] = score
    rows[at] = row


@kernel("void(f4[::1], f4[::1], i8[::1])")
def keep_largest(scores, best, rows):
    """Keep the largest of `scores`, and where they stand.

    Parameters
    ----------
    scores : float32 (n,)
    best : float32 (k,), k >= 1, all -inf; overwritten
    rows : int64 (k,), all -1; overwritten
    """
    last = best.shape[0] - 1
    for i in range(scores.shape[0]):
        if scores[i] > best[last]:
            _insert(best, rows, scores[i], i)


@kernel("void(f4[:, ::1], f4[:, ::1], f4[:, ::1], i8[:, ::1], f4[::1])")
def keep_nearest(vectors, queries, best, rows, scores):
    """Keep, for each query, the vectors with the largest inner products.

    Parameters
    ----------
    vectors : float32 (n, dim)
    queries : float32 (dim, m), one query in each column
    best : float32 (m, k), k >= 1, all -inf; overwritten
    rows : int64 (m, k), all -1; overwritten
    scores : float32 (m,), scratch, overwritten
    """
    last = best.shape[1] - 1
    for i in range(vectors.shape[0]):
        for q in range(queries.shape[1]):
            scores[q] = np.float32(0.0)
        for j in range(vectors.shape[1]):
            x = vectors[i, j]
            for q in range(queries.shape[1]):
                scores[q] += x * queries[j, q]
        for q in range(queries.shape[1]):
            if scores[q] > best[q, last]:
                _insert(best[q], rows[q], scores[q], i)


def largest(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the k largest scores and their places, both (k,)."""
    best, rows = _nothing((k,))
    if k:
        keep_largest(np.ascontiguousarray(scores, np.float32), best, rows)
    return best, rows


def top_k(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the k largest inner products of each query and their rows, both (m, k).

    Runs on the calling thread alone.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    best, rows = _nothing((queries.shape[0], k))
    scores = np.empty(_TOGETHER, np.float32)
    for start in range(0, queries.shape[0] if k else 0, _TOGETHER):
        some = slice(start, start + _TOGETHER)
        columns = np.ascontiguousarray(queries[some].T, np.float32)
        keep_nearest(vectors, columns, best[some], rows[some], scores[: columns.shape[1]])
    return best, rows


def _nothing(shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
