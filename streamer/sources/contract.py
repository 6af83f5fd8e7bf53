"""What a source promises: poll, seek, pause, position, lag, close."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from state.deaths import Deaths
from state.lease import Tenure
from state.offsets import Offsets, Partition
from streamer.sources.clicks import ClickBatch


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a source is behind, as far as it knows: `clicks` is None where it does not.

    `held_back` are those of `by_partition` that nobody may read yet, and for how long: a
    producer's open transaction lies before them.
    """

    clicks: int | None
    by_partition: Mapping[Partition, int] = field(default_factory=dict)
    held_back: Mapping[Partition, int] = field(default_factory=dict)
    held_back_seconds: Mapping[Partition, float] = field(default_factory=dict)
    is_next: bool = True  # False while something else is read before all of these

    def is_readable(self, partition: Partition) -> bool:
        """Tell whether a partition has clicks that could be read now."""
        n = self.by_partition.get(partition, 0)
        return self.is_next and n > self.held_back.get(partition, 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who reads: the state's space, and the tenure under which its positions are written.

    `deaths` is told what is decoded, and knows what is not to be.
    """

    space_id: str
    tenure: Tenure
    is_fresh: bool  # the state begins with this start
    deaths: Deaths = field(default_factory=Deaths)


class Source(Protocol):
    """Clicks in order, per partition, from any offset.

    The daemon calls it from one thread. Nothing here blocks beyond the timeout it was given.
    """

    def partitions(self) -> tuple[Partition, ...]:
        """Return every partition known now, in the order in which they were found."""

    def claim(self, claim: Claim) -> None:
        """Say who reads, before `seek`.

        Raises `BrokerError` when somebody else tells the outside that the positions are his.
        """

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

    def hold_back(self, partitions: Collection[Partition]) -> None:
        """Return no clicks of exactly these partitions, until others are named; never blocks."""

    def position(self) -> Offsets:
        """Return the next offset of each partition; never blocks."""

    def marks(self) -> Mapping[Partition, str]:
        """Return what identifies the content before each position; never blocks.

        A partition of which nothing has been read may have no mark.
        """

    def lag(self) -> Lag:
        """Return how many clicks wait to be read; never blocks, and may be seconds old."""

    def trouble(self) -> str | None:
        """Return why clicks may not be coming, None if all is well; never blocks."""

    def losses(self) -> Mapping[str, int]:
        """Return how many clicks this start has passed over unread, by reason; see the policies."""

    def publish_position(self, offsets: Offsets) -> None:
        """Tell the outside (lag dashboards) what has been committed; best effort, never blocks.

        Where somebody else tells it something, too, a later `poll` raises `BrokerError`.
        """

    def close(self) -> None:
        """Release what is held. Idempotent."""


class LocalSource:
    """What a source answers that no brokers hold, no group shows and no policy passes over."""

    def claim(self, claim: Claim) -> None:
        """Do nothing: whoever reads leaves no trace."""

    def hold_back(self, partitions: Collection[Partition]) -> None:
        """Do nothing: partitions are read in an order that is right already."""

    def trouble(self) -> str | None:
        """Return None: what cannot be read is an error."""
        return None

    def losses(self) -> Mapping[str, int]:
        """Return nothing: no click is passed over."""
        return {}

    def publish_position(self, offsets: Offsets) -> None:
        """Do nothing: nobody watches."""
