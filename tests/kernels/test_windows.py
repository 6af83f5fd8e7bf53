"""Open windows are copied out and rebuilt whole; they close in order, whatever their heap."""

from hypothesis import given
from hypothesis import strategies as st

from kernels.windows import N_CLICKS, N_WINDOWS
from tests import oracles
from tests.kernels.sessions_under_test import KernelSessions, run_oracle
from tests.oracles import Click
from tests.strategies import RULES, examples, rules, streams


@examples(150)
@given(events=streams(), rules=rules(), cut=st.integers(0, 60))
def test_rebuilt_windows_have_equal_values_and_an_equal_future(events, rules, cut):
    before, after = events[:cut], events[cut:]
    one = KernelSessions(rules, 3)
    one.run(before)

    other = one.restored()

    assert other.open_windows() == one.open_windows()
    one.tiles.clear()
    assert other.run(after) == one.run(after)
    other.close_all()
    one.close_all()
    assert other.tiles == one.tiles
    assert other.counts == one.counts


@examples(100)
@given(
    times=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2)), min_size=1, max_size=80),
    batch=st.integers(1, 80),
)
def test_windows_close_in_the_order_of_their_ends_then_keys(times, batch):
    rules = RULES._replace(is_early=0, lateness=1000, max_jump=1000)
    events = [
        Click(key % 29, 1 + at % 5, time, partition, at)
        for at, ((time, partition), key) in enumerate(
            zip(times, range(0, 7 * len(times), 7), strict=True)
        )
    ]
    found, oracle = KernelSessions(rules, 3), oracles.Sessions(rules, 3)
    found.run(events, batch)
    run_oracle(oracle, events)
    found.close_all()
    ends = sorted((end, key) for key, _, end, *_ in oracle.open_windows())
    oracle.close_all()

    assert [(end, key) for key, _, end in oracle.closed] == ends
    assert found.tiles == oracle.tiles


@examples(40)
@given(rounds=st.lists(streams(n_partitions=1, max_size=20), min_size=2, max_size=4))
def test_rows_of_closed_windows_and_dropped_clicks_are_used_again(rounds):
    rules = RULES._replace(max_kept=2)
    found = KernelSessions(rules, 1)
    largest = max(len(events) for events in rounds)
    for events in rounds:
        found.run(events)
        found.close_all()

    assert found.arrays.counters[N_WINDOWS] <= largest
    assert found.arrays.counters[N_CLICKS] <= largest
    assert (found.arrays.table_slots < 0).all()
