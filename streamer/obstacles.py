"""What keeps clicks from being learned durably: told once as it begins and once as it ends."""

from enum import Enum

import structlog

from streamer.clock import Clock
from streamer.health import Health

log = structlog.get_logger()


class Obstacle(Enum):
    """A kind of obstacle: the names of its log lines, when it begins and when it ends.

    Whoever fails to commit says so itself.
    """

    COMMIT = (None, "commits_again")
    UNCOMMITTED = ("reading_paused", "reading_resumed")
    BROKER = ("broker_away", "broker_back")


class Obstacles:
    """Those that there are now; an obstacle may say more as it goes on, and is logged once."""

    def __init__(self, health: Health, clock: Clock) -> None:
        self._health = health
        self._clock = clock
        self._since: dict[Obstacle, float] = {}

    def note(self, obstacle: Obstacle, reason: str | None) -> None:
        """Take note of what an obstacle is by now; None when there is none."""
        now = self._clock.monotonic()
        if reason is not None:
            if obstacle not in self._since:
                self._since[obstacle] = now
                if obstacle.value[0] is not None:
                    log.warning(obstacle.value[0], reason=reason)
            self._health.not_ready(reason)
        elif obstacle in self._since:
            seconds = round(now - self._since.pop(obstacle), 1)
            log.info(obstacle.value[1], seconds=seconds)
            if not self._since:
                self._health.ready()
