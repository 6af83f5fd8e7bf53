"""Files first, then a live source, as one."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from state.offsets import Offsets, Partition
from streamer.sources.clicks import ClickBatch
from streamer.sources.contract import Claim, Lag, Source


class HistoryThenLive:
    """Reads `history` to its end, and then `live`; see `streamer.sources.contract.Source`.

    To the windows it is one stream: a session that began in the one goes on in the other.
    """

    def __init__(self, history: Source, live: Source) -> None:
        self._history = history
        self._live = live

    def partitions(self) -> tuple[Partition, ...]:
        """Return the partitions of both, the history's first."""
        return (*self._history.partitions(), *self._live.partitions())

    def claim(self, claim: Claim) -> None:
        """Say to both who reads."""
        self._history.claim(claim)
        self._live.claim(claim)

    def seek(self, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        """Let both go to where `offsets` points."""
        self._history.seek(offsets, marks)
        self._live.seek(offsets, marks)

    def poll(self, timeout_seconds: float, max_clicks: int) -> ClickBatch | None:
        """Return the next clicks of the history, and of the live source once it has ended."""
        if not self._history.is_exhausted():
            return self._history.poll(timeout_seconds, max_clicks)
        return self._live.poll(timeout_seconds, max_clicks)

    def ended(self) -> Iterable[Partition]:
        """Return the partitions of both that have ended."""
        return (*self._history.ended(), *self._live.ended())

    def is_exhausted(self) -> bool:
        """Tell whether both have ended."""
        return self._history.is_exhausted() and self._live.is_exhausted()

    def caught_up(self) -> Iterable[Partition]:
        """Return the partitions that had nothing more; of the live source once it is polled."""
        if not self._history.is_exhausted():
            return self._history.caught_up()
        return (*self._history.caught_up(), *self._live.caught_up())

    def pause(self) -> None:
        """Read nothing until `resume`."""
        self._history.pause()
        self._live.pause()

    def resume(self) -> None:
        """Read again."""
        self._history.resume()
        self._live.resume()

    def hold_back(self, partitions: Collection[Partition]) -> None:
        """Let the live source hold back its partitions."""
        self._live.hold_back(partitions)

    def position(self) -> Offsets:
        """Return the positions of both; the live source may keep old ones of the history."""
        return Offsets({**self._live.position(), **self._history.position()})

    def marks(self) -> Mapping[Partition, str]:
        """Return the marks of both."""
        return {**self._live.marks(), **self._history.marks()}

    def lag(self) -> Lag:
        """Return the live source's, without a sum while nobody knows the history's."""
        history, live = self._history.lag(), self._live.lag()
        is_known = history.clicks is not None and live.clicks is not None
        total = (history.clicks or 0) + (live.clicks or 0) if is_known else None
        return dataclasses.replace(live, clicks=total, is_next=self._history.is_exhausted())

    def trouble(self) -> str | None:
        """Return why the live source's clicks may not be coming."""
        return self._live.trouble()

    def losses(self) -> Mapping[str, int]:
        """Return the clicks that the live source has passed over."""
        return self._live.losses()

    def publish_position(self, offsets: Offsets) -> None:
        """Tell it to the live source's outside."""
        self._live.publish_position(offsets)

    def close(self) -> None:
        """Release both."""
        self._history.close()
        self._live.close()
