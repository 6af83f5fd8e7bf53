"""The newest event ids are kept, over growth and restarts, in bounded memory."""

import numpy as np
import pytest

from kernels.seen import is_seen, remember_event
from state.sections import Section
from streamer.windows.event_ids import EventIds

N = 5000
KEYS = np.random.default_rng(3).permutation(np.arange(1, N + 1)).astype(np.uint64)
NONE = np.zeros(1000, np.uint64)


def add(ids, keys):
    """Remember keys as the session kernel does: room for all first, then one by one."""
    seen = ids.with_room(keys)
    for key in keys:
        if not is_seen(seen, key):
            remember_event(seen, key)
    return ids


def kept(ids):
    return ids.snapshot().arrays["keys"].tolist()


@pytest.mark.parametrize("max_ids", [1, 1000, 1024, 3000, N, 2 * N])
@pytest.mark.parametrize("size", [7, 4000])
def test_the_newest_are_kept_in_their_order_whatever_the_batches(max_ids, size):
    ids = EventIds(max_ids, Section())
    for begin in range(0, N, size):
        add(ids, KEYS[begin : begin + size])

    assert kept(ids) == KEYS[-max_ids:].tolist()
    assert len(ids) == min(max_ids, N)
    assert len(ids.with_room(NONE).keys) <= max_ids


def test_clicks_without_event_ids_take_no_memory():
    ids = EventIds(1000, Section())
    assert sum(one.nbytes for one in ids.with_room(NONE)) == 16
    assert ids.snapshot().arrays == {}
    assert len(EventIds(1000, ids.snapshot())) == 0


@pytest.mark.parametrize("restored", [2, 999, 1000, 1001, 4000])
def test_a_restored_one_keeps_the_newest_and_goes_on(restored):
    before = add(EventIds(1000, Section()), KEYS[:2500])

    after = EventIds(restored, before.snapshot())
    assert kept(after) == KEYS[max(1500, 2500 - restored) : 2500].tolist()

    add(after, KEYS[2000:4000])  # some of them are remembered
    truth = KEYS[max(1500, 2500 - restored) : 2500].tolist()
    for key in KEYS[2000:4000].tolist():
        truth = truth if key in truth else [*truth, key][-restored:]
    assert kept(after) == truth


def test_a_snapshot_is_not_touched_by_what_comes_later():
    ids = add(EventIds(10, Section()), KEYS[:5])
    snapshot = ids.snapshot()
    add(ids, KEYS[5:30])
    assert snapshot.arrays["keys"].tolist() == KEYS[:5].tolist()
