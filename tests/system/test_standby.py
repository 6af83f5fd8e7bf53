"""`livevec run --standby`: it takes over from what dies or is paused, and nothing is lost."""

import signal

import httpx
import pytest

from tests.system.runs import Livevec, adds_up, append_csv, clicks, differences, wait_for, write_csv

pytestmark = pytest.mark.crash

N = 8000
LEASE_SECONDS = 2.0
# Well over what a take-over may take, and well under what would hide one that never comes.
TAKE_OVER_SECONDS = 10.0


@pytest.fixture
def following(livevec):
    """A daemon's configuration over a file that grows, and the rows that it does not hold yet."""
    rows = clicks(N)
    path = write_csv(livevec.directory / "clicks.csv", rows[: N // 2])
    livevec.read_from(path, follow=True)
    livevec.configure(
        {
            "store": {"lease_seconds": LEASE_SECONDS},
            "checkpoint": {"interval_seconds": 0.3},
            "source": {"max_clicks_per_second": 4000.0},
        }
    )
    return livevec, path, rows[N // 2 :]


def end_of(livevec, running):
    """Let the standby, active by now, read all; return its summary and the newest generation."""
    wait_for(lambda: livevec.committed() == N, "the last click")
    ended = running.terminated()
    assert ended.code == 0, ended.err
    assert ended.summary["clicks"] == N
    assert adds_up(ended.summary)
    return ended, livevec.newest()


def never_stopped(livevec, path):
    calm = Livevec(livevec.directory / "calm")
    calm.directory.mkdir()
    calm.read_from(path, follow=True)
    running = calm.start()
    wait_for(lambda: calm.state.exists() and calm.committed() == 0, "the first generation")
    try:
        wait_for(lambda: _has_read(running), "the last click")
        assert running.terminated().code == 0
        return calm.newest()
    finally:
        calm.close()


def _has_read(running):
    address = running.event("metrics_listening")["address"]
    metrics = httpx.get(f"{address}/metrics").text
    return f"livevec_clicks_read_total {N}.0" in metrics


@pytest.mark.slow
def test_a_paused_daemon_is_superseded_and_harms_nothing_when_it_comes_back(following):
    livevec, path, rest = following
    first = livevec.start()
    first.event("started_afresh")
    second = livevec.start("run", "--standby", "--json")
    waiting = second.event("standing_by")
    wait_for(lambda: livevec.committed() > 0, "a generation")

    first.send(signal.SIGSTOP)
    restored = second.event("restored")
    append_csv(path, rest)
    wait_for(lambda: livevec.committed() > N // 2, "what came after the pause")
    first.send(signal.SIGCONT)
    superseded = first.ended(TAKE_OVER_SECONDS)
    ended, newest = end_of(livevec, second)

    assert waiting["term"] == 1
    assert (restored["term"], newest.name.term) == (2, 2)
    assert [one["is_contested"] for one in ended.events("taking_over")] == [True]
    assert superseded.code == 4
    assert "superseded by term 2" in superseded.complaints[-1]
    assert differences(never_stopped(livevec, path), newest) == []


@pytest.mark.slow
def test_a_standby_waits_in_health_takes_over_from_the_dead_and_may_be_told_to_stop(following):
    livevec, path, rest = following
    first = livevec.start("run", "--standby", "--json")  # on a free directory it is the active one
    assert first.event("started_afresh")["term"] == 1
    second, third = (livevec.start("run", "--standby", "--json") for _ in range(2))
    for one in (second, third):
        one.event("standing_by")
    address = second.event("metrics_listening")["address"]
    unready = httpx.get(f"{address}/readyz")
    assert (unready.status_code, "standing by: term 1" in unready.text) == (503, True)
    assert httpx.get(f"{address}/healthz").status_code == 200
    assert "livevec_standby 1.0" in httpx.get(f"{address}/metrics").text
    wait_for(lambda: livevec.committed() > 0, "a generation")
    refused = livevec.run()
    third_ended = third.terminated()

    first.kill()
    assert second.event("restored")["term"] == 2
    append_csv(path, rest)
    wait_for(lambda: httpx.get(f"{address}/readyz").status_code == 200, "readiness")
    assert "livevec_standby 0.0" in httpx.get(f"{address}/metrics").text
    ended, newest = end_of(livevec, second)

    assert refused.code == 4
    assert "held by a living process, term 1" in refused.complaints[-1]
    assert (third_ended.code, third_ended.summary) == (0, {"clicks": 0, "stood_by": True})
    assert [one["is_contested"] for one in ended.events("taking_over")] == [False]
    assert differences(never_stopped(livevec, path), newest) == []
