"""Session windows are what the blueprint's semantics say, click by click."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles
from tests.kernels.sessions_under_test import KernelSessions, run_oracle
from tests.oracles import AGREEING, Click, pairs_of
from tests.strategies import (
    GAP,
    LATENESS,
    MAX_JUMP,
    OUT_OF_ORDERNESS,
    RULES,
    Idle,
    examples,
    ordered_streams,
    rules,
    streams,
)

USER, OTHER_USER, THIRD_USER = 7, 9, 8
ON_CLOSE = RULES._replace(is_early=0)
TOPICS, EVENTS = (0, 0, 1), (5, 6, (1 << 64) - 1)
# A window that ends at 0 is open while the watermark is at most this, and so is a click late.
LAST_OPEN = GAP + LATENESS


def clicks(*places, key=USER, partition=0, first=0):
    """Clicks (item, time) of one session, in one partition."""
    return [Click(key, item, time, partition, first + at) for at, (item, time) in enumerate(places)]


def spans(found):
    return [(start, end) for _, start, end, *_ in found.open_windows()]


def run(events, rules=RULES, n_partitions=1):
    found = KernelSessions(rules, n_partitions)
    return found, found.run(events)


def reach(watermark, partition=0, first=50, key=THIRD_USER):
    """A click of somebody else that brings the partition's watermark here."""
    return Click(key, 99, watermark + OUT_OF_ORDERNESS, partition, first)


@examples(400)
@given(
    events=streams(events=(0, 0, 0, 0, *EVENTS)),
    rules=rules(),
    capacity=st.sampled_from((2, 3, 64)),
    batch=st.sampled_from((1, 2, 1000)),
    max_events=st.sampled_from((1, 2, 1000)),
)
def test_fates_windows_tiles_and_counts_are_the_oracles(events, rules, capacity, batch, max_events):
    known = {"topics": TOPICS, "max_events": max_events}
    found, oracle = KernelSessions(rules, 3, capacity, **known), oracles.Sessions(rules, 3, **known)

    assert found.run(events, batch) == run_oracle(oracle, events)
    assert found.open_windows() == oracle.open_windows()
    assert found.held == oracle.held

    found.close_all()
    oracle.close_all()

    assert found.tiles == oracle.tiles
    assert found.counts == oracle.counts
    assert (found.held, found.open_windows()) == (0, [])


@examples(80)
@given(events=streams(events=(0, 0, *EVENTS)), rules=rules())
def test_the_oracle_for_long_streams_is_the_oracle(events, rules):
    events = [one for one in events if isinstance(one, Click)]
    slow, quick = oracles.Sessions(rules, 3, TOPICS, 2), oracles.KeyedSessions(rules, 3, TOPICS, 2)

    assert run_oracle(quick, events) == run_oracle(slow, events)
    assert quick.open_windows() == slow.open_windows()
    quick.close_all()
    slow.close_all()
    assert (quick.tiles, quick.closed, quick.counts) == (slow.tiles, slow.closed, slow.counts)


@examples(100)
@given(events=ordered_streams(), rules=rules())
def test_early_and_on_close_train_the_same_pairs_of_a_stream_in_order(events, rules):
    rules = rules._replace(max_kept=200)
    found = [KernelSessions(rules._replace(is_early=is_early), 1) for is_early in (0, 1)]
    for one in found:
        one.run(events)
        one.close_all()

    on_close, early = (pairs_of(one.tiles) for one in found)
    assert on_close == early
    assert len(found[0].tiles) == len(found[1].tiles)


@examples(60)
@given(events=streams(n_partitions=1), order=st.randoms(use_true_random=False))
def test_any_order_of_arrival_that_makes_nothing_late_gives_the_same_windows(events, order):
    rules = RULES._replace(lateness=1 << 20, max_jump=1 << 30)
    shuffled = list(events)
    order.shuffle(shuffled)

    assert spans(run(events, rules)[0]) == spans(run(shuffled, rules)[0])


@examples(80)
@given(events=streams(), rules=rules(is_early=0), batch=st.sampled_from((1, 3, 1000)))
def test_a_full_tile_buffer_resumes_without_loss(events, rules, batch):
    small, large = KernelSessions(rules, 3, capacity=2), KernelSessions(rules, 3, capacity=400)

    assert small.run(events, batch) == large.run(events, 1000)
    small.close_all()
    large.close_all()

    assert small.tiles == large.tiles
    assert small.counts == large.counts


def test_a_tiny_tile_buffer_does_fill():
    found = KernelSessions(RULES, 1, capacity=2)

    found.run(clicks(*((item, item) for item in range(1, 9))))

    assert found.n_resumed > 2
    assert len(found.tiles) == 8


# The gap.


def test_exact_gap_is_one_session():
    found, _ = run(clicks((1, 0), (2, GAP)))
    assert spans(found) == [(0, GAP)]
    assert found.tiles[1].neighbours == (1,)


def test_one_ms_beyond_the_gap_is_two_sessions():
    found, _ = run(clicks((1, 0), (2, GAP + 1)))
    assert spans(found) == [(0, 0), (GAP + 1, GAP + 1)]
    assert found.tiles[1].neighbours == ()


def test_the_gap_is_as_inclusive_before_a_window_as_behind_it():
    assert spans(run(clicks((1, GAP), (2, 0)))[0]) == [(0, GAP)]
    assert spans(run(clicks((1, GAP + 1), (2, 0)))[0]) == [(0, 0), (GAP + 1, GAP + 1)]


def test_sessions_of_different_keys_never_meet():
    found, _ = run([*clicks((1, 0)), *clicks((2, 0), key=OTHER_USER, first=1)])
    assert spans(found) == [(0, 0), (0, 0)]
    assert [tile.neighbours for tile in found.tiles] == [(), ()]


def test_a_late_click_bridges_two_windows():
    found, fates = run(clicks((1, 0), (2, 2 * GAP), (3, GAP)))

    assert fates == ["accepted"] * 3
    assert spans(found) == [(0, 2 * GAP)]
    assert found.counts == {"merged": 1}
    assert found.tiles[2].neighbours == (1, 2)


def test_a_merge_never_trains_two_old_clicks():
    found, _ = run(clicks((1, 0), (2, 2 * GAP), (3, GAP)))
    assert pairs_of(found.tiles) == pairs_of([found.tiles[2]])


# Repeats.


def test_a_duplicate_extends_the_window_and_is_no_pair():
    found, fates = run(clicks((1, 0), (1, GAP), (2, 2 * GAP)))

    assert fates == ["accepted", "repeat", "accepted"]
    assert spans(found) == [(0, 2 * GAP)]
    assert [tile.neighbours for tile in found.tiles] == [(), (), (1,)]


def test_an_item_that_comes_back_never_pairs_with_itself():
    found, fates = run(clicks((1, 0), (2, 1), (1, 2)))
    assert fates == ["accepted"] * 3
    assert found.tiles[2].neighbours == (2,)


def test_a_repeat_that_bridges_leaves_one_position_and_loses_no_tile():
    found, fates = run(clicks((1, 0), (1, 2 * GAP), (1, GAP)), ON_CLOSE)

    assert fates == ["accepted", "accepted", "repeat"]
    assert found.held == 1
    found.close_all()
    assert sorted(tile.click.offset for tile in found.tiles) == [0, 1, 2]


# Time.


def test_a_window_is_open_until_its_gap_and_lateness_lie_behind_the_watermark():
    for watermark, fate in ((LAST_OPEN, "accepted"), (LAST_OPEN + 1, "late")):
        found, fates = run([*clicks((1, 0)), reach(watermark), *clicks((2, 0), first=60)])
        assert fates == ["accepted", "accepted", fate]
        assert len(spans(found)) == (2 if fate == "accepted" else 1)


def test_lateness_is_judged_on_the_merged_window():
    # 0 alone would be late; with a window that reaches 4 it is not.
    found, fates = run([*clicks((1, 4)), reach(LAST_OPEN + 4), *clicks((2, 0), first=60)])
    assert fates[-1] == "accepted"
    assert (0, 4) in spans(found)


def test_lateness_is_judged_by_the_clicks_own_partition():
    behind, ahead = clicks((1, 0), partition=0), [reach(LAST_OPEN + 1, partition=1)]
    late = clicks((2, 1), partition=0, first=9)
    _, fates = run([*behind, *ahead, *late], n_partitions=2)
    assert fates == ["accepted"] * 3

    late = clicks((2, 0), partition=1, first=99)
    _, fates = run([*ahead, *late], n_partitions=2)
    assert fates == ["accepted", "late"]


def test_a_window_closes_by_the_partition_of_the_last_click_that_joined_it():
    moved = [*clicks((1, 0), partition=0), *clicks((2, 1), partition=1)]
    found, _ = run([*moved, reach(60, partition=0)], n_partitions=2)
    assert (0, 1) in spans(found)

    found, _ = run([*moved, reach(60, partition=1)], n_partitions=2)
    assert (0, 1) not in spans(found)


@pytest.mark.parametrize(
    ("places", "spread"),
    [
        ([(0, 0), (0, 1)], 0),
        ([(0, 0), (1, 1)], 1),
        ([(0, 0), (1, 1), (1, 2), (0, 3)], 2),
        ([(0, 0), (2, 1), (0, 2)], 0),
        ([(0, 0), (1, 2 * GAP), (0, GAP)], 1),
        ([(0, 0), (0, 2 * GAP), (1, GAP)], 2),
        ([(2, 0), (1, 2 * GAP), (0, GAP)], 1),
    ],
    ids=str,
)
def test_a_window_that_another_partition_of_its_topic_continues_is_spread(places, spread):
    found = KernelSessions(RULES, 3, topics=TOPICS)
    found.run([Click(USER, at, time, p, at) for at, (p, time) in enumerate(places)])
    assert found.counts.get("spread", 0) == spread


def test_a_click_that_is_late_or_known_spreads_nothing():
    events = [*clicks((1, 0)), Click(USER, 2, 1, 1, 0, event=5), Click(USER, 3, 2, 0, 9, event=5)]
    found = KernelSessions(RULES, 2, max_events=1)
    assert found.run(events) == ["accepted", "accepted", "duplicate"]
    assert found.counts == {"spread": 1}

    found, fates = run(
        [*clicks((1, 0)), reach(60, partition=1), *clicks((2, 1), partition=1)], n_partitions=2
    )
    assert fates[-1] == "late"
    assert found.counts == {}


def test_only_an_idle_partitions_windows_are_closed_by_the_others():
    quiet, loud = clicks((1, 0), partition=0), [reach(LAST_OPEN + 1, partition=1)]
    found, _ = run([*quiet, *loud], n_partitions=2)
    assert found.counts == {}

    found, _ = run([*quiet, Idle(0), *loud], n_partitions=2)
    assert found.counts == {"closed_by_idle": 1}


def test_the_slowest_active_partition_closes_an_idle_ones_windows():
    quiet = [*clicks((1, 0), partition=0), Idle(0)]
    slow, fast = reach(LAST_OPEN, partition=1), reach(1000, partition=2, key=OTHER_USER)
    found, _ = run([*quiet, slow, fast], n_partitions=3)
    assert found.counts == {}

    found, _ = run([*quiet, slow, fast, reach(LAST_OPEN + 1, partition=1)], n_partitions=3)
    assert found.counts == {"closed_by_idle": 1}


def test_a_partition_that_speaks_is_no_longer_idle():
    events = [*clicks((1, 0), (2, 1)), Idle(0), *clicks((3, 2), first=5), reach(1000, partition=1)]
    found, _ = run(events, n_partitions=2)
    assert found.counts == {}


def test_idle_windows_of_several_partitions_close_in_the_order_of_close_time_and_key():
    events = [
        *clicks((1, 3), key=4, partition=0),
        *clicks((2, 1), key=6, partition=1),
        *clicks((3, 3), key=2, partition=1, first=1),
        *clicks((4, 2), key=5, partition=2),
        Idle(0),
        Idle(1),
        reach(1000, partition=2),
    ]
    rules = ON_CLOSE._replace(max_jump=10_000)
    found, _ = run(events, rules, n_partitions=3)
    assert [tile.click.item for tile in found.tiles] == [2, 4, 3, 1]
    assert found.counts == {"closed": 1, "closed_by_idle": 3}


def test_windows_close_in_the_order_of_close_time_and_key():
    events = [
        *clicks((1, 5), key=9),
        *clicks((2, 5), key=3, first=1),
        *clicks((3, 4), key=5, first=2),
        *clicks((4, 6), key=5, first=3),
        reach(90, first=4),
    ]
    found, _ = run(events, ON_CLOSE)
    assert [tile.click.item for tile in found.tiles] == [2, 1, 3, 4]


def test_on_close_orders_a_windows_clicks_by_time_partition_and_offset():
    events = [
        *clicks((1, 5), partition=1, first=7),
        *clicks((2, 5), partition=0, first=9),
        *clicks((3, 4), partition=1, first=8),
        *clicks((4, 5), partition=1, first=9),
    ]
    found, _ = run(events, ON_CLOSE, n_partitions=2)
    found.close_all()

    assert [tile.click.item for tile in found.tiles] == [3, 2, 1, 4]
    assert [tile.neighbours for tile in found.tiles] == [(), (3,), (2, 3), (1, 2)]


# The future.


def ahead(n, time=MAX_JUMP + 1 - OUT_OF_ORDERNESS, first=1):
    return [Click(OTHER_USER, 50 + i, time, 0, first + i) for i in range(n)]


def test_a_click_further_ahead_than_the_jump_is_refused_and_moves_nothing():
    exact = MAX_JUMP - OUT_OF_ORDERNESS
    _, fates = run([*clicks((1, 0)), *ahead(1, time=exact)])
    assert fates == ["accepted", "accepted"]

    found, fates = run([*clicks((1, 0)), *ahead(1, time=exact + 1), *clicks((2, 1), first=2)])
    assert fates == ["accepted", "future", "accepted"]
    assert spans(found) == [(0, 1)]


def test_the_twentieth_click_in_a_row_that_lies_ahead_is_believed():
    events = [*clicks((1, 0)), *ahead(AGREEING + 1), *clicks((2, 0), first=60)]
    _, fates = run(events)
    assert fates[1:AGREEING] == ["future"] * (AGREEING - 1)
    assert fates[AGREEING:] == ["accepted", "accepted", "late"]


def regular(n, begin=0, first=100):
    """Clicks of many users, one per millisecond."""
    return [Click(1000 + i, 9, begin + i, 0, first + i) for i in range(n)]


def at(*times, first=0):
    return [Click(OTHER_USER, 9, time, 0, first + i) for i, time in enumerate(times)]


def test_a_lone_click_ahead_does_not_keep_the_stream_from_moving_further():
    far, farther = 2 * MAX_JUMP, 5 * MAX_JUMP
    _, fates = run([*regular(1), *at(far), *regular(AGREEING, begin=farther, first=200)])
    assert fates == ["accepted", *["future"] * (AGREEING - 1), "accepted", "accepted"]


def test_bad_clocks_among_clicks_ahead_do_not_keep_the_stream_from_moving():
    far, wrong = 2 * MAX_JUMP, 50 * MAX_JUMP
    strays = [*at(*[wrong] * 9, first=1), *regular(10, begin=far)]
    _, fates = run([*at(0), *strays, *at(wrong, first=200), *regular(2, begin=far, first=300)])
    assert fates == ["accepted", *["future"] * 20, "accepted", "accepted"]


def test_clicks_ahead_that_do_not_agree_are_not_believed():
    apart = [100 * (i + 2) * MAX_JUMP for i in range(3 * AGREEING)]
    _, fates = run([*at(0), *at(*apart, first=1), *regular(3)])
    assert fates == ["accepted", *["future"] * len(apart), *["accepted"] * 3]


def test_the_wrong_clock_of_a_first_click_is_found_out():
    wrong = 50 * MAX_JUMP
    found, fates = run([*at(wrong), *regular(AGREEING + 2)])
    assert fates == ["accepted", *["late"] * (AGREEING - 1), *["accepted"] * 3]
    assert len(spans(found)) == 4


def test_a_watermark_that_clicks_have_borne_out_never_goes_back():
    there = 50 * MAX_JUMP
    settled = regular(AGREEING, begin=there)
    _, fates = run([*settled, *regular(2 * AGREEING, first=300), *at(there, first=500)])
    assert fates[AGREEING:-1] == ["late"] * 2 * AGREEING
    assert fates[-1] == "accepted"


def test_a_watermark_that_has_moved_is_to_be_borne_out_again():
    there = 50 * MAX_JUMP
    moved = [*regular(AGREEING), *regular(2 * AGREEING - 2, begin=there, first=200)]
    _, fates = run([*moved, *regular(AGREEING, begin=100, first=300)])
    assert fates[AGREEING : 2 * AGREEING - 1] == ["future"] * (AGREEING - 1)
    assert fates[len(moved) :] == ["late"] * (AGREEING - 1) + ["accepted"]

    _, fates = run([*moved, *at(there, first=250), *regular(AGREEING, begin=100, first=300)])
    assert fates[len(moved) + 1 :] == ["late"] * AGREEING


def test_a_refused_click_moves_the_watermark_and_opens_no_window():
    rules = RULES._replace(is_early=1)
    first, passed = at(0)[0], GAP + LATENESS + OUT_OF_ORDERNESS + 1
    found, fates = run([first, at(passed, first=1)[0]._replace(is_refused=True)], rules)
    assert fates == ["accepted", "refused"]
    assert spans(found) == []
    assert len(found.tiles) == 1


def test_clicks_ahead_are_counted_in_a_row_only():
    events = [
        *clicks((1, 0)),
        *ahead(AGREEING - 1),
        *clicks((2, 0), first=30),
        *ahead(AGREEING - 1, first=40),
    ]
    _, fates = run(events)
    assert fates.count("future") == 2 * (AGREEING - 1)


# Bounds.


def test_a_window_trains_no_more_than_its_bound_and_still_grows():
    rules = RULES._replace(max_trained=3)
    found, fates = run(clicks((1, 0), (1, 1), (2, 2), (3, 3), (4, 3 + GAP)), rules)
    assert fates == ["accepted", "repeat", "accepted", "bot", "bot"]
    assert spans(found) == [(0, 3 + GAP)]
    assert len(found.tiles) == 3


def test_a_window_keeps_the_last_of_its_clicks():
    found, _ = run(clicks((1, 0), (2, 1), (3, 2), (4, 3)), RULES._replace(max_kept=2, window=5))
    (window,) = found.open_windows()
    assert [one.item for one in window[-1]] == [3, 4]
    assert found.tiles[-1].before == (3, 2)
    assert found.counts == {"dropped": 2}


@pytest.mark.parametrize(("item", "fate"), [(1, "repeat"), (3, "bot")])
def test_a_bridge_that_takes_no_position_still_keeps_to_the_bound(item, fate):
    rules = RULES._replace(max_kept=1, max_trained=3 if fate == "repeat" else 2)
    found, fates = run(clicks((1, 0), (2, 2 * GAP), (item, GAP)), rules)
    assert fates[-1] == fate
    (window,) = found.open_windows()
    assert [one.item for one in window[-1]] == [2]


def test_one_window_too_many_closes_the_oldest():
    rules = RULES._replace(max_open=2)
    events = [
        *clicks((1, 5), key=1),
        *clicks((2, 0), key=2, first=1),
        *clicks((3, 6), key=3, first=2),
    ]
    found, _ = run(events, rules)
    assert spans(found) == [(5, 5), (6, 6)]
    assert found.counts == {"evicted": 1}


def test_a_late_click_evicts_nobody():
    rules = RULES._replace(max_open=1)
    found, fates = run([reach(1000), *clicks((1, 0), first=60)], rules)
    assert fates == ["accepted", "late"]
    assert found.counts == {}


def test_nothing_arrives_in_an_empty_batch():
    found = KernelSessions(RULES, 1)
    found.close_all()
    assert (found.tiles, found.counts, found.open_windows()) == ([], {}, [])


def test_a_clicks_weight_is_its_tiles():
    found, _ = run([Click(USER, 1, 0, 0, 0, 2.5), Click(USER, 2, 1, 0, 1, 0.5)])
    assert np.isclose([tile.click.weight for tile in found.tiles], [2.5, 0.5]).all()
