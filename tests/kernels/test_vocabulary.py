"""Items get rows as a dict would give them; a collision is found by comparing ids."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernels import table, vocabulary
from kernels.vocabulary import COLLISION, FULL, UNKNOWN
from tests.strategies import examples

N_SHARDS, SHARD_ROWS, MAX_ITEMS = 2, 3, 5


def empty(max_bytes=1000):
    n_rows = N_SHARDS * SHARD_ROWS
    return vocabulary.Vocabulary(
        table_keys=np.zeros(16, np.uint64),
        table_slots=np.full(16, -1, np.int64),
        keys=np.zeros(n_rows, np.uint64),
        id_starts=np.zeros(n_rows, np.int64),
        id_lengths=np.zeros(n_rows, np.int64),
        id_bytes=np.zeros(max_bytes, np.uint8),
        used=np.zeros(2, np.int64),
        shard_sizes=np.zeros(N_SHARDS, np.int64),
    )


def ids(*pairs):
    """Columns of (key, id), one behind the other in a buffer that begins with something else."""
    lengths = np.array([len(one) for _, one in pairs], np.int64)
    data = b"##" + b"".join(one for _, one in pairs)
    return vocabulary.Ids(
        np.array([key for key, _ in pairs], np.uint64),
        2 + np.cumsum(lengths) - lengths,
        lengths,
        np.frombuffer(bytearray(data), np.uint8),
    )


def looked_up(v, *pairs):
    rows = np.full(len(pairs), 77, np.int64)
    vocabulary.look_up(v, ids(*pairs), rows)
    return rows.tolist()


def admitted(v, *pairs, max_items=MAX_ITEMS):
    rows = np.full(len(pairs), 77, np.int64)
    n = vocabulary.admit(v, ids(*pairs), rows, max_items)
    return n, rows.tolist()


def room(v, *pairs, max_items=MAX_ITEMS):
    rows = np.array(looked_up(v, *pairs), np.int64)
    wanted = np.full(N_SHARDS, 77, np.int64)
    places = table.places(len(pairs))
    first = np.full(places, 77, np.uint64), np.full(places, 77, np.int64)
    n = vocabulary.room_for(v, ids(*pairs), rows, max_items, wanted, *first)
    return n, rows.tolist()


class Model:
    """A dict of ids by key, with the bounds of the store."""

    def __init__(self):
        self.ids = {}

    def has_room(self, key, more=()):
        taken = [*self.ids, *more]
        in_shard = sum(one % N_SHARDS == key % N_SHARDS for one in taken)
        return len(taken) < MAX_ITEMS and in_shard < SHARD_ROWS

    def look_up(self, key, one):
        if key not in self.ids:
            return "unknown" if self.has_room(key) else "full"
        return "row" if self.ids[key] == one else "collision"

    def admit(self, key, one):
        found = self.look_up(key, one)
        if found == "unknown":
            self.ids[key] = one
            found = "row"
        return found


def words(rows):
    names = {UNKNOWN: "unknown", COLLISION: "collision", FULL: "full"}
    return [names.get(row, "row") for row in rows]


item = st.tuples(st.integers(0, 8), st.sampled_from((b"", b"x", b"yy"))).map(
    lambda drawn: (drawn[0], b"item-%d" % drawn[0] + (drawn[1] if drawn[0] < 2 else b""))
)


@examples(150)
@given(batches=st.lists(st.lists(item, max_size=6), max_size=6))
def test_items_are_admitted_as_a_dict_would(batches):
    v, model = empty(), Model()
    for batch in batches:
        _, rows = admitted(v, *batch)

        assert words(rows) == [model.admit(*one) for one in batch]
        assert v.used[1] == len(model.ids) == v.shard_sizes.sum()
    known = list(model.ids.items())
    rows = looked_up(v, *known)
    assert len(set(rows)) == len(known)
    assert [row // SHARD_ROWS for row in rows] == [key % N_SHARDS for key, _ in known]
    assert v.keys[rows].tolist() == list(model.ids)


@examples(200)
@given(before=st.lists(item, max_size=6), batch=st.lists(item, max_size=10), data=st.data())
def test_room_is_never_promised_that_is_not_there(before, batch, data):
    v, model = empty(), Model()
    admitted(v, *before)
    for one in before:
        model.admit(*one)

    n, rows = room(v, *batch)

    # Full is what finds no room as things stand, wherever it is in the batch.
    expected = [model.look_up(*one) for one in batch]
    assert words(rows[:n]) == expected[:n]
    # Whatever becomes of the clicks before, those that were promised room are admitted.
    taken = [one for one in batch[:n] if model.look_up(*one) in {"unknown", "row"}]
    chosen = [one for one in taken if data.draw(st.booleans())]
    assert words(admitted(v, *chosen)[1]) == ["row"] * len(chosen)
    # It stops only where the room could have run out, or the key could be another id's by now.
    if n < len(batch):
        wanted = {key: one for key, one in batch[:n] if model.look_up(key, one) == "unknown"}
        key, one = batch[n]
        in_shard = sum(other % N_SHARDS == key % N_SHARDS for other in [*model.ids, *wanted])
        is_short = in_shard >= SHARD_ROWS or len(model.ids) + len(wanted) >= MAX_ITEMS
        assert expected[n] == "unknown"
        assert wanted[key] != one if key in wanted else is_short
        assert n > 0


def test_equal_keys_with_different_bytes_are_a_collision():
    v = empty()
    admitted(v, (7, b"one"))
    assert looked_up(v, (7, b"one"), (7, b"two"), (7, b"on"), (7, b"onee"), (9, b"one")) == [
        looked_up(v, (7, b"one"))[0],
        COLLISION,
        COLLISION,
        COLLISION,
        UNKNOWN,
    ]
    n, rows = admitted(v, (7, b"two"), (8, b"new"), (8, b"not"))
    assert n == 1
    assert words(rows) == ["collision", "row", "collision"]


def test_a_full_store_still_knows_its_items():
    v = empty()
    every = [(key, b"item-%d" % key) for key in range(MAX_ITEMS)]
    assert admitted(v, *every)[0] == MAX_ITEMS

    n, rows = room(v, (100, b"new"), every[2], (101, b"newer"))

    assert n == 3
    assert words(rows) == ["full", "row", "full"]
    assert admitted(v, (100, b"new"))[1] == [FULL]


def test_ids_are_gathered_in_the_order_of_admission():
    v = empty()
    admitted(v, (4, b"four"), (1, b"one"), (2, b"zwei"))
    out, ends = np.zeros(20, np.uint8), np.zeros(2, np.int64)

    n_bytes = vocabulary.gather_ids(v, 0, 2, out, ends)

    assert out[:n_bytes].tobytes() == b"fourzwei"
    assert ends.tolist() == [4, 8]
