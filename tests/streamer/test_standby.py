"""A standby takes a directory that is free or whose lease has run out, and no other."""

import errno
import os
import threading

import pytest
from structlog.testing import capture_logs

from state import lease
from state.errors import DirectoryTaken, Superseded
from streamer import standby
from streamer.config import load
from streamer.standby import LOOK_SECONDS, Renewal, Standby, enter

LEASE_SECONDS = 5.0


class Watched:
    """A standby on a clock that goes on only by its sleeps; `at_each_look` happens meanwhile."""

    def __init__(self, directory, clock):
        self.clock, self.looks, self.terms = clock, 0, []
        self.at_each_look = lambda looks: None
        self.standby = Standby(
            directory, LEASE_SECONDS, clock, self._should_stop, self.terms.append
        )

    def _should_stop(self):
        self.looks += 1
        self.at_each_look(self.looks)
        return self.looks > 1000


@pytest.fixture
def watched(tmp_path, manual_clock):
    return Watched(tmp_path, manual_clock)


@pytest.fixture
def active(tmp_path):
    hold = lease.hold(tmp_path)
    hold.begin_term(None)
    yield hold
    hold.release()


def test_a_directory_that_is_free_is_taken_at_once(tmp_path, watched):
    hold = watched.standby.wait()

    assert (hold.is_contested, watched.clock.monotonic(), watched.terms) == (False, 0.0, [])
    hold.release()


def test_a_lock_that_is_let_go_is_taken_with_the_next_look(watched, active):
    watched.at_each_look = lambda looks: active.release() if looks == 9 else None

    hold = watched.standby.wait()

    assert not hold.is_contested
    assert watched.clock.monotonic() == 8 * LOOK_SECONDS
    assert watched.terms == [1]
    hold.release()


def test_a_lease_that_is_not_renewed_is_taken_over_when_it_has_run_out(watched, active):
    hold = watched.standby.wait()

    assert hold.is_contested
    assert LEASE_SECONDS <= watched.clock.monotonic() <= LEASE_SECONDS + LOOK_SECONDS
    assert hold.begin_term(None).term == 2
    hold.release()


def test_a_lease_that_is_renewed_is_never_taken_over(watched, active):
    every = round((LEASE_SECONDS - 1) / LOOK_SECONDS)
    watched.at_each_look = lambda looks: active.renew() if looks % every == 0 else None

    assert watched.standby.wait() is None
    assert watched.clock.monotonic() > 10 * LEASE_SECONDS


def test_a_standby_that_was_paused_itself_gives_the_other_time_to_renew(watched, active):
    watched.at_each_look = lambda looks: watched.clock.advance(60.0) if looks == 5 else None

    hold = watched.standby.wait()

    waited = watched.clock.monotonic() - 60.0
    assert LEASE_SECONDS - 2 * LOOK_SECONDS <= waited <= LEASE_SECONDS + LOOK_SECONDS
    assert hold.is_contested


def test_who_has_it_is_told_once_for_each_term(tmp_path, watched, active):
    def taken_over(looks):
        if looks == 5:
            taken_over.hold = lease.overtake(tmp_path, lease.last_sign(tmp_path))
            taken_over.hold.begin_term(None)

    watched.at_each_look = taken_over

    hold = watched.standby.wait()

    assert watched.terms == [1, 2]
    assert hold.predecessor == 2
    taken_over.hold.release()


def config(directory):
    return load(None, store={"directory": directory})


def test_a_start_that_does_not_stand_by_is_refused(tmp_path, active):
    with pytest.raises(DirectoryTaken):
        enter(config(tmp_path), None, None)


def test_a_standby_that_another_was_quicker_than_waits_again(
    tmp_path, watched, active, monkeypatch
):
    others = []

    def quicker(hold, restored):
        monkeypatch.undo()
        others.append(lease.overtake(tmp_path, lease.last_sign(tmp_path)))
        others[0].begin_term(None)
        return begin(hold, restored)

    begin = lease.Hold.begin_term
    monkeypatch.setattr(lease.Hold, "begin_term", quicker)
    entered = enter(config(tmp_path), None, watched.standby)

    assert lease.terms(tmp_path) == [1, 2, 3]
    assert watched.terms == [1, 2]
    assert watched.clock.monotonic() >= 2 * LEASE_SECONDS
    assert entered.tenure.term == 3
    entered.leave()
    others[0].release()


def test_a_standby_that_is_told_to_stop_enters_nothing(tmp_path, manual_clock, active):
    stopped = Standby(tmp_path, LEASE_SECONDS, manual_clock, lambda: True, [].append)

    assert enter(config(tmp_path), None, stopped) is None
    assert lease.terms(tmp_path) == [1]


def test_a_lease_is_renewed_until_it_is_left_and_a_newer_term_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(standby, "RENEW_SECONDS", 0.001)
    hold = lease.hold(tmp_path)
    tenure = hold.begin_term(None)
    renewed = threading.Semaphore(0)
    renew = hold.renew
    monkeypatch.setattr(hold, "renew", lambda: (renew(), renewed.release()))
    renewal = Renewal(hold)
    renewal.watch(tenure)
    first = lease.last_sign(tmp_path)
    renewal.start()
    for _ in range(20):
        assert renewed.acquire(timeout=10)
    second = lease.last_sign(tmp_path)
    renewal.check()

    hold.begin_term(None)
    renewal._thread.join(10)

    assert first != second
    with pytest.raises(Superseded):
        renewal.check()
    with pytest.raises(Superseded):
        renewal.look()
    renewal.stop()
    renewal.stop()
    hold.release()


def test_a_disk_that_cannot_be_read_for_a_while_ends_no_renewal(tmp_path, monkeypatch):
    monkeypatch.setattr(standby, "RENEW_SECONDS", 0.001)
    hold = lease.hold(tmp_path)
    tenure = hold.begin_term(None)
    renewal = Renewal(hold)
    renewal.watch(tenure)
    calls = threading.Semaphore(0)

    def failing(descriptor):
        calls.release()
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "utime", failing)
    with capture_logs() as told:
        renewal.start()
        assert all(calls.acquire(timeout=10) for _ in range(3))
        renewal.check()
        hold.begin_term(None)
        renewal._thread.join(10)

    assert [line["event"] for line in told] == ["lease_not_renewed"]
    with pytest.raises(Superseded):
        renewal.check()
    renewal.stop()
    hold.release()
