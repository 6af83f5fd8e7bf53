"""The stages composed; `step()` advances them once and returns what it did."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kernels import sessions as fate
from kernels.sessions import Arrivals
from kernels.tiles import Tiles
from kernels.vocabulary import COLLISION, FULL, Ids
from state.offsets import Offsets, Partition
from state.sections import Section, Sections
from state.store import Store, StoreSettings
from streamer.clock import Clock
from streamer.config import Config
from streamer.ledger import Ledger
from streamer.publishing.publisher import Cut
from streamer.sources.clicks import ClickBatch, DeadLetter
from streamer.sources.contract import Source
from streamer.sources.dead_letters import DeadLetterQueue
from streamer.training.trainer import Trainer
from streamer.windows.sessions import SessionWindows
from streamer.windows.watermark import Watermarks

# One batch is about 0.1 s of training: long enough to hide its fixed cost, short enough that a
# signal, a commit or a poll is never far away.
MAX_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class Start:
    """Where a pipeline begins: a generation's sections and offsets, or none and a new space.

    `marks` say what lay before the offsets, as far as their sources know.
    """

    sections: Sections
    offsets: Offsets
    space_id: str
    marks: Mapping[Partition, str] = field(default_factory=dict)


class Pipeline:
    """Clicks from a source through windows and training into a store.

    Built from the sections of a generation; from none, it is the start of a new space
    (resume-is-start). Everything happens on the calling thread.
    """

    def __init__(
        self,
        config: Config,
        dead_letters: DeadLetterQueue,
        clock: Clock,
        start: Start,
    ) -> None:
        self._config = config
        self._dead_letters = dead_letters
        self._clock = clock
        self.offsets = start.offsets
        self.marks = start.marks
        sections = start.sections
        self.store = Store(_store_settings(config), sections, start.space_id)
        self.ledger = Ledger(sections.get("ledger", Section()))
        self.watermarks = Watermarks(sections.get("watermarks", Section()))
        self.windows = SessionWindows(
            config.sessions,
            config.training.window,
            self.watermarks,
            sections.get("windows", Section()),
        )
        self._trainer = Trainer(config.training, self.store)
        self._ended: set[Partition] = set()
        self.last_read: Partition | None = None

    @property
    def clicks(self) -> int:
        """Clicks read since the space began."""
        return self.ledger.read

    @property
    def dead_letters(self) -> DeadLetterQueue:
        """Where unusable clicks go."""
        return self._dead_letters

    @property
    def is_full(self) -> bool:
        """Whether so many dead letters wait for a commit that reading must, too."""
        return self._dead_letters.is_full

    @property
    def missing(self) -> int:
        """Clicks that were read and are nowhere; anything but 0 is a bug (nothing-vanishes)."""
        return self.ledger.missing(self.windows.held)

    def step(self, source: Source, timeout_seconds: float, max_clicks: int = MAX_BATCH) -> int:
        """Poll once and apply what came; return the number of records read.

        Blocks for at most the timeout and the training of one batch. After an error nothing of
        this object may be committed.
        """
        batch = source.poll(timeout_seconds, max_clicks)
        self.marks = {**self.marks, **source.marks()}
        now = self._clock.monotonic()
        quiet = [p for p in source.caught_up() if batch is None or p != batch.partition]
        self.watermarks.idle_for(quiet, now, self._config.sessions.idle_timeout_seconds)
        if batch is None:
            return 0
        ended = set(source.ended()) - self._ended - {batch.partition}
        self.watermarks.declare_idle(ended)
        self._ended |= ended
        self.apply(batch)
        return batch.n_read

    def apply(self, batch: ClickBatch) -> None:
        """Apply one batch: count it, place its clicks, train their tiles, advance the offsets.

        Raises `DeadLetterLimit` when too many clicks were unusable.
        """
        self.ledger.read += batch.n_read
        self._bury(batch.dead_letters)
        for reason, n in batch.filtered.items():
            self.ledger.filter(reason, n)
        partition = self.watermarks.index_of(batch.partition)
        self.last_read = batch.partition
        ids = Ids(batch.item_keys, batch.item_starts, batch.item_lengths, batch.buffer)
        begin = 0
        while begin < len(batch):
            begin += self._apply_from(batch, ids, partition, begin)
        self.offsets = self.offsets.advance(batch.partition, batch.next_offset)

    def begin_at(self, position: Offsets, partitions: Iterable[Partition]) -> bool:
        """Take over where the source stands; return whether the newest generation says otherwise.

        It does where the source has new partitions, and where dead letters were rotated away.
        Partitions that the source no longer has are idle: nothing of them will come, and others
        must not wait for them.
        """
        is_new = any(partition not in self.offsets for partition in position)
        self.offsets = Offsets({**self.offsets, **position})
        self.watermarks.declare_idle(set(self.watermarks.partitions) - set(partitions))
        return is_new or self._dead_letters.is_rotated

    def refuse_if_nothing_was_usable(self) -> None:
        """Raise `DeadLetterLimit` if all that was ever read has become dead letters."""
        n_dead = self.ledger.dead_lettered.total()
        if n_dead and n_dead == self.ledger.read:
            self._dead_letters.refuse(n_dead, self.ledger.read)

    def finish(self) -> int:
        """Close every window, as the end of the last source does; return how many there were.

        Nothing is held any more. Watermarks stay where they are, so that clicks which are
        appended later are not late.
        """
        n_open = len(self.windows)
        for span in self.windows.close_all():
            self._train(span.tiles)
        return n_open

    def cut(self) -> Cut:
        """Return copies of the whole state between two clicks (together).

        Raises `NoSpace` when dead letters cannot be written.
        """
        dead_letters_bytes = self._dead_letters.sync()
        disorder_ms = round(self._config.sessions.out_of_orderness_seconds * 1000)
        sections = {
            **self.store.snapshot(),
            "ledger": self.ledger.snapshot(),
            "watermarks": self.watermarks.snapshot(),
            "windows": self.windows.snapshot(),
        }
        facts = {
            "space_id": self.store.space_id,
            "accepted": self.store.accepted,
            "items": len(self.store),
            "ledger": self.ledger.counts(self.windows.held),
            "event_times_ms": [
                [partition.topic, partition.number, watermark + disorder_ms]
                for partition, watermark in self.watermarks.event_times_ms().items()
            ],
            "dead_letters_bytes": dead_letters_bytes,
            "marks": [[p.topic, p.number, mark] for p, mark in self.marks.items()],
        }
        return Cut(sections, self.offsets, facts, self.clicks, self._dead_letters.deliver)

    def _apply_from(self, batch: ClickBatch, ids: Ids, partition: int, begin: int) -> int:
        """Apply the clicks from `begin` on for which there surely is room; return how many."""
        rest = _slice(ids, slice(begin, None))
        rows = self.store.vocabulary.look_up(rest)
        n = self.store.vocabulary.room_for(rest, rows)
        rows, taken = rows[:n], slice(begin, begin + n)
        arrivals = Arrivals(
            batch.session_keys[taken],
            batch.item_keys[taken],
            batch.event_times_ms[taken],
            batch.offsets[taken],
            batch.weights[taken],
            is_refused=((rows == COLLISION) | (rows == FULL)).view(np.uint8),
        )
        fates = np.empty(n, np.uint8)
        for span in self.windows.arrive(arrivals, partition, fates):
            here = slice(span.begin, span.end)
            self._settle(batch, ids, begin + span.begin, rows[here], fates[here])
            self._train(span.tiles)
        return n

    def _settle(
        self,
        batch: ClickBatch,
        ids: Ids,
        begin: int,
        rows: NDArray[np.int64],
        fates: NDArray[np.uint8],
    ) -> None:
        """Give the items of accepted clicks their rows; count and bury the others.

        `rows` and `fates` are those of the clicks from `begin` on.
        """
        refused = rows[fates == fate.REFUSED]
        self.ledger.filter("hash_collision", int((refused == COLLISION).sum()))
        self.ledger.filter("store_full", int((refused == FULL).sum()))
        self.ledger.filter("late", int((fates == fate.LATE).sum()))
        self.ledger.filter("bot", int((fates == fate.BOT).sum()))
        future = begin + np.flatnonzero(fates == fate.FUTURE)
        self._bury([self._future(batch, int(click)) for click in future])
        accepted = begin + np.flatnonzero((fates == fate.ACCEPTED) | (fates == fate.REPEAT))
        self._trainer.admit(_slice(ids, accepted))

    def _train(self, tiles: Tiles) -> None:
        self.ledger.pairs += self._trainer.train(tiles, self.watermarks.keys)
        self.ledger.applied += int(tiles.used[0])

    def _bury(self, letters: Iterable[DeadLetter]) -> None:
        letters = list(letters)
        if not letters:
            return
        self._dead_letters.append(letters)
        self.ledger.dead_lettered.update(letter.reason for letter in letters)
        self._dead_letters.check(self.ledger.dead_lettered.total(), self.ledger.read)

    def _future(self, batch: ClickBatch, click: int) -> DeadLetter:
        start = batch.record_starts[click]
        limit = self._config.sessions.max_jump_seconds
        return DeadLetter(
            batch.partition,
            int(batch.offsets[click]),
            "future",
            f"event time {batch.event_times_ms[click]} is over {limit:.0f} s ahead of its partition"
            "; put a file into the order of time, and where a stream really pauses for so long, "
            "raise sessions.max_jump_seconds",
            batch.buffer[start : start + batch.record_lengths[click]].tobytes(),
            batch.key_at(int(batch.offsets[click])),
        )


def _slice(ids: Ids, which: slice | NDArray[np.intp]) -> Ids:
    return Ids(ids.keys[which], ids.starts[which], ids.lengths[which], ids.data)


def _store_settings(config: Config) -> StoreSettings:
    return StoreSettings(
        dim=config.training.dim,
        max_items=config.store.max_items,
        n_shards=config.store.n_shards,
        seed=config.training.seed,
        noise_table_size=config.training.noise_table_size,
        half_lives=config.training.popularity_half_lives,
    )
