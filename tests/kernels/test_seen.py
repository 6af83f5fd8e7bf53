"""Event ids are remembered up to a bound, and the oldest are forgotten first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.seen import NO_EVENT, is_seen, remember_event
from tests.kernels.sessions_under_test import new_seen
from tests.strategies import examples

# Keys that share their place in a small table, and the ends of the range.
KEYS = (1, 2, 9, 17, 25, 1 << 32, (1 << 64) - 1)


def remembered(seen):
    """Return what is remembered, the oldest first, as the ring has it."""
    n, at = seen.used.tolist()
    keys = seen.keys.tolist()
    return keys[at:] + keys[:at] if n == len(keys) else keys[:n]


@examples(150)
@given(keys=st.lists(st.sampled_from((0, *KEYS)), max_size=60), capacity=st.integers(1, 6))
def test_the_newest_keys_are_remembered_and_no_others(keys, capacity):
    seen, truth = new_seen(capacity), []
    for key in keys:
        is_known = bool(is_seen(seen, np.uint64(key)))
        assert is_known == (key in truth)
        if not is_known:
            remember_event(seen, np.uint64(key))
            truth = [*truth, *([key] if key else [])][-capacity:]

        assert remembered(seen) == truth
        known = [one for one in KEYS if is_seen(seen, np.uint64(one))]
        assert sorted(known) == sorted(truth)


def test_a_key_that_comes_again_does_not_become_younger():
    seen = new_seen(2)
    for key in (1, 2):
        remember_event(seen, np.uint64(key))
    assert is_seen(seen, np.uint64(1))
    remember_event(seen, np.uint64(9))
    assert [bool(is_seen(seen, np.uint64(key))) for key in (1, 2, 9)] == [False, True, True]


@pytest.mark.parametrize("capacity", [0, 3])
def test_a_click_without_an_event_id_is_never_seen_and_takes_no_room(capacity):
    seen = new_seen(capacity)
    remember_event(seen, NO_EVENT)
    assert not is_seen(seen, NO_EVENT)
    assert seen.used.tolist() == [0, 0]
