"""What vectors are measured against: co-occurrence counts with decay, and item-kNN.

Every pair of a click and a neighbour is counted with 1 / distance, by what came first, under
several half-lives at once; nothing is bounded. Each edge is decayed when it is touched.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.memory import F4_2D, F8, NOBODY
from kernels.policy import kernel, part
from kernels.rng import mix
from kernels.table import find, insert
from kernels.tiles import TILES
from kernels.windows import F4, I8, U8


class Edges(NamedTuple):
    """Counts of pairs of rows; owned and grown by `streamer.evaluation.baselines`."""

    table_keys: np.ndarray  # uint64 (2^k,), a hash of (from, to) ...
    table_slots: np.ndarray  # int64 (2^k,), ... -> edge
    first: np.ndarray  # int64 (n_rows,), the newest edge of a row, or -1
    following: np.ndarray  # int64 (n_edges,), the next edge of the same row, or -1
    targets: np.ndarray  # int64 (n_edges,), rows
    after: np.ndarray  # float32 (n_edges, n_half_lives), weights with which it came after
    before: np.ndarray  # float32 (n_edges, n_half_lives), and before
    times: np.ndarray  # int64 (n_edges,), clicks when the weights stood so
    shared: np.ndarray  # float32 (n_edges,), how often they were neighbours
    clicks: np.ndarray  # int64 (n_rows,)
    used: np.ndarray  # int64 (2,), edges in use; clicks counted


EDGES = types.NamedTuple((U8, I8, I8, I8, I8, F4_2D, F4_2D, I8, F4, I8, I8), Edges)
N_EDGES, N_CLICKS = range(2)  # places of `used`


@part
def _key(source, target):
    return mix((np.uint64(source) << np.uint64(32)) | np.uint64(target))


@part
def _edge(edges, source, target):
    """Return the edge from one row to another, a new one if there is none."""
    key = _key(source, target)
    at = find(edges.table_keys, edges.table_slots, key)
    if at >= 0:
        return at
    at = edges.used[N_EDGES]
    edges.used[N_EDGES] += 1
    insert(edges.table_keys, edges.table_slots, key, at)
    edges.targets[at] = target
    edges.following[at] = edges.first[source]
    edges.first[source] = at
    edges.after[at, :] = np.float32(0.0)
    edges.before[at, :] = np.float32(0.0)
    edges.shared[at] = np.float32(0.0)
    edges.times[at] = edges.used[N_CLICKS]
    return at


@part
def _count(edges, weights, source, target, weight, half_lives):
    """Add to the weight of an edge, in `weights`: those after or those before."""
    at, now = _edge(edges, source, target), edges.used[N_CLICKS]
    since = now - edges.times[at]
    edges.times[at] = now
    for h in range(half_lives.shape[0]):
        kept = np.float32(2.0 ** (-since / half_lives[h]))
        edges.after[at, h] *= kept
        edges.before[at, h] *= kept
        weights[at, h] += weight
    edges.shared[at] += np.float32(1.0)


@kernel(types.void(EDGES, TILES, I8, I8, types.int64, types.int64, F8))
def count_pairs(edges, tiles, items, neighbours, begin, end, half_lives):
    """Count the pairs of tiles.

    Parameters
    ----------
    edges : Edges of arrays, written; room for two edges more per neighbour
    tiles : Tiles of arrays (capacity,)
    items : int64 (capacity,), the row of each tile's item
    neighbours : int64 (capacity * 2 * window,), the rows of their neighbours
    begin, end : int64, the tiles that are counted
    half_lives : float64 (n_half_lives,), in clicks, > 0; infinite for none
    """
    stride = tiles.neighbours.shape[1]
    for t in range(begin, end):
        x = items[t]
        edges.used[N_CLICKS] += 1
        edges.clicks[x] += 1
        for j in range(tiles.n_neighbours[t]):
            y, n_before = neighbours[t * stride + j], tiles.n_before[t]
            is_before = j < n_before
            weight = np.float32(1.0) / np.float32(j + 1 if is_before else j + 1 - n_before)
            earlier, later = (y, x) if is_before else (x, y)
            _count(edges, edges.after, earlier, later, weight, half_lives)
            _count(edges, edges.before, later, earlier, weight, half_lives)


class Grid(NamedTuple):
    """Settings of the baseline: every direction, half-life and query decay."""

    half_lives: np.ndarray  # float64 (n_half_lives,)
    decays: np.ndarray  # float32 (n_decays,), of a session's items from the last one back


GRID = types.NamedTuple((F8, F4), Grid)


@part
def _touch(scores, touched, n_touched, row):
    """Return how many rows have scores once `row` has."""
    if scores[row, 0] >= np.float32(0.0):
        return n_touched
    scores[row, :] = np.float32(0.0)
    touched[n_touched] = row
    return n_touched + 1


@part
def _add_scores(edges, source, at, grid, j, scores):
    """Add what an edge of the session's j-th last item says to every setting's score."""
    row = edges.targets[at]
    since = edges.used[N_CLICKS] - edges.times[at]
    setting = 0
    for h in range(grid.half_lives.shape[0]):
        kept = np.float32(2.0 ** (-since / grid.half_lives[h]))
        directed = kept * edges.after[at, h]
        symmetric = directed + kept * edges.before[at, h]
        for d in range(grid.decays.shape[0]):
            weight = grid.decays[d] ** np.float32(j)
            scores[row, setting] += weight * directed
            scores[row, setting + 1] += weight * symmetric
            setting += 2
    # Item-kNN: how often two items were neighbours, by the geometric mean of their clicks.
    n = np.float64(edges.clicks[source]) * np.float64(edges.clicks[row])
    cosine = edges.shared[at] / np.float32(np.sqrt(n))
    for d in range(grid.decays.shape[0]):
        scores[row, setting] += grid.decays[d] ** np.float32(j) * cosine
        setting += 1


@kernel(types.void(EDGES, I8, types.int64, GRID, F4_2D, I8, I8))
def rank_by_counts(edges, session, target, grid, scores, touched, ranks):
    """Rank an item among all by counts, under every setting; ties count against it.

    Parameters
    ----------
    edges : Edges of arrays
    session : int64 (n,), rows, the last one first, left out of the ranking
    target : int64, none of these
    grid : Grid of arrays
    scores : float32 (n_rows, n_settings), -1 everywhere, before and after; settings in the order of
        (half-life, decay, directed before symmetric), then item-kNN by decay
    touched : int64 (n_rows,), scratch, overwritten
    ranks : int64 (n_settings,), overwritten; NOBODY where nothing speaks for `target`
    """
    n_touched = 0
    for j in range(session.shape[0]):
        at = edges.first[session[j]]
        while at >= 0:
            row = edges.targets[at]
            n_touched = _touch(scores, touched, n_touched, row)
            _add_scores(edges, session[j], at, grid, j, scores)
            at = edges.following[at]
    for j in range(session.shape[0]):
        if scores[session[j], 0] >= np.float32(0.0):
            scores[session[j], :] = np.float32(0.0)
    for g in range(ranks.shape[0]):
        goal = scores[target, g]
        ranks[g] = NOBODY
        if goal > np.float32(0.0):
            for i in range(n_touched):
                ranks[g] += scores[touched[i], g] >= goal
    for i in range(n_touched):
        scores[touched[i], :] = np.float32(-1.0)
