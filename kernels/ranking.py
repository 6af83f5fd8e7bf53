"""The terms of the session query for every item, and the rank of one under settings of weights.

score(i | session) = w_0 q . v_i + w_1 log(1 + fast_i) + w_2 log(1 + slow_i) + w_3 log(1 + 10 T_i)
+ w_4 log(1 + V_i), with the published vector v_i = normalise(E + O), decayed popularities, the
transitions T_i from the session's items to i, and the votes V_i of recent sessions
(ARCHITECTURE.md, Semantics). Each row of terms is one of these: a setting is five weights.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.elementary import exp2, log
from kernels.memory import F4_2D, HALF_LIVES
from kernels.policy import kernel, part
from kernels.sgns import ROWS
from kernels.windows import F4, I8

SIMILARITY, FAST, SLOW, TRANSITIONS, VOTES = range(5)
N_TERMS = 5
TRANSITION_SCALE = np.float32(10.0)
_ROUNDING = np.float32(1e-4)  # more than sums of terms are off by
_TINY = np.float32(1e-30)
_CANCELLED = np.float32(1e-12)  # the square of a sum of unit vectors that is but rounding


@kernel(types.boolean(F4_2D, F4_2D, I8, F4, F4))
def compose_query(inputs, outputs, rows, weights, query):
    """Add up the published vectors of a session's items, and make the sum of length one.

    Parameters
    ----------
    inputs, outputs : float32 (n_rows, padded dim)
    rows : int64 (n,), the session's items
    weights : float32 (n,), of each
    query : float32 (padded dim,), overwritten

    Returns
    -------
    bool, whether it has a direction; if not, `query` is 0
    """
    query[:] = np.float32(0.0)
    for j in range(rows.shape[0]):
        row, square = rows[j], np.float32(0.0)
        for d in range(query.shape[0]):
            square += (inputs[row, d] + outputs[row, d]) ** 2
        scale = weights[j] / np.sqrt(square + _TINY)
        for d in range(query.shape[0]):
            query[d] += scale * (inputs[row, d] + outputs[row, d])
    square = np.float32(0.0)
    for d in range(query.shape[0]):
        square += query[d] ** 2
    if square <= _CANCELLED:
        query[:] = np.float32(0.0)
        return False
    for d in range(query.shape[0]):
        query[d] /= np.sqrt(square)
    return True


@part
def _similarity(rows, query, row):
    dot, square = np.float32(0.0), np.float32(0.0)
    for d in range(query.shape[0]):
        value = rows.inputs[row, d] + rows.outputs[row, d]
        dot += value * query[d]
        square += value * value
    return dot / np.sqrt(square + _TINY)


@kernel(types.void(ROWS, F4, HALF_LIVES, types.int64, types.int64, F4_2D))
def fill_terms(rows, query, half_lives, begin, end, terms):
    """Write the terms of some items.

    Parameters
    ----------
    rows : Rows of arrays (n_rows, ...)
    query : float32 (padded dim,), of length one, or 0
    half_lives : HalfLives
    begin, end : int64, the rows from `begin` on, before `end`
    terms : float32 (N_TERMS, n_rows), overwritten there; TRANSITIONS and VOTES are T and V before,
        and the others -inf for items that were never clicked
    """
    for row in range(begin, end):
        is_clicked = rows.clicks[row] > 0
        terms[SIMILARITY, row] = _similarity(rows, query, row) if is_clicked else -np.inf
    accepted = np.float64(rows.accepted[0])
    for h in range(2):
        for row in range(begin, end):
            log2 = rows.memory.popularity[row, h] - accepted / half_lives.popularity[h]
            terms[FAST + h, row] = log(np.float32(1.0) + exp2(np.float32(log2)))
    for row in range(begin, end):
        terms[TRANSITIONS, row] = log(np.float32(1.0) + TRANSITION_SCALE * terms[TRANSITIONS, row])
        terms[VOTES, row] = log(np.float32(1.0) + terms[VOTES, row])


class Rivals(NamedTuple):
    """Room to rank in."""

    rows: np.ndarray  # int64 (n_rows,), items that may score as much as the target
    leads: np.ndarray  # float32 (n_rows,), by how much at most
    goals: np.ndarray  # float32 (n_settings,), what the target scores
    scores: np.ndarray  # float32 (n_settings,)


RIVALS = types.NamedTuple((I8, F4, F4, F4), Rivals)


@part
def _range_of(values):
    low = high = values[0]
    for i in range(values.shape[0]):
        low, high = min(low, values[i]), max(high, values[i])
    return low, high


@part
def _find_rivals(terms, begin, end, target, settings, rivals, n):
    """List the items that may score as much as `target` under some setting; return how many."""
    leads = rivals.leads
    for row in range(begin, end):
        leads[row] = _ROUNDING
    for k in range(N_TERMS):
        low, high = _range_of(settings[k])
        for row in range(begin, end):
            ahead = terms[k, row] - terms[k, target]
            leads[row] += max(low * ahead, high * ahead)
    for row in range(begin, end):
        if leads[row] >= np.float32(0.0):
            rivals.rows[n] = row
            n += 1
    return n


@part
def _score(terms, row, settings, scores):
    """Write what an item scores under each setting."""
    x0, x1, x2, x3, x4 = terms[0, row], terms[1, row], terms[2, row], terms[3, row], terms[4, row]
    for g in range(scores.shape[0]):
        without_memory = settings[0, g] * x0 + settings[1, g] * x1 + settings[2, g] * x2
        scores[g] = without_memory + settings[3, g] * x3 + settings[4, g] * x4


@kernel(types.void(F4_2D, I8, I8, types.int64, F4_2D, RIVALS, I8))
def rank(terms, begins, ends, target, settings, rivals, ranks):
    """Count, under each setting, the items that score no less than `target`.

    Parameters
    ----------
    terms : float32 (N_TERMS, n_rows); items whose SIMILARITY is -inf are not ranked
    begins, ends : int64 (n_shards,), the rows in use
    target : int64, a row in use that is ranked
    settings : float32 (N_TERMS, n_settings), weights >= 0
    rivals : Rivals of arrays (n_rows,), (n_settings,), overwritten
    ranks : int64 (n_settings,), overwritten; 0 where `target` is ahead of all, ties count against
    """
    n = 0
    for s in range(begins.shape[0]):
        n = _find_rivals(terms, begins[s], ends[s], target, settings, rivals, n)
    _score(terms, target, settings, rivals.goals)
    ranks[:] = -1  # the target is its own rival
    for i in range(n):
        _score(terms, rivals.rows[i], settings, rivals.scores)
        for g in range(ranks.shape[0]):
            ranks[g] += rivals.scores[g] >= rivals.goals[g]
