"""What a source promises: poll, seek, pause, position, lag, close."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from state.offsets import Offsets, Partition
from streamer.sources.clicks import ClickBatch


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a source is behind, as far as it knows: `clicks` is None where it does not."""

    clicks: int | None


class Source(Protocol):
    """Clicks in order, per partition, from any offset.

    The daemon calls it from one thread. Nothing here blocks beyond the timeout it was given.
    """

    def partitions(self) -> tuple[Partition, ...]:
        """Return every partition known now, in the order in which they were found."""

    def seek(self, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        """Go to where `offsets` points; a partition that it does not name begins at its start.

        Called once, before the first poll. Raises `ConfigError` or `BrokerError` when that
        place cannot be read, `ConfigError` where what lies before the position is not what was
        read: where it does not have the mark that `marks` names. A partition that is opened
        later, behind others, is compared then, by the poll that opens it.
        """

    def poll(self, timeout_seconds: float, max_clicks: int) -> ClickBatch | None:
        """Return the next clicks of one partition, in offset order, or None if there are none yet.

        Blocks for at most `timeout_seconds`. At most `max_clicks` records are read. On return
        the position is behind them. An error leaves the position where it was.
        """

    def ended(self) -> Iterable[Partition]:
        """Return the partitions that have been read to an end that will not move."""

    def is_exhausted(self) -> bool:
        """Tell whether every partition has ended, so that no poll will ever return a click."""

    def caught_up(self) -> Iterable[Partition]:
        """Return the partitions that had nothing more to read at the last poll."""

    def pause(self) -> None:
        """Fetch nothing until `resume`; polls return None. Idempotent."""

    def resume(self) -> None:
        """Fetch again. Idempotent."""

    def position(self) -> Offsets:
        """Return the next offset of each partition; never blocks."""

    def marks(self) -> Mapping[Partition, str]:
        """Return what identifies the content before each position; never blocks.

        A partition of which nothing has been read may have no mark.
        """

    def lag(self) -> Lag:
        """Return how many clicks wait to be read; never blocks, and may be seconds old."""

    def publish_position(self, offsets: Offsets, term: int) -> None:
        """Tell the outside (lag dashboards) what has been committed; best effort, never blocks."""

    def close(self) -> None:
        """Release what is held. Idempotent."""
