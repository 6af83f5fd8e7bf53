"""The rows of a tile side by side, and what blocks of them are to each other."""

import numpy as np

from kernels.policy import part
from kernels.scratch import LANES


@part
def load(vectors, rows, n, copies, gradients, n_copies, columns):
    """Copy `n` rows one behind the other, zeros up to `n_copies`, and set gradients to zero."""
    for slot in range(n):
        at = np.uint64(slot * columns)
        row = rows[slot]
        for d in range(np.uint64(columns)):
            copies[at + d] = vectors[row, d]
    for at in range(np.uint64(n * columns), np.uint64(n_copies * columns)):
        copies[at] = np.float32(0.0)
    for at in range(np.uint64(n_copies * columns)):
        gradients[at] = np.float32(0.0)


@part
def score(scratch, i, o, width):
    """Score 2 inputs from `i` on with 4 outputs from `o` on."""
    columns = LANES * len(scratch.blocks)
    inputs, outputs, scores = scratch.inputs, scratch.outputs, scratch.scores
    stride = np.uint64(columns)
    i0, o0 = np.uint64(i * columns), np.uint64(o * columns)
    i1, o1 = i0 + stride, o0 + stride
    o2, o3 = o1 + stride, o1 + stride + stride
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = np.float32(0.0)
    for d in range(stride):
        x0, x1 = inputs[i0 + d], inputs[i1 + d]
        y0, y1, y2, y3 = outputs[o0 + d], outputs[o1 + d], outputs[o2 + d], outputs[o3 + d]
        s00 += x0 * y0
        s01 += x0 * y1
        s02 += x0 * y2
        s03 += x0 * y3
        s10 += x1 * y0
        s11 += x1 * y1
        s12 += x1 * y2
        s13 += x1 * y3
    at = np.uint64(i * width + o)
    below = at + np.uint64(width)
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    scores[at], scores[at + one], scores[at + two], scores[at + three] = s00, s01, s02, s03
    scores[below], scores[below + one] = s10, s11
    scores[below + two], scores[below + three] = s12, s13


@part
def add_gradients(scratch, i, o, width):
    """Add what 2 inputs from `i` on and 4 outputs from `o` on are to each other."""
    columns = LANES * len(scratch.blocks)
    inputs, outputs, g = scratch.inputs, scratch.outputs, scratch.scores
    to_inputs, to_outputs = scratch.input_gradients, scratch.output_gradients
    stride = np.uint64(columns)
    i0, o0 = np.uint64(i * columns), np.uint64(o * columns)
    i1, o1 = i0 + stride, o0 + stride
    o2, o3 = o1 + stride, o1 + stride + stride
    at = np.uint64(i * width + o)
    below = at + np.uint64(width)
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    g00, g01, g02, g03 = g[at], g[at + one], g[at + two], g[at + three]
    g10, g11, g12, g13 = g[below], g[below + one], g[below + two], g[below + three]
    for d in range(stride):
        x0, x1 = inputs[i0 + d], inputs[i1 + d]
        y0, y1, y2, y3 = outputs[o0 + d], outputs[o1 + d], outputs[o2 + d], outputs[o3 + d]
        to_inputs[i0 + d] += g00 * y0 + g01 * y1 + g02 * y2 + g03 * y3
        to_inputs[i1 + d] += g10 * y0 + g11 * y1 + g12 * y2 + g13 * y3
        to_outputs[o0 + d] += g00 * x0 + g10 * x1
        to_outputs[o1 + d] += g01 * x0 + g11 * x1
        to_outputs[o2 + d] += g02 * x0 + g12 * x1
        to_outputs[o3 + d] += g03 * x0 + g13 * x1
