"""What is remembered beside vectors: popularity, transitions, recent sessions; add, read, vote.

Popularity is decayed forward (Cormode et al., Forward decay: a practical time decay model for
streaming systems, ICDE 2009): a click at time t weighs 2^(t / half_life) against a fixed landmark,
so that decay shifts all items alike and nothing needs touching. Sums are kept as log2, so that
they never overflow. Transitions are a bounded list for each item, decayed whenever it is touched;
where it is full, what comes anew takes the place of the least, and its weight (space-saving:
Metwally et al., Efficient computation of frequent and top-k elements in data streams, ICDT 2005).
Recent sessions are a ring. Time is the number of the space's accepted clicks.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import types

from kernels.elementary import exp2
from kernels.policy import kernel, part
from kernels.table import find, insert
from kernels.windows import F4, I8, U8

NOBODY = -1  # in place of a row
NO_SESSION = 0  # in place of a number: they begin at 1


class Memory(NamedTuple):
    """What is remembered; row i of an array of `n_rows` belongs to the item in row i."""

    popularity: np.ndarray  # float64 (n_rows, n_half_lives), log2 against the landmark
    followers: np.ndarray  # int32 (n_rows, n_followers), rows that were clicked next, or NOBODY
    follower_weights: np.ndarray  # float32 (n_rows, n_followers), 0 where there is NOBODY
    follower_times: np.ndarray  # int64 (n_rows,), accepted clicks when the weights stood so
    held_by: np.ndarray  # int64 (n_rows, n_held_by), numbers of sessions, or NO_SESSION: a ring
    n_held_by: np.ndarray  # int64 (n_rows,), sessions that ever held the item
    session_numbers: np.ndarray  # int64 (n_places,), whose items these are, or NO_SESSION: a ring
    session_items: np.ndarray  # int32 (n_places, n_kept), the first distinct rows of each
    session_sizes: np.ndarray  # int64 (n_places,), how many of them there are


class HalfLives(NamedTuple):
    """In accepted clicks, > 0."""

    popularity: np.ndarray  # float64 (n_half_lives,)
    transitions: float


I4_2D, F4_2D = types.int32[:, ::1], types.float32[:, ::1]
F8, F8_2D, I8_2D = types.float64[::1], types.float64[:, ::1], types.int64[:, ::1]
MEMORY = types.NamedTuple((F8_2D, I4_2D, F4_2D, I8, I8_2D, I8, I8, I4_2D, I8), Memory)
HALF_LIVES = types.NamedTuple((F8, types.float64), HalfLives)


@part
def add_log2(total, term):
    """Return log2(2^total + 2^term); float64, total may be -inf."""
    if term > total:
        total, term = term, total
    return total + math.log2(1.0 + 2.0 ** (term - total))


@part
def remember_click(memory, row, log2_weight, accepted, half_lives):
    """Count a click of weight 2^`log2_weight`, the `accepted`-th, for an item."""
    popularity = memory.popularity
    for h in range(popularity.shape[1]):
        term = log2_weight + accepted / half_lives.popularity[h]
        popularity[row, h] = add_log2(popularity[row, h], term)


@part
def _decay_followers(memory, row, accepted, half_lives):
    weights, since = memory.follower_weights[row], accepted - memory.follower_times[row]
    memory.follower_times[row] = accepted
    kept = exp2(np.float32(-since / half_lives.transitions))
    for t in range(weights.shape[0]):
        weights[t] *= kept


@part
def _last_place(followers, follower):
    place = np.int32(-1)
    for t in range(np.int32(followers.shape[0])):
        place = max(place, t if followers[t] == follower else np.int32(-1))
    return place


@part
def _place_of_least(weights):
    """Return the first place of the smallest weight; they are >= 0, so their bits are in order."""
    bits = weights.view(np.int32)
    least, n = bits[0], np.int32(weights.shape[0])
    for t in range(n):
        least = min(least, bits[t])
    place = n
    for t in range(n):
        place = min(place, t if bits[t] == least else n)
    return place


@part
def remember_transition(memory, row, follower, weight, accepted, half_lives):
    """Add to the weight with which `follower` comes after an item."""
    _decay_followers(memory, row, accepted, half_lives)
    followers, weights = memory.followers[row], memory.follower_weights[row]
    place = _last_place(followers, np.int32(follower))
    if place < 0:
        place = _place_of_least(weights)
        followers[place] = follower
    weights[place] += weight


@part
def remember_in_session(memory, number, row):
    """Add an item to a session, if it is among its first, and the session to what held the item.

    A session that a newer one has replaced in the ring stays forgotten.
    """
    place = number % memory.session_numbers.shape[0]
    if memory.session_numbers[place] > number:
        return
    if memory.session_numbers[place] < number:
        memory.session_numbers[place] = number
        memory.session_sizes[place] = 0
    items, n = memory.session_items[place], memory.session_sizes[place]
    if n == items.shape[0]:
        return
    for t in range(n):
        if items[t] == row:
            return
    items[n] = row
    memory.session_sizes[place] = n + 1
    memory.held_by[row, memory.n_held_by[row] % memory.held_by.shape[1]] = number
    memory.n_held_by[row] += 1


@kernel(types.void(F8_2D, types.int64, F8, F4_2D))
def read_popularity(popularity, accepted, half_lives, out):
    """Read decayed counts of clicks as they stand now.

    Parameters
    ----------
    popularity : float64 (n_rows, n_half_lives), log2 against the landmark; -inf is never
    accepted : int64, the space's accepted clicks so far
    half_lives : float64 (n_half_lives,), in accepted clicks, > 0
    out : float32 (n_rows, n_half_lives), overwritten; a click just now counts 1
    """
    for row in range(popularity.shape[0]):
        for h in range(half_lives.shape[0]):
            out[row, h] = 2.0 ** (popularity[row, h] - accepted / half_lives[h])


@kernel(types.void(MEMORY, types.int64, types.float64, I8, F4, F4))
def add_transitions(memory, accepted, half_life, rows, weights, out):
    """Add up how often items came after those of a query.

    Parameters
    ----------
    memory : Memory of arrays
    accepted : int64, the space's accepted clicks so far
    half_life : float64, in accepted clicks, > 0
    rows : int64 (n,), the query's items
    weights : float32 (n,), of each
    out : float32 (n_rows,), added to: a click just now, next to an item of weight 1, counts 1
    """
    for j in range(rows.shape[0]):
        since = accepted - memory.follower_times[rows[j]]
        weight = weights[j] * np.float32(2.0 ** (-since / half_life))
        followers = memory.followers[rows[j]]
        for t in range(followers.shape[0]):
            if followers[t] != NOBODY:
                out[followers[t]] += weight * memory.follower_weights[rows[j], t]


class Ballot(NamedTuple):
    """Room to count the sessions that share items with a query."""

    keys: np.ndarray  # uint64 (2^k,), number of a session ...
    slots: np.ndarray  # int64 (2^k,), ... -> its slot; more places than sessions
    places: np.ndarray  # int64 (n * n_held_by,), of the sessions in the ring
    shared: np.ndarray  # float32 (n * n_held_by,), the weights of what they share with the query


BALLOT = types.NamedTuple((U8, I8, I8, F4), Ballot)


@part
def _share(memory, rows, weights, own, ballot):
    """Find the sessions that hold the query's items; return how many."""
    ballot.slots[:] = -1
    n = 0
    for j in range(rows.shape[0]):
        numbers = memory.held_by[rows[j]]
        for t in range(numbers.shape[0]):
            place = numbers[t] % memory.session_numbers.shape[0]
            is_kept = numbers[t] != NO_SESSION and memory.session_numbers[place] == numbers[t]
            if not is_kept or numbers[t] == own:
                continue
            slot = find(ballot.keys, ballot.slots, np.uint64(numbers[t]))
            if slot < 0:
                slot = n
                n += 1
                insert(ballot.keys, ballot.slots, np.uint64(numbers[t]), slot)
                ballot.places[slot] = place
                ballot.shared[slot] = np.float32(0.0)
            ballot.shared[slot] += weights[j]
    return n


@kernel(types.void(MEMORY, I8, F4, types.int64, BALLOT, F4))
def add_votes(memory, rows, weights, own, ballot, out):
    """Let recent sessions that share items with a query vote for what they hold.

    Parameters
    ----------
    memory : Memory of arrays
    rows : int64 (n,), the query's items, distinct
    weights : float32 (n,), of each
    own : int64, the number of a session that has no vote, or NO_SESSION
    ballot : Ballot of arrays, overwritten
    out : float32 (n_rows,), added to: (the weights shared)^2 / sqrt(items of the session)
    """
    for slot in range(_share(memory, rows, weights, own, ballot)):
        place = ballot.places[slot]
        size = memory.session_sizes[place]
        vote = ballot.shared[slot] ** 2 / np.sqrt(np.float32(size))
        for t in range(size):
            out[memory.session_items[place, t]] += vote
