"""An immutable map (topic, partition) -> next offset."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Partition(NamedTuple):
    """One ordered part of a stream: a Kafka partition, or a file (its name, 0)."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class Offsets(Mapping[Partition, int]):
    """The next offset to read, for each partition that has been read.

    >>> start = Offsets()
    >>> later = start.advance(Partition("clicks", 0), 42)
    >>> later[Partition("clicks", 0)], len(start)
    (42, 0)
    >>> Offsets.from_json(later.to_json()) == later
    True
    """

    __slots__ = ("_next",)

    def __init__(self, offsets: Mapping[Partition, int] | None = None) -> None:
        self._next = dict(offsets or {})

    def __getitem__(self, partition: Partition) -> int:
        return self._next[partition]

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._next)

    def __len__(self) -> int:
        return len(self._next)

    def __repr__(self) -> str:
        inside = ", ".join(f"{partition}: {offset}" for partition, offset in self._next.items())
        return f"Offsets({inside})"

    def advance(self, partition: Partition, next_offset: int) -> "Offsets":
        """Return the same offsets with `partition` at `next_offset`, which never lies behind."""
        assert next_offset >= self._next.get(partition, 0)
        return Offsets({**self._next, partition: next_offset})

    def to_json(self) -> list[list[str | int]]:
        """Return rows of [topic, partition, next offset], in order."""
        return [[p.topic, p.number, offset] for p, offset in sorted(self._next.items())]

    @classmethod
    def from_json(cls, rows: list[list[str | int]]) -> "Offsets":
        """Invert `to_json`."""
        return cls({Partition(str(t), int(i)): int(offset) for t, i, offset in rows})
