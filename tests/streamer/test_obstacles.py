"""What keeps clicks from being learned is told once, and readiness says it as long as it lasts."""

import pytest
from structlog.testing import capture_logs

from streamer.health import Health
from streamer.obstacles import Obstacle, Obstacles


@pytest.fixture
def health(manual_clock):
    one = Health(manual_clock, 30.0)
    one.ready()
    return one


@pytest.fixture
def obstacles(health, manual_clock):
    return Obstacles(health, manual_clock)


def test_an_obstacle_is_told_when_it_begins_and_when_it_ends(obstacles, health, manual_clock):
    with capture_logs() as lines:
        obstacles.note(Obstacle.BROKER, None)
        obstacles.note(Obstacle.BROKER, "no answer for 4 s")
        manual_clock.advance(1.0)
        obstacles.note(Obstacle.BROKER, "no answer for 5 s")
        meanwhile = health.unready()
        manual_clock.advance(2.0)
        obstacles.note(Obstacle.BROKER, None)
        obstacles.note(Obstacle.BROKER, None)

    assert meanwhile == "no answer for 5 s"
    assert health.unready() is None
    assert lines == [
        {"event": "broker_away", "log_level": "warning", "reason": "no answer for 4 s"},
        {"event": "broker_back", "log_level": "info", "seconds": 3.0},
    ]


def test_a_commit_that_fails_is_said_by_who_commits_and_its_end_here(obstacles, health):
    with capture_logs() as lines:
        obstacles.note(Obstacle.COMMIT, "nothing is committed: no space")
        meanwhile = health.unready()
        obstacles.note(Obstacle.COMMIT, None)

    assert (meanwhile, health.unready()) == ("nothing is committed: no space", None)
    assert [line["event"] for line in lines] == ["commits_again"]


def test_the_end_of_one_obstacle_is_not_that_of_another(obstacles, health):
    obstacles.note(Obstacle.BROKER, "away")
    obstacles.note(Obstacle.UNCOMMITTED, "a full disk")
    obstacles.note(Obstacle.BROKER, None)

    assert health.unready() == "a full disk"

    obstacles.note(Obstacle.UNCOMMITTED, None)
    assert health.unready() is None


def test_what_is_not_ready_for_another_reason_stays_so(obstacles, health):
    health.not_ready("draining")
    obstacles.note(Obstacle.BROKER, None)

    assert health.unready() == "draining"
