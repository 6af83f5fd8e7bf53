"""The stages composed; `step()` advances them once and returns what it did."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kernels import sessions as fate
from kernels.sessions import Arrivals
from kernels.tiles import Tiles
from kernels.vocabulary import COLLISION, FULL, Ids
from state.deaths import APPLYING, Deaths
from state.offsets import Offsets, Partition
from state.sections import Section, Sections
from state.store import Store, StoreSettings
from streamer.clock import Clock
from streamer.config import Config
from streamer.ledger import Ledger
from streamer.publishing.publisher import Cut
from streamer.sources.clicks import ClickBatch, DeadLetter
from streamer.sources.contract import Lag, Source
from streamer.sources.dead_letters import DeadLetterQueue
from streamer.training.live_quality import LiveQuality
from streamer.training.pairs import TrainedPairs
from streamer.training.trainer import Examiner, Together, Trainer, memory_settings
from streamer.windows.alignment import Alignment
from streamer.windows.event_ids import EventIds
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
        deaths: Deaths | None = None,
    ) -> None:
        self._config = config
        self._deaths = deaths or Deaths()
        self._dead_letters = dead_letters
        self._clock = clock
        self.offsets = start.offsets
        self._marks = start.marks
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
        event_ids = sections.get("event_ids", Section())
        self.event_ids = EventIds(config.clicks.max_event_ids, event_ids)
        self.pairs = TrainedPairs(
            self.watermarks,
            sections.get("pairs", Section()),
            is_audited=config.training.audit,
        )
        self.quality = LiveQuality(
            self.store,
            config.serving.session_decay,
            config.training.seed,
            sections.get("quality", Section()),
        )
        self._trainer = Trainer(config.training, self.store, self.pairs, self.quality)
        self._alignment = Alignment(config.source.max_ahead_seconds)
        self._lost_before = Counter(self.ledger.lost)
        self._source: Source | None = None
        self._ended: set[Partition] = set()
        self.last_read: Partition | None = None
        self.lag = Lag(None)
        self.poll_seconds: float | None = None
        self.batch_seconds: float | None = None

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

    def examine_with(self, examiner: Examiner) -> None:
        """Let clicks be looked at before they are trained, beside the sample of live quality."""
        self._trainer.examiner = Together(self.quality, examiner)

    def step(self, source: Source, timeout_seconds: float, max_clicks: int = MAX_BATCH) -> int:
        """Poll once and apply what came; return the number of records read.

        Blocks for at most the timeout and the training of one batch. After an error nothing of
        this object may be committed.
        """
        self._source = source
        n = self._align(source, max_clicks)
        begun = self._clock.monotonic()
        batch = source.poll(timeout_seconds, n)
        self._count_losses(source)
        now = self._clock.monotonic()
        self.poll_seconds, self.batch_seconds = now - begun, None
        quiet = [p for p in source.caught_up() if batch is None or p != batch.partition]
        self.watermarks.idle_for(quiet, now, self._config.sessions.idle_timeout_seconds)
        if batch is None:
            return 0
        ended = set(source.ended()) - self._ended - {batch.partition}
        self.watermarks.declare_idle(ended)
        self._ended |= ended
        before = self.watermarks.event_time_ms(batch.partition)
        self.apply(batch)
        self.batch_seconds = self._clock.monotonic() - now
        after = self.watermarks.event_time_ms(batch.partition)
        if before is not None and after is not None:
            self._alignment.took(batch.n_read, after - before)
        return batch.n_read

    def wait(self, source: Source) -> None:
        """Look how far the source is behind, without reading; instead of a step."""
        self.lag = source.lag()
        self.poll_seconds = self.batch_seconds = None

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
        for begin, end in self._deaths.taken(APPLYING, batch.partition, batch.offsets):
            done = begin
            while done < end:
                done += self._apply_from(batch, _slice(ids, slice(done, end)), partition, done)
        # Not always on: a topic may have been made anew, or its log cut back (see the policies).
        self.offsets = Offsets({**self.offsets, batch.partition: batch.next_offset})

    def begin_at(self, source: Source) -> bool:
        """Take over where the source stands; return whether the newest generation says otherwise.

        It does where the source has new partitions or goes on elsewhere, and where dead letters
        were rotated away. Partitions that the source no longer has are idle: nothing of them will
        come, and others must not wait for them.
        """
        before, self._source = self.offsets, source
        self.offsets = Offsets({**before, **source.position()})
        self._count_losses(source)
        self.watermarks.declare_idle(set(self.watermarks.partitions) - set(source.partitions()))
        return self.offsets != before or self._dead_letters.is_rotated

    def refuse_if_nothing_was_usable(self) -> None:
        """Raise `DeadLetterLimit` if all that was ever read has become dead letters."""
        n_dead = self.ledger.dead_lettered.total()
        if n_dead and n_dead == self.ledger.read:
            self._dead_letters.refuse(n_dead, self.ledger.read)

    def finish(self) -> int:
        """Train what is held, as the end of the last source does; return how many windows closed.

        Under early emission nothing is held: windows stay open, and what comes later, in a file
        that has grown or from another source, goes on with their sessions. Otherwise every window
        closes. Watermarks stay where they are, so that what comes later is not late.
        """
        if self._config.sessions.emission == "early":
            return 0
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
            "event_ids": self.event_ids.snapshot(),
            "pairs": self.pairs.snapshot(),
            "quality": self.quality.snapshot(),
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
            "pairs": self.pairs.by_partition(),
            "dead_letters_bytes": dead_letters_bytes,
            "marks": [[p.topic, p.number, mark] for p, mark in self.marks().items()],
        }
        return Cut(sections, self.position, facts, self.clicks, self._dead_letters.deliver)

    def marks(self) -> Mapping[Partition, str]:
        """Return what identifies the content before each position, of all sources ever read."""
        return {**self._marks, **(self._source.marks() if self._source is not None else {})}

    @property
    def position(self) -> Offsets:
        """Where reading goes on: a source may have moved where nothing could be read."""
        if self._source is None:
            return self.offsets
        return Offsets({**self.offsets, **self._source.position()})

    def _align(self, source: Source, max_clicks: int) -> int:
        """Let partitions that run ahead wait; return how many clicks to read at most."""
        self.lag = source.lag()
        times = {p: self.watermarks.event_time_ms(p) for p in self.lag.by_partition}
        now = self._clock.monotonic()
        ahead = self._alignment.ahead(times, self.offsets, self.lag.is_readable, now)
        source.hold_back(ahead)
        return self._alignment.max_clicks(max_clicks)

    def _count_losses(self, source: Source) -> None:
        self.ledger.lost = self._lost_before + Counter(source.losses())

    def _apply_from(self, batch: ClickBatch, rest: Ids, partition: int, begin: int) -> int:
        """Apply those of `rest`, the clicks from `begin` on, for which there surely is room.

        Returns how many.
        """
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
            event_keys=batch.event_keys[taken],
        )
        seen = self.event_ids.with_room(arrivals.event_keys)
        fates = np.empty(n, np.uint8)
        for span in self.windows.arrive(arrivals, partition, seen, fates):
            here = slice(span.begin, span.end)
            self._settle(batch, _slice(rest, here), begin + span.begin, rows[here], fates[here])
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

        `ids`, `rows` and `fates` are those of the clicks from `begin` on.
        """
        refused = rows[fates == fate.REFUSED]
        self.ledger.filter("hash_collision", int((refused == COLLISION).sum()))
        self.ledger.filter("store_full", int((refused == FULL).sum()))
        self.ledger.filter("late", int((fates == fate.LATE).sum()))
        self.ledger.filter("bot", int((fates == fate.BOT).sum()))
        self.ledger.filter("duplicate", int((fates == fate.DUPLICATE).sum()))
        future = begin + np.flatnonzero(fates == fate.FUTURE)
        self._bury([self._future(batch, int(click)) for click in future])
        accepted = np.flatnonzero((fates == fate.ACCEPTED) | (fates == fate.REPEAT))
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
        limit = self._config.sessions.max_jump_seconds
        return batch.dead_letter(
            click,
            "future",
            f"event time {batch.event_times_ms[click]} is over {limit:.0f} s ahead of its partition"
            "; put a file into the order of time, and where a stream really pauses for so long, "
            "raise sessions.max_jump_seconds",
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
        memory=memory_settings(config.training, config.store),
    )
