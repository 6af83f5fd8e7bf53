"""Where a process has died: a note of what is under way, and the clicks that are quarantined.

`under-way` says what the process is at. It lies in the page cache, which outlives a process; a
power cut takes the note, and is no click's fault. The next start counts what it still says as a
death at that place, in `deaths.json`. Where one has been, clicks are taken one by one: so a
second and a third death name the click. It is then quarantined, whatever generation is restored.

Random kills do not add up to that: it takes two at the very same click alone. A note that a
superseded process still writes goes into a file that nobody reads; a `deaths.json` that it writes
late may cost a click that kills three more deaths, and nothing else.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from state import durable
from state.errors import StateError
from state.lease import Tenure
from state.offsets import Offsets, Partition

DECODING = "decoding"
APPLYING = "applying"
DEATHS, ALONE = 3, 2  # deaths at a place, of which so many at the click alone

_UNDER_WAY, _COUNTED = "under-way", "deaths.json"
_SLOT_BYTES = 4096
_SLOTS = {DECODING: 0, APPLYING: _SLOT_BYTES}
_NOTHING = b"\n"


class Place(NamedTuple):
    """Clicks of a partition from `first` to before `next`, and what was being done with them."""

    stage: str
    partition: Partition
    first: int
    next: int

    @property
    def is_alone(self) -> bool:
        """Whether it is one click."""
        return self.next == self.first + 1

    def covers(self, other: "Place") -> bool:
        """Tell whether `other` lies within this place, at the same stage."""
        is_same = (self.stage, self.partition) == (other.stage, other.partition)
        return is_same and self.first <= other.first and other.next <= self.next


class Quarantined(NamedTuple):
    """A click that is not tried again."""

    partition: Partition
    offset: int


class Absolved(NamedTuple):
    """Of a partition nothing before `log` is held against its clicks from `begin` on."""

    partition: Partition
    begin: int
    log: str


@dataclass
class Record:
    """What `deaths.json` holds: deaths up to the notes of term `through`."""

    places: Counter[Place] = field(default_factory=Counter)
    quarantined: list[Quarantined] = field(default_factory=list)
    through: int = 0
    absolved: list[Absolved] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what is there; raises `StateError` for what was not written by us."""
        content = durable.read(path)
        if content is None:
            return cls()
        try:
            fields = json.loads(content)
            places = {
                Place(stage, Partition(topic, number), first, end): n
                for stage, topic, number, first, end, n in fields["places"]
            }
            quarantined = [
                Quarantined(Partition(topic, number), offset)
                for topic, number, offset in fields["quarantined"]
            ]
            absolved = [
                Absolved(Partition(topic, number), begin, log)
                for topic, number, begin, log in fields.get("absolved", ())
            ]
            return cls(Counter(places), quarantined, int(fields["through"]), absolved)
        except (ValueError, LookupError, TypeError) as error:
            message = (
                f"{str(path)!r}: expected the deaths that were counted, found {content[:80]!r}; "
                "remove it, and clicks that were quarantined are tried again"
            )
            raise StateError(message) from error

    def to_json(self) -> bytes:
        """Return what `read` reads."""
        fields = {
            "through": self.through,
            "places": [
                [place.stage, *place.partition, place.first, place.next, n]
                for place, n in self.places.items()
            ],
            "quarantined": [[*one.partition, one.offset] for one in self.quarantined],
            "absolved": [[*one.partition, one.begin, one.log] for one in self.absolved],
        }
        return json.dumps(fields).encode() + b"\n"

    def condemn(self) -> list[Quarantined]:
        """Quarantine the clicks at which there were enough deaths; return them."""
        found = [
            Quarantined(place.partition, place.first)
            for place, n in self.places.items()
            if place.is_alone and n >= ALONE and self._deaths_at(place) >= DEATHS
        ]
        self.quarantined += found
        for place in [p for p in self.places if p.is_alone]:
            if Quarantined(place.partition, place.first) in found:
                del self.places[place]
        return found

    def forget(self, position: Offsets) -> None:
        """Forget places that lie before a position."""
        for place in list(self.places):
            if place.next <= position.get(place.partition, 0):
                del self.places[place]

    def absolve(self, absolved: Absolved) -> None:
        """Forget what is known of those clicks, and note that it has been."""
        partition, begin, _ = absolved
        self.absolved.append(absolved)
        for place in list(self.places):
            if place.partition == partition and place.next > begin:
                del self.places[place]
        self.quarantined = [
            one for one in self.quarantined if one.partition != partition or one.offset < begin
        ]

    def _deaths_at(self, click: Place) -> int:
        return sum(n for place, n in self.places.items() if place.covers(click))


@dataclass
class Deaths:
    """What is known of deaths in a state directory, and the note of what is under way.

    Made by `begin`; `Deaths()` knows none and notes nothing. `counted` are the places at which
    the process before died, with the deaths there so far; `condemned` the clicks that are
    quarantined since.
    """

    record: Record = field(default_factory=Record)
    path: Path | None = None  # of the record
    counted: tuple[tuple[Place, int], ...] = ()
    condemned: tuple[Quarantined, ...] = ()
    term: int = 0
    descriptor: int = -1

    @classmethod
    def begin(
        cls, directory: Path, tenure: Tenure, position: Offsets, *, is_contested: bool = False
    ) -> Self:
        """Count the death that a note tells of, and begin to note; called once by each start.

        Places that lie before `position` have been passed, and are forgotten. The process from
        which a contested directory was taken is not dead: its note counts nothing. Raises
        `StateError` where `deaths.json` is not what was written.
        """
        tenure.check()
        record = Record.read(directory / _COUNTED)
        notes = [] if is_contested else list(_noted(directory / _UNDER_WAY, record.through))
        record.places.update(notes)
        condemned = record.condemn()
        record.forget(position)
        record.through = tenure.term - 1
        if record.places or record.quarantined or (directory / _COUNTED).exists():
            durable.write(directory / _COUNTED, record.to_json())
        path = directory / _UNDER_WAY
        durable.write(path, _NOTHING.ljust(2 * _SLOT_BYTES, _NOTHING))
        return cls(
            record,
            directory / _COUNTED,
            tuple((place, record.places[place]) for place in notes),
            tuple(condemned),
            tenure.term,
            os.open(path, os.O_RDWR),
        )

    def alone(self, stage: str, partition: Partition, offsets: NDArray[np.int64]) -> list[int]:
        """Return which of the clicks at `offsets` are to be taken one by one, as indexes."""
        if not self.record.places:
            return []
        is_alone = np.zeros(len(offsets), np.bool_)
        for place in self.record.places:
            if (place.stage, place.partition) == (stage, partition):
                is_alone |= (place.first <= offsets) & (offsets < place.next)
        found: list[int] = np.flatnonzero(is_alone).tolist()
        return found

    def refused(self, partition: Partition, offsets: NDArray[np.int64]) -> list[int]:
        """Return which of the clicks at `offsets` are quarantined, as indexes."""
        if not self.record.quarantined:
            return []
        quarantined = [one.offset for one in self.record.quarantined if one.partition == partition]
        found: list[int] = np.flatnonzero(np.isin(offsets, quarantined)).tolist()
        return found

    def absolve(self, partition: Partition, begin: int, log: str) -> None:
        """Forget what is known of a partition from `begin` on: its offsets are of other clicks.

        Once for each `log`, which tells what they lie in now from what they lay in before: a
        start that finds the same again must not forget the deaths since. Durable on return;
        raises `NoSpace`, and has forgotten all the same.
        """
        absolved = Absolved(partition, begin, log)
        if self.path is not None and absolved not in self.record.absolved:
            self.record.absolve(absolved)
            durable.write(self.path, self.record.to_json())

    def taken(
        self, stage: str, partition: Partition, offsets: NDArray[np.int64]
    ) -> Iterator[tuple[int, int]]:
        """Yield (begin, end) of the clicks at `offsets` to take together, each noted before.

        The note is cleared after the last; where an error or a death ends the loop, it stays.
        """
        cuts = {0, len(offsets)}
        cuts.update(cut for i in self.alone(stage, partition, offsets) for cut in (i, i + 1))
        for begin, end in pairwise(sorted(cuts)):
            self.note(stage, partition, int(offsets[begin]), int(offsets[end - 1]) + 1)
            yield begin, end
        self.clear(stage)

    def note(self, stage: str, partition: Partition, first: int, next_offset: int) -> None:
        """Note that clicks from `first` to before `next_offset` are under way."""
        if self.descriptor < 0:
            return
        fields = [self.term, partition.topic, partition.number, first, next_offset]
        self._write(stage, json.dumps(fields).encode() + _NOTHING)

    def clear(self, *stages: str) -> None:
        """Note that nothing is under way, at these stages or at any."""
        if self.descriptor >= 0:
            for stage in stages or _SLOTS:
                self._write(stage, _NOTHING)

    def close(self) -> None:
        """Release the note; what it says stays. Called once, at the end."""
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def _write(self, stage: str, line: bytes) -> None:
        with suppress(OSError):  # a full disk that wants a copy of the page stops no click
            os.pwrite(self.descriptor, line[:_SLOT_BYTES], _SLOTS[stage])


def _noted(path: Path, through: int) -> Iterable[Place]:
    """Yield what was under way in a term after `through`."""
    content = durable.read(path) or b""
    for stage, begin in _SLOTS.items():
        line = content[begin : begin + _SLOT_BYTES].partition(_NOTHING)[0]
        with suppress(ValueError):
            term, topic, number, first, end = json.loads(line)
            if term > through:
                yield Place(stage, Partition(topic, number), first, end)
