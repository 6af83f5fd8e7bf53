"""The table does what a dict does, whatever collides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.table import erase, find, home, insert, insert_many

SIZE = 16
# Keys whose places cluster: at the beginning, at the end (so that runs wrap), and anywhere.
KEYS = [
    *(SIZE * i for i in range(7)),
    *(SIZE * i + SIZE - 1 for i in range(5)),
    *(SIZE * i + SIZE - 2 for i in range(3)),
    1, 2, 3, 5, 9, (1 << 32) + 1, (1 << 63), (1 << 64) - 1,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _wrapping_arithmetic():
    with np.errstate(over="ignore"):  # uint64 wraps, also where kernels run as plain Python
        yield


def empty(size=SIZE):
    return np.zeros(size, dtype=np.uint64), np.full(size, -1, dtype=np.int64)


def fill(table, keys, slots):
    insert_many(*table, np.array(keys, np.uint64), np.array(slots, np.int64))


def found(table, keys):
    return [int(find(*table, np.uint64(key))) for key in keys]


@settings(max_examples=150, deadline=None)
@given(
    turns=st.lists(
        st.tuples(st.booleans(), st.sampled_from(KEYS), st.integers(0, 1 << 40)), max_size=60
    )
)
def test_it_holds_what_a_dict_would_hold(turns):
    table, model = empty(), {}
    for is_insert, key, slot in turns:
        if is_insert and (key in model or len(model) < SIZE - 1):
            insert(*table, np.uint64(key), slot)
            model[key] = slot
        elif not is_insert and key in model:
            erase(*table, np.uint64(key))
            del model[key]

        assert found(table, KEYS) == [model.get(one, -1) for one in KEYS]
        assert (table[1] >= 0).sum() == len(model)


def test_the_keys_of_these_tests_do_collide():
    keys, _ = empty()
    homes = [int(home(keys, np.uint64(key))) for key in KEYS]

    assert homes.count(0) >= 7
    assert homes.count(SIZE - 1) >= 5


def test_many_keys_are_inserted_and_half_of_them_erased():
    rng = np.random.default_rng(3)
    keys = rng.permutation(np.unique(rng.integers(0, 1 << 63, size=900, dtype=np.uint64)))
    table = empty(1024)
    fill(table, keys, range(len(keys)))
    for key in keys[::2]:
        erase(*table, key)
    kept = np.arange(len(keys))
    kept[::2] = -1

    assert found(table, keys) == kept.tolist()


def test_erasing_leaves_nothing_behind():
    table = empty()
    for key in KEYS[:12]:
        insert(*table, np.uint64(key), 1)
    for key in KEYS[:12]:
        erase(*table, np.uint64(key))

    assert (table[1] == -1).all()


def test_a_run_that_wraps_is_closed_over_the_end():
    first, second, third = SIZE - 1, 2 * SIZE - 1, 3 * SIZE - 1
    table = empty()
    fill(table, [first, second, third], [1, 2, 3])
    erase(*table, np.uint64(first))

    assert found(table, [first, second, third]) == [-1, 2, 3]
    assert int(table[0][SIZE - 1]) == second


def test_key_zero_is_a_key_like_any_other():
    table = empty()

    assert find(*table, np.uint64(0)) == -1
    insert(*table, np.uint64(0), 4)
    assert find(*table, np.uint64(0)) == 4


def test_a_second_slot_takes_the_place_of_the_first():
    table = empty()
    fill(table, [8, 8], [1, 2])

    assert found(table, [8]) == [2]
    assert (table[1] >= 0).sum() == 1
