"""The skip-gram update over session tiles: shared negatives, row-wise AdaGrad.

Skip-gram with negative sampling: Mikolov et al., Distributed representations of words and phrases
and their compositionality, NIPS 2013, equation 4. Row-wise AdaGrad: Duchi et al., JMLR 12 (2011),
with one accumulator per row. A tile is the click x, its neighbours y_1..y_m and K negatives that
all its inputs share. Inputs are {x, y_j}; targets are y_j for input x, x for input y_j, and the
negatives for each input, except where a negative equals the input or one of its targets. All
scores use the values from before the tile; gradients are summed per distinct row.

A tile is two small matrices, of inputs and of outputs. Each row is copied beside the others once;
scores, then gradients are computed in blocks of 2 inputs and 4 outputs, which stay in registers.
Tiles are looked up some ahead, and their rows prefetched.
"""

from typing import NamedTuple

import numpy as np
from numba import types

from kernels.blocks import add_gradients, load, score
from kernels.elementary import sigmoid
from kernels.memory import (
    F4_2D,
    HALF_LIVES,
    MEMORY,
    HalfLives,
    Memory,
    remember_click,
    remember_in_session,
    remember_transition,
)
from kernels.negatives import NOISE, add_noise, draw_noise
from kernels.pairs import PAIRS, add_pairs, both_ways
from kernels.policy import Kernel, kernel, part
from kernels.prefetch import prefetch_row
from kernels.rng import mix, stream
from kernels.scratch import AHEAD, IN_BLOCK, LANES, OUT_BLOCK, padded, scratch_type
from kernels.table import find
from kernels.tiles import TILES
from kernels.windows import F4, I8, U8


class Rows(NamedTuple):
    """What is learned, of all shards; row i of each array belongs to the item in row i.

    Vectors have `padded(dim)` columns, of which those behind `dim` are always 0.
    """

    table_keys: np.ndarray  # uint64 (2^k,), item key ...
    table_slots: np.ndarray  # int64 (2^k,), ... -> row
    inputs: np.ndarray  # float32 (n_rows, padded dim), E
    outputs: np.ndarray  # float32 (n_rows, padded dim), O
    input_accumulators: np.ndarray  # float32 (n_rows,)
    output_accumulators: np.ndarray  # float32 (n_rows,)
    clicks: np.ndarray  # int64 (n_rows,)
    memory: Memory
    accepted: np.ndarray  # int64 (1,), clicks of the space so far


class Learning(NamedTuple):
    """How a tile is trained."""

    seed: np.uint64
    learning_rate: np.float32
    epsilon: np.float32
    dim: int
    negatives: int
    passes: int
    half_lives: HalfLives
    partition_keys: np.ndarray  # uint64 (n_partitions,), what their draws are keyed by


ROWS = types.NamedTuple((U8, I8, F4_2D, F4_2D, F4, F4, I8, MEMORY, I8), Rows)
LEARNING = types.NamedTuple(
    (types.uint64, types.float32, types.float32, *(types.int64,) * 3, HALF_LIVES, U8), Learning
)


@part
def _slot_of(rows, row, begin, end):
    for slot in range(begin, end):
        if rows[slot] == row:
            return slot
    return -1


@part
def _up(n, block):
    return (n + block - 1) // block * block


@part
def _look_up(rows, tiles, t, pairs, ahead, a):
    """Write the rows of x and its neighbours, all and distinct; count and return the pairs."""
    found, counts = ahead.inputs[a], ahead.counts[a]
    found[0] = find(rows.table_keys, rows.table_slots, tiles.items[t])
    counts[0] = np.float32(1.0)
    n_inputs, n_neighbours, hashed = 1, 0, np.uint64(0)
    for j in range(tiles.n_neighbours[t]):
        row = find(rows.table_keys, rows.table_slots, tiles.neighbours[t, j])
        ahead.neighbours[a, j] = row
        if row < 0:
            continue
        n_neighbours += 1
        hashed += both_ways(tiles.items[t], tiles.neighbours[t, j])
        slot = _slot_of(found, row, 1, n_inputs)
        if slot < 0:
            found[n_inputs] = row
            counts[n_inputs] = np.float32(0.0)
            slot = n_inputs
            n_inputs += 1
        counts[slot] += np.float32(1.0)
    ahead.n_inputs[a] = n_inputs
    if n_neighbours > 0:
        add_pairs(pairs, tiles, t, 2 * n_neighbours, hashed)
    return 2 * n_neighbours


@part
def _prefetch_memory(memory, tiles, t, ahead, a):
    for j in range(tiles.n_before[t]):
        row = max(0, ahead.neighbours[a, j])
        prefetch_row(memory.followers, row)
        prefetch_row(memory.follower_weights, row)
    place = tiles.numbers[t] % memory.session_numbers.shape[0]
    prefetch_row(memory.session_items, place)


@part
def _prefetch_rows(rows, ahead, a):
    if ahead.n_inputs[a] == 1:
        return
    for slot in range(ahead.n_inputs[a]):
        row = ahead.inputs[a, slot]
        prefetch_row(rows.inputs, row)
        prefetch_row(rows.outputs, row)
    for k in range(ahead.negatives.shape[1]):
        prefetch_row(rows.outputs, ahead.negatives[a, k])


@part
def _remember(rows, tiles, t, ahead, a, half_lives):
    """Count the click: of its item, after the items before it, and in its session."""
    memory, x, weight = rows.memory, ahead.inputs[a, 0], tiles.weights[t]
    rows.accepted[0] += 1
    rows.clicks[x] += 1
    accepted = rows.accepted[0]
    remember_click(memory, x, np.log2(np.float64(weight)), accepted, half_lives)
    for j in range(tiles.n_neighbours[t]):
        y = ahead.neighbours[a, j]
        is_before = j < tiles.n_before[t]
        distance = j + 1 if is_before else j + 1 - tiles.n_before[t]
        first, then = (y, x) if is_before else (x, y)
        if y >= 0:
            remember_transition(
                memory, first, then, weight / np.float32(distance), accepted, half_lives
            )
    remember_in_session(memory, tiles.numbers[t], x)


@part
def _draw(tiles, t, noise, learning, ahead, a):
    """Enter the click as noise, and draw its negatives."""
    key = learning.partition_keys[tiles.partitions[t]]
    start = stream(learning.seed, key, np.uint64(tiles.offsets[t]))
    add_noise(noise, ahead.inputs[a, 0], mix(start))
    if ahead.n_inputs[a] > 1:
        draw_noise(noise, start, 0, ahead.negatives[a], ahead.negatives.shape[1])


@part
def _add_output(scratch, slot, row):
    scratch.output_rows[slot] = row
    scratch.positives[slot] = np.float32(0.0)
    scratch.negatives[slot] = np.float32(0.0)
    return slot + 1


@part
def _gather_outputs(scratch, a, n_inputs, drawn):
    """Give outputs their slots; return how many all inputs share, and how many there are."""
    inputs, counts = scratch.ahead.inputs[a], scratch.ahead.counts[a]
    n = _add_output(scratch, 0, inputs[0])
    for k in range(drawn.shape[0]):
        if drawn[k] == inputs[0]:
            continue  # a target of the neighbours, and x itself
        slot = _slot_of(scratch.output_rows, drawn[k], 1, n)
        if slot < 0:
            slot = n
            n = _add_output(scratch, n, drawn[k])
        scratch.negatives[slot] += np.float32(1.0)
    n_shared = n
    for i in range(1, n_inputs):
        slot = _slot_of(scratch.output_rows, inputs[i], 1, n_shared)
        scratch.same[i] = slot
        if slot < 0:
            slot = n
            n = _add_output(scratch, n, inputs[i])
        scratch.positives[slot] = counts[i]
    return n_shared, n


@part
def _weigh(scratch, a, n_inputs, shared, width, weight):
    """Make of each score the derivative of the loss by it: weight x (label - probability)."""
    scores, positives, negatives = scratch.scores, scratch.positives, scratch.negatives
    for o in range(np.uint64(width)):
        # Every neighbour is a target of x, so a negative that equals one is no negative of x.
        n_drawn = negatives[o] if positives[o] == np.float32(0.0) else np.float32(0.0)
        total = positives[o] + n_drawn
        scores[o] = weight * (positives[o] - total * sigmoid(scores[o]))
    for i in range(1, n_inputs):
        count = weight * scratch.ahead.counts[a, i]
        begin = np.uint64(i * width)
        to_x = count * (np.float32(1.0) - sigmoid(scores[begin]))
        for o in range(np.uint64(width if i < IN_BLOCK else shared)):
            scores[begin + o] = -count * negatives[o] * sigmoid(scores[begin + o])
        scores[begin] = to_x
        if scratch.same[i] >= 0:
            scores[begin + np.uint64(scratch.same[i])] = np.float32(0.0)


@part
def _step(vectors, accumulators, rows, n, gradients, rates, learning, columns):
    """Move `n` rows along their gradients: AdaGrad with one accumulator per row."""
    columns = np.uint64(columns)
    for slot in range(np.uint64(n)):
        square = np.float32(0.0)
        for d in range(columns):
            square += gradients[slot * columns + d] * gradients[slot * columns + d]
        rates[slot] = square / np.float32(learning.dim)
    for slot in range(n):
        if rates[slot] > np.float32(0.0):
            accumulators[rows[slot]] += rates[slot]
            total = accumulators[rows[slot]] + learning.epsilon
            rates[slot] = learning.learning_rate / np.sqrt(total)
    for slot in range(np.uint64(n)):
        row = rows[slot]
        for d in range(columns):
            vectors[row, d] += rates[slot] * gradients[slot * columns + d]


@part
def _train(rows, learning, scratch, a, weight, drawn):
    """Train a tile that was looked up, once."""
    columns = LANES * len(scratch.blocks)
    n_inputs = scratch.ahead.n_inputs[a]
    inputs = scratch.ahead.inputs[a]
    n_shared, n_outputs = _gather_outputs(scratch, a, n_inputs, drawn)
    all_inputs, all_outputs = _up(n_inputs, IN_BLOCK), _up(n_outputs, OUT_BLOCK)
    shared, width = _up(n_shared, OUT_BLOCK), all_outputs
    for slot in range(n_outputs, all_outputs):
        _add_output(scratch, slot, 0)
    load(
        rows.inputs, inputs, n_inputs, scratch.inputs, scratch.input_gradients, all_inputs, columns
    )
    load(
        rows.outputs,
        scratch.output_rows,
        n_outputs,
        scratch.outputs,
        scratch.output_gradients,
        all_outputs,
        columns,
    )
    for i in range(0, all_inputs, IN_BLOCK):
        for o in range(0, all_outputs if i == 0 else shared, OUT_BLOCK):
            score(scratch, i, o, width)
    _weigh(scratch, a, n_inputs, shared, width, weight)
    for i in range(0, all_inputs, IN_BLOCK):
        for o in range(0, all_outputs if i == 0 else shared, OUT_BLOCK):
            add_gradients(scratch, i, o, width)
    _step(
        rows.inputs,
        rows.input_accumulators,
        inputs,
        n_inputs,
        scratch.input_gradients,
        scratch.rates,
        learning,
        columns,
    )
    _step(
        rows.outputs,
        rows.output_accumulators,
        scratch.output_rows,
        n_outputs,
        scratch.output_gradients,
        scratch.rates,
        learning,
        columns,
    )


def _train_tiles(tiles, begin, end, rows, noise, pairs, learning, scratch):
    """Train tiles in order: count and remember the click, enter it as noise, move its pairs' rows.

    Parameters
    ----------
    tiles : Tiles of arrays (capacity,)
    begin, end : int64, the tiles that are trained
    rows : Rows of arrays (n_rows, ...), written at the tiles' items and at the negatives
    noise : Noise of arrays (size,), written
    pairs : Pairs of arrays (n_partitions,), (n_sessions,), written; room for one session per tile
    learning : Learning of scalars and arrays (n_half_lives,), (n_partitions,)
    scratch : Scratch of arrays (n_inputs, ...), (n_outputs, ...), overwritten

    Returns
    -------
    int64, pairs (input, output) trained, each counted once whatever the passes

    Notes
    -----
    The items of all tiles have rows. Non-finite gradients are not checked here.
    """
    ahead, k, n_pairs = scratch.ahead, learning.negatives, 0
    for first in range(begin, end, AHEAD):
        n_ahead = min(AHEAD, end - first)
        for a in range(n_ahead):
            n_pairs += _look_up(rows, tiles, first + a, pairs, ahead, a)
            _prefetch_memory(rows.memory, tiles, first + a, ahead, a)
        for a in range(n_ahead):
            _remember(rows, tiles, first + a, ahead, a, learning.half_lives)
            _draw(tiles, first + a, noise, learning, ahead, a)
        _prefetch_rows(rows, ahead, 0)
        for a in range(n_ahead):
            if a + 1 < n_ahead:
                _prefetch_rows(rows, ahead, a + 1)
            if ahead.n_inputs[a] > 1:
                weight = tiles.weights[first + a]
                for p in range(learning.passes):
                    drawn = ahead.negatives[a, p * k : (p + 1) * k]
                    _train(rows, learning, scratch, a, weight, drawn)
    return n_pairs


_kernels: dict[int, Kernel] = {}


def train_tiles(dim: int) -> Kernel:
    """Return the kernel that trains tiles of rows of `dim` values: see its docstring."""
    columns = padded(dim)
    if columns not in _kernels:
        span = types.int64, types.int64
        learned = ROWS, NOISE, PAIRS, LEARNING, scratch_type(columns)
        signature = types.int64(TILES, *span, *learned)
        _kernels[columns] = kernel(signature, variant=f"[{columns}]")(_train_tiles)
    return _kernels[columns]
