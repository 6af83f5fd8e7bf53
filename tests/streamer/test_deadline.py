import threading

from streamer.deadline import Deadline


def test_several_waits_share_one_budget(manual_clock):
    deadline = Deadline(manual_clock, 10.0)
    manual_clock.advance(4.0)
    after_the_first = deadline.seconds_left()
    manual_clock.advance(7.0)

    assert after_the_first == 6.0
    assert deadline.seconds_left() == 0.0


def test_an_endless_budget_is_one_that_a_thread_can_wait(manual_clock):
    assert Deadline(manual_clock, float("inf")).seconds_left() == threading.TIMEOUT_MAX
