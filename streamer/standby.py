"""Waiting for a state directory, and keeping it: both sides of the lease."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from state import lease, succession
from state.errors import DirectoryTaken, StateError, Superseded
from state.lease import Hold, Sign, Tenure
from state.recovery import Recovered
from streamer.clock import Clock
from streamer.config import Config

log = structlog.get_logger()

RENEW_SECONDS = 1.0
LOOK_SECONDS = 0.25


class Renewal:
    """Renews the lease of a hold from a thread of its own, and notices when it is lost.

    A running one that was paused, and superseded meanwhile, learns it within a second of coming
    back, whatever else it does: `check` raises then.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._tenure: Tenure | None = None
        self._error: Superseded | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="livevec-lease", daemon=True)

    def start(self) -> None:
        """Begin to renew; returns at once."""
        self._thread.start()

    def watch(self, tenure: Tenure) -> None:
        """Notice from now on when `tenure` is superseded."""
        self._tenure = tenure

    def check(self) -> None:
        """Raise `Superseded` if it has been noticed; costs nothing."""
        if self._error is not None:
            raise self._error

    def look(self) -> None:
        """Look at once, and raise `Superseded` if a newer term exists."""
        if self._tenure is not None:
            self._tenure.check()

    def stop(self) -> None:
        """Renew no more; the lease is let go with the hold. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        is_told = False
        while not self._stopping.wait(RENEW_SECONDS):
            is_well = self._try(self._hold.renew, is_told) & self._try(self.look, is_told)
            is_told = not is_well
            if self._error is not None:
                return

    def _try(self, act: Callable[[], None], is_told: bool) -> bool:
        """Tell whether the disk has let us; one that does not now may in a second."""
        try:
            act()
        except Superseded as error:
            self._error = error
        except StateError as error:
            if not is_told:
                log.warning("lease_not_renewed", error=str(error))
            return False
        return True


class Standby:
    """Waits until a state directory is free, or whoever has it gives no sign of life.

    Only this process's monotonic clock counts: whether the sign has changed since the last look,
    and for how long we have looked in vain. A look that comes late, because we were paused
    ourselves, counts no more than two: the other may have been paused with us.
    """

    def __init__(
        self,
        directory: Path,
        lease_seconds: float,
        clock: Clock,
        should_stop: Callable[[], bool],
        on_wait: Callable[[int], None],
    ) -> None:
        self._directory = directory
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._should_stop = should_stop
        self._on_wait = on_wait
        self._sign: Sign | None = None
        self._looked_at = 0.0
        self._in_vain_seconds = 0.0

    def wait(self) -> Hold | None:
        """Return the directory as soon as it may be taken, None when told to stop.

        `on_wait` is told the term for which it waits, once for each.
        """
        while not self._should_stop():
            try:
                return lease.hold(self._directory)
            except DirectoryTaken:
                self._look()
            if self._sign is not None and self._in_vain_seconds >= self._lease_seconds:
                return lease.overtake(self._directory, self._sign)
            self._clock.sleep(LOOK_SECONDS)
        return None

    def _look(self) -> None:
        sign, now = lease.last_sign(self._directory), self._clock.monotonic()
        if sign == self._sign:
            self._in_vain_seconds += min(now - self._looked_at, 2 * LOOK_SECONDS)
        else:
            if sign is not None and (self._sign is None or sign.term != self._sign.term):
                self._on_wait(sign.term)
            self._sign, self._in_vain_seconds = sign, 0.0
        self._looked_at = now


@dataclass(frozen=True, slots=True)
class Entered:
    """A state directory that is ours: what was restored, under which term, and its lease."""

    found: Recovered | None
    tenure: Tenure
    hold: Hold
    renewal: Renewal

    def leave(self) -> None:
        """Renew no more, and let go. Idempotent."""
        self.renewal.stop()
        self.hold.release()


def enter(config: Config, generation: int | None, standby: Standby | None) -> Entered | None:
    """Take the state directory, restore, and begin a term; None when told to stop before.

    Without `standby`, raises `DirectoryTaken` while a living process holds it; with it, waits,
    and waits again where another standby is quicker. Raises as `recovery.newest`.
    """
    directory = config.store.directory
    while True:
        hold = lease.hold(directory) if standby is None else standby.wait()
        if hold is None:
            return None
        if standby is not None:
            log.info("taking_over", after_term=hold.predecessor, is_contested=hold.is_contested)
        renewal = Renewal(hold)
        renewal.start()
        try:
            found, tenure = succession.succeed(directory, hold, config.fingerprint(), generation)
        except StateError as error:
            renewal.stop()
            hold.release()
            if standby is None or not isinstance(error, DirectoryTaken):
                raise
            log.info("taken_by_another", reason=str(error))
            continue
        renewal.watch(tenure)
        return Entered(found, tenure, hold, renewal)
