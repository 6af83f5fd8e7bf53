"""The skip-gram update over session tiles: shared negatives, row-wise AdaGrad.

Skip-gram with negative sampling: Mikolov et al., Distributed representations of words and phrases
and their compositionality, NIPS 2013, equation 4. Row-wise AdaGrad: Duchi et al., JMLR 12 (2011),
with one accumulator per row. A tile is the click x, its neighbours y_1..y_m and K negatives that
all its inputs share. Inputs are {x, y_j}; targets are y_j for input x, x for input y_j, and the
negatives for each input, except where a negative equals the input or one of its targets. All
scores use the values from before the tile; gradients are summed per distinct row.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.memory import remember
from kernels.negatives import NOISE, add_noise, draw_noise
from kernels.pairs import PAIRS, add_pairs, both_ways
from kernels.policy import kernel, part
from kernels.rng import mix, stream
from kernels.table import find
from kernels.tiles import TILES
from kernels.windows import F4, I8, U8


class Rows(NamedTuple):
    """What is learned, of all shards; row i of each array belongs to the item in row i."""

    table_keys: np.ndarray  # uint64 (2^k,), item key ...
    table_slots: np.ndarray  # int64 (2^k,), ... -> row
    inputs: np.ndarray  # float32 (n_rows, dim), E
    outputs: np.ndarray  # float32 (n_rows, dim), O
    input_accumulators: np.ndarray  # float32 (n_rows,)
    output_accumulators: np.ndarray  # float32 (n_rows,)
    clicks: np.ndarray  # int64 (n_rows,)
    popularity: np.ndarray  # float64 (n_rows, n_half_lives), log2
    accepted: np.ndarray  # int64 (1,), clicks of the space so far


class Learning(NamedTuple):
    """How a tile is trained."""

    seed: np.uint64
    learning_rate: np.float32
    epsilon: np.float32
    negatives: int
    passes: int
    half_lives: np.ndarray  # float64 (n_half_lives,), in accepted clicks
    partition_keys: np.ndarray  # uint64 (n_partitions,), what their draws are keyed by


class Scratch(NamedTuple):
    """Room for one tile: its distinct rows, how often each occurs, and their gradients.

    Slot 0 is x, slots 1 to n_inputs - 1 the distinct neighbours, the rest the distinct negatives
    that are none of these.
    """

    rows: np.ndarray  # int64 (n_slots,)
    counts: np.ndarray  # float32 (n_slots,), occurrences among the inputs; 0 behind n_inputs
    noise_counts: np.ndarray  # float32 (n_slots,), occurrences among the negatives
    drawn: np.ndarray  # int64 (negatives,)
    inputs: np.ndarray  # float32 (n_slots, dim)
    outputs: np.ndarray  # float32 (n_slots, dim)
    input_gradients: np.ndarray  # float32 (n_slots, dim)
    output_gradients: np.ndarray  # float32 (n_slots, dim)


_F4_2D, _F8 = types.float32[:, ::1], types.float64[::1]
ROWS = types.NamedTuple((U8, I8, _F4_2D, _F4_2D, F4, F4, I8, types.float64[:, ::1], I8), Rows)
LEARNING = types.NamedTuple(
    (types.uint64, types.float32, types.float32, types.int64, types.int64, _F8, U8), Learning
)
SCRATCH = types.NamedTuple((I8, F4, F4, I8, _F4_2D, _F4_2D, _F4_2D, _F4_2D), Scratch)


@part
def _slot_of(scratch, row, n_slots):
    for slot in range(n_slots):
        if scratch.rows[slot] == row:
            return slot
    return -1


@part
def _gather_inputs(rows, tiles, t, x, scratch):
    """Give x and its distinct neighbours their slots; return (slots, neighbours found, hash)."""
    scratch.rows[0] = x
    scratch.counts[0] = np.float32(1.0)
    n_slots, n_neighbours, hashed = 1, 0, np.uint64(0)
    for j in range(tiles.n_neighbours[t]):
        row = find(rows.table_keys, rows.table_slots, tiles.neighbours[t, j])
        if row < 0:
            continue
        n_neighbours += 1
        hashed += both_ways(tiles.items[t], tiles.neighbours[t, j])
        slot = _slot_of(scratch, row, n_slots)
        if slot < 0:
            scratch.rows[n_slots] = row
            scratch.counts[n_slots] = np.float32(0.0)
            slot = n_slots
            n_slots += 1
        scratch.counts[slot] += np.float32(1.0)
    return n_slots, n_neighbours, hashed


@part
def _gather_negatives(scratch, n_inputs):
    """Give the distinct negatives their slots and count all; return the number of slots."""
    for slot in range(n_inputs):
        scratch.noise_counts[slot] = np.float32(0.0)
    n_slots = n_inputs
    for k in range(scratch.drawn.shape[0]):
        slot = _slot_of(scratch, scratch.drawn[k], n_slots)
        if slot < 0:
            scratch.rows[n_slots] = scratch.drawn[k]
            scratch.counts[n_slots] = np.float32(0.0)
            scratch.noise_counts[n_slots] = np.float32(0.0)
            slot = n_slots
            n_slots += 1
        scratch.noise_counts[slot] += np.float32(1.0)
    return n_slots


@part
def _load(vectors, scratch_rows, scratch_vectors, gradients, n_slots):
    for slot in range(n_slots):
        row = scratch_rows[slot]
        for d in range(vectors.shape[1]):
            scratch_vectors[slot, d] = vectors[row, d]
            gradients[slot, d] = np.float32(0.0)


@part
def _pair_counts(scratch, i, o):
    """Return how often (input slot i, output slot o) is a positive and a negative pair."""
    if i == o:
        return np.float32(0.0), np.float32(0.0)
    if i == 0:
        # Every neighbour is a target of x, so a negative that equals one is skipped.
        if scratch.counts[o] > 0:
            return scratch.counts[o], np.float32(0.0)
        return np.float32(0.0), scratch.noise_counts[o]
    if o == 0:
        return scratch.counts[i], np.float32(0.0)
    return np.float32(0.0), scratch.counts[i] * scratch.noise_counts[o]


@part
def _sum_gradients(scratch, n_inputs, n_slots, weight):
    dim = scratch.inputs.shape[1]
    for i in range(n_inputs):
        for o in range(n_slots):
            positive, negative = _pair_counts(scratch, i, o)
            if positive + negative == np.float32(0.0):
                continue
            score = np.float32(0.0)
            for d in range(dim):
                score += scratch.inputs[i, d] * scratch.outputs[o, d]
            probability = np.float32(1.0) / (np.float32(1.0) + np.exp(-score))
            g = weight * (positive - (positive + negative) * probability)
            for d in range(dim):
                scratch.input_gradients[i, d] += g * scratch.outputs[o, d]
            for d in range(dim):
                scratch.output_gradients[o, d] += g * scratch.inputs[i, d]


@part
def _step(vectors, accumulators, row, gradient, learning):
    """Move one row along its gradient: AdaGrad with one accumulator per row."""
    dim = vectors.shape[1]
    square = np.float32(0.0)
    for d in range(dim):
        square += gradient[d] * gradient[d]
    if square == np.float32(0.0):
        return
    accumulators[row] += square / np.float32(dim)
    rate = learning.learning_rate / np.sqrt(accumulators[row] + learning.epsilon)
    for d in range(dim):
        vectors[row, d] += rate * gradient[d]


@part
def _update(rows, learning, scratch, n_inputs, weight):
    n_slots = _gather_negatives(scratch, n_inputs)
    _load(rows.inputs, scratch.rows, scratch.inputs, scratch.input_gradients, n_inputs)
    _load(rows.outputs, scratch.rows, scratch.outputs, scratch.output_gradients, n_slots)
    _sum_gradients(scratch, n_inputs, n_slots, weight)
    for slot in range(n_inputs):
        row = scratch.rows[slot]
        gradient = scratch.input_gradients[slot]
        _step(rows.inputs, rows.input_accumulators, row, gradient, learning)
    for slot in range(n_slots):
        row = scratch.rows[slot]
        gradient = scratch.output_gradients[slot]
        _step(rows.outputs, rows.output_accumulators, row, gradient, learning)


@kernel(types.int64(TILES, ROWS, NOISE, PAIRS, LEARNING, SCRATCH))
def train_tiles(tiles, rows, noise, pairs, learning, scratch):
    """Train tiles in order: count the click, enter it as noise, move the rows of its pairs.

    Parameters
    ----------
    tiles : Tiles of arrays (capacity,), of which `used` are trained
    rows : Rows of arrays (n_rows, ...), written at the tiles' items and at the negatives
    noise : Noise of arrays (size,), written
    pairs : Pairs of arrays (n_partitions,), (n_sessions,), written; room for one session per tile
    learning : Learning of scalars and arrays (n_half_lives,), (n_partitions,)
    scratch : Scratch of arrays (1 + 2 * window + negatives, ...), overwritten

    Returns
    -------
    int64, pairs (input, output) trained, each counted once whatever the passes

    Notes
    -----
    The items of all tiles have rows. Non-finite gradients are not checked here.
    """
    n_pairs = 0
    for t in range(tiles.used[0]):
        x = find(rows.table_keys, rows.table_slots, tiles.items[t])
        rows.accepted[0] += 1
        rows.clicks[x] += 1
        weight = tiles.weights[t]
        log2_weight = np.log2(np.float64(weight))
        remember(rows.popularity, x, log2_weight, rows.accepted[0], learning.half_lives)
        key = learning.partition_keys[tiles.partitions[t]]
        start = stream(learning.seed, key, np.uint64(tiles.offsets[t]))
        add_noise(noise, x, mix(start))
        n_inputs, n_neighbours, hashed = _gather_inputs(rows, tiles, t, x, scratch)
        if n_neighbours == 0:
            continue
        n_pairs += 2 * n_neighbours
        add_pairs(pairs, tiles, t, 2 * n_neighbours, hashed)
        for p in range(learning.passes):
            draw_noise(noise, start, p * learning.negatives, scratch.drawn, learning.negatives)
            _update(rows, learning, scratch, n_inputs, weight)
    return n_pairs
