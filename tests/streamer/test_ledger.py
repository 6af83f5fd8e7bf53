"""Every click is counted once, and what is not counted is missed."""

import pytest

from state.sections import Section
from streamer.ledger import Ledger


def full():
    ledger = Ledger(Section())
    ledger.read = 20
    ledger.applied = 9
    ledger.pairs = 30
    ledger.filter("late", 3)
    ledger.filter("bot", 2)
    ledger.filter("late", 1)
    ledger.dead_lettered.update(["malformed", "future", "malformed"])
    return ledger


def test_what_was_read_is_applied_held_filtered_or_dead_lettered():
    assert full().missing(held=2) == 0
    assert full().missing(held=1) == 1
    assert full().missing(held=3) == -1


@pytest.mark.parametrize("lost", ["applied", "filtered", "dead_lettered", "read"])
def test_one_click_that_is_not_counted_is_missed(lost):
    ledger = full()
    if lost == "applied":
        ledger.applied -= 1
    elif lost == "read":
        ledger.read += 1
    else:
        next_reason = next(iter(getattr(ledger, lost)))
        getattr(ledger, lost)[next_reason] -= 1
    assert ledger.missing(held=2) == 1


def test_counts_are_by_name_and_reason():
    assert full().counts(held=2) == {
        "clicks": 20,
        "applied": 9,
        "held": 2,
        "filtered": 6,
        "dead_lettered": 3,
        "pairs": 30,
        "filtered_by_reason": {"bot": 2, "late": 4},
        "dead_lettered_by_reason": {"future": 1, "malformed": 2},
        "lost": 0,
    }


def test_nothing_filtered_is_no_reason():
    ledger = Ledger(Section())
    ledger.filter("late", 0)
    assert ledger.filtered == {}


def test_a_restored_ledger_has_equal_counts_and_goes_on():
    ledger = full()
    again = Ledger(ledger.snapshot())
    assert again.counts(2) == ledger.counts(2)
    again.filter("late", 1)
    again.read += 1
    assert again.missing(held=2) == 0
    assert again.filtered["late"] == 5
    assert ledger.filtered["late"] == 4


def test_clicks_that_were_never_read_are_no_part_of_the_sum():
    ledger = full()
    ledger.lost["expired"] = 7
    assert ledger.missing(held=2) == 0
    assert Ledger(ledger.snapshot()).counts(2)["lost"] == 7


def test_a_snapshot_is_not_touched_by_what_comes_later():
    ledger = full()
    snapshot = ledger.snapshot()
    ledger.filter("late", 5)
    ledger.read += 5
    assert Ledger(snapshot).counts(2) == full().counts(2)
