"""When to commit, build and publish; runs beside the stream, never in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from state import index, recovery
from state.checkpoint import Checkpoints
from state.errors import DamagedCheckpoint, NoSpace
from state.index import IndexSettings
from state.manifest import GenerationName
from state.offsets import Offsets
from state.publication import Publications
from state.recovery import Recovered
from state.sections import Sections
from state.versions import VersionName
from streamer.clock import Clock
from streamer.config import Config
from streamer.deadline import Deadline
from streamer.errors import NotDelivered
from streamer.publishing.beside import Beside

log = structlog.get_logger()

RETRY_SECONDS = 5.0
SLICE_SECONDS = 0.1

T = TypeVar("T")


def _nothing() -> None:
    """Do what has to be done before the commit of most cuts."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The state between two clicks, as copies that later clicks cannot touch.

    `deliver` sends the dead letters that it counts, beside the stream: they leave before the
    commit. It raises `NotDelivered`.
    """

    sections: Sections
    offsets: Offsets
    facts: dict[str, Any]
    clicks: int
    deliver: Callable[[], None] = _nothing


class Stream(Protocol):
    """What the publisher asks of the stream, on the stream's thread."""

    @property
    def clicks(self) -> int:
        """Clicks read since the space began."""

    @property
    def position(self) -> Offsets:
        """Where reading goes on; it may go on without a click."""

    @property
    def is_full(self) -> bool:
        """Whether as much as may waits for a commit, so that reading must wait, too."""

    def cut(self) -> Cut:
        """Return the state as it stands; blocks for the length of the copy."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A generation that is durable."""

    name: GenerationName
    offsets: Offsets
    clicks: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """A version that query services can open."""

    name: VersionName
    generation: GenerationName
    recall: Mapping[str, Mapping[str, float]]
    n_items: int
    clicks: int
    created_ms: int
    seconds: float


class Publisher:
    """Commits generations and publishes index versions while the stream goes on.

    `tick` and `finish` are called on the stream's thread; errors of the work beside it are
    raised there. `committed` and `published` are the newest of this process, or what it restored.
    """

    def __init__(
        self,
        config: Config,
        stream: Stream,
        checkpoints: Checkpoints,
        publications: Publications,
        clock: Clock,
    ) -> None:
        self._config = config
        self._stream = stream
        self._checkpoints = checkpoints
        self._publications = publications
        self._clock = clock
        self._writer: Beside[Committed] = Beside("livevec-writer")
        self._builder: Beside[Published] = Beside("livevec-builder")
        self._cut_at = self._built_at = clock.monotonic()
        self._cut_clicks = self._committed_clicks = stream.clicks
        self._not_before = 0.0
        self._failure: tuple[type[Exception], str] | None = None  # of the last commit; told
        self.committed: Committed | None = None
        self.published: Published | None = None
        self.on_commit: Callable[[Committed], None] = lambda committed: None
        self.on_publish: Callable[[Published], None] = lambda published: None

    def adopt(self, restored: Recovered) -> None:
        """Go on from the generation that the stream was restored from, and from its version.

        A version that was built under other settings of the index is none of ours: the next
        one is due at once. Called once, before anything else.
        """
        manifest = restored.manifest
        self.committed = Committed(restored.name, manifest.offsets, self._stream.clicks, 0.0)
        version = self._publications.newest_manifest()
        settings = self._config.index.model_dump(mode="json")
        if version is not None and manifest.settings.get("index") == settings:
            self.published = Published(
                name=VersionName(version["term"], version["number"]),
                generation=GenerationName.parse(version["generation"]),
                recall={kind: one["recall_at_10"] for kind, one in version["indexes"].items()},
                n_items=version["n_items"],
                clicks=version["facts"]["ledger"]["clicks"],
                created_ms=version["created_ms"],
                seconds=0.0,
            )

    @property
    def uncommitted(self) -> int:
        """Clicks read that a crash would have to read again."""
        return self._stream.clicks - self._committed_clicks

    @property
    def trouble(self) -> str | None:
        """Why the last commit has failed, None if it has not."""
        return None if self._failure is None else f"nothing is committed: {self._failure[1]}"

    @property
    def must_wait(self) -> bool:
        """Whether reading must pause, so that the source's retention is never outrun."""
        too_many = self.uncommitted >= self._config.checkpoint.max_uncommitted
        return too_many or self._stream.is_full

    def begin(self, *, is_new: bool) -> None:
        """Commit where the stream begins, before its first click, if the state does not say so.

        `is_new` says that the newest generation does not: the source has partitions that it does
        not name, or dead letters were rotated away. So where they began is durable: "latest" is
        not asked for twice.
        """
        if is_new or self._checkpoints.newest is None:
            cut = self._stream.cut()
            self._note_commit(self._commit(cut, self._clock.monotonic()))

    def tick(self) -> None:
        """Take what is finished, begin what is due; blocks no longer than a cut.

        That is a copy of the state, and the sync of the file of dead letters.
        """
        self._take_commit()
        self._take_build()
        if not self._writer.is_busy and self._is_commit_due():
            try:
                self._start_commit()
            except NoSpace as error:
                self._try_commit_again(error)
        if not self._builder.is_busy and self._is_build_due():
            self._start_build()

    def finish(self, deadline: Deadline, *, publish: bool, is_changed: bool = False) -> None:
        """Commit what is not committed, and publish it, before the deadline.

        `is_changed` says that the state has changed without a click since the last batch.
        Called when the stream stands still. Raises `NoSpace` when the disk is still full,
        `NotDelivered` when Kafka still does not take the dead letters.
        """
        self._take_commit(deadline)
        is_due = is_changed or self.uncommitted or self._has_moved()
        if is_due and not self._writer.is_busy:
            self._start_commit()
            committed = _outcome(self._writer, deadline)
            if committed is not None:
                self._note_commit(committed)
        if self._writer.is_busy:
            log.warning("drain_cut_short", uncommitted_clicks=self.uncommitted)
        if not publish:
            return
        self._take_build(deadline)
        newest = self._checkpoints.newest
        if not self._builder.is_busy and newest not in {None, self._published_generation()}:
            self._start_build()
            published = _outcome(self._builder, deadline)
            if published is not None:
                self._note_version(published)
        if self._builder.is_busy:
            log.warning("publishing_cut_short", generation=str(newest))

    def _is_commit_due(self) -> bool:
        settings, now = self._config.checkpoint, self._clock.monotonic()
        behind = self._stream.clicks - self._cut_clicks
        if now < self._not_before:
            return False
        if now - self._cut_at >= settings.interval_seconds or self._failure is not None:
            return behind > 0 or self._has_moved()
        if not behind:
            return False
        if self._stream.is_full or behind >= settings.every_clicks:
            return True
        return not self._builder.is_busy and self._is_version_due(self._stream.clicks)

    def _has_moved(self) -> bool:
        """Tell whether reading goes on elsewhere: aborted clicks are passed and not read."""
        return self.committed is None or self._stream.position != self.committed.offsets

    def _is_build_due(self) -> bool:
        newest = self._checkpoints.newest
        if not self._committed_clicks or newest in {None, self._published_generation()}:
            return False
        if self._clock.monotonic() < self._not_before:
            return False
        return self.published is None or self._is_version_due(self._committed_clicks)

    def _is_version_due(self, clicks: int) -> bool:
        """Return whether a generation of so many clicks would be published."""
        settings = self._config.index
        behind = clicks - (self.published.clicks if self.published else 0)
        seconds = self._clock.monotonic() - self._built_at
        return behind > 0 and (
            seconds >= settings.interval_seconds or behind >= settings.every_clicks
        )

    def _published_generation(self) -> GenerationName | None:
        return None if self.published is None else self.published.generation

    def _start_commit(self) -> None:
        started = self._clock.monotonic()
        cut = self._stream.cut()
        self._cut_at, self._cut_clicks = started, cut.clicks
        self._writer.start(lambda: self._commit(cut, started))

    def _commit(self, cut: Cut, started: float) -> Committed:
        cut.deliver()
        name = self._checkpoints.commit(
            cut.sections,
            offsets=cut.offsets,
            fingerprint=self._config.fingerprint(),
            settings=self._config.public(),
            facts=cut.facts,
            created_ms=self._clock.now_ms(),
        )
        return Committed(name, cut.offsets, cut.clicks, self._clock.monotonic() - started)

    def _take_commit(self, deadline: Deadline | None = None) -> None:
        try:
            committed = _outcome(self._writer, deadline)
        except (NoSpace, NotDelivered) as error:
            self._try_commit_again(error)
            return
        if committed is not None:
            self._note_commit(committed)

    def _try_commit_again(self, error: NoSpace | NotDelivered) -> None:
        if self._failure is None or type(error) is not self._failure[0]:  # told once
            log.error("commit_failed", error=str(error), retry_seconds=RETRY_SECONDS)
        self._failure = type(error), str(error)  # the error itself would hold the cut
        self._cut_clicks = self._committed_clicks
        self._not_before = self._clock.monotonic() + RETRY_SECONDS

    def _note_commit(self, committed: Committed) -> None:
        self.committed = committed
        self._committed_clicks = committed.clicks
        self._failure = None
        log.info(
            "generation_committed",
            generation=str(committed.name),
            clicks=committed.clicks,
            seconds=round(committed.seconds, 3),
        )
        self.on_commit(committed)

    def _start_build(self) -> None:
        self._built_at = self._clock.monotonic()
        self._builder.start(self._build)

    def _build(self) -> Published:
        started = self._clock.monotonic()
        generation = self._load_newest(self._config.store.directory)
        settings = self._config.index
        items = index.published_items(generation.sections)
        log.info("building_indexes", generation=str(generation.name), items=len(items))
        built = index.build(
            items,
            IndexSettings(
                kinds=settings.kinds,
                recall_target=settings.recall_target,
                lsh_bits=settings.lsh_bits,
                min_rows=settings.min_rows,
                seed=self._config.training.seed,
            ),
        )
        created_ms = self._clock.now_ms()
        name = self._publications.publish(generation.manifest, items, built, created_ms)
        return Published(
            name=name,
            generation=generation.name,
            recall={kind: one.recall for kind, one in built.items()},
            n_items=len(items),
            clicks=int(generation.manifest.facts["ledger"]["clicks"]),
            created_ms=created_ms,
            seconds=self._clock.monotonic() - started,
        )

    def _load_newest(self, directory: Path) -> recovery.Recovered:
        """Load the newest generation; while commits come fast, one may be collected under us."""
        while True:
            name = self._checkpoints.newest
            assert name is not None
            try:
                return recovery.load(directory, name)
            except DamagedCheckpoint:
                if name == self._checkpoints.newest:
                    raise

    def _take_build(self, deadline: Deadline | None = None) -> None:
        try:
            published = _outcome(self._builder, deadline)
        except NoSpace as error:
            log.error("publish_failed", error=str(error), retry_seconds=RETRY_SECONDS)
            self._not_before = self._clock.monotonic() + RETRY_SECONDS
            return
        if published is not None:
            self._note_version(published)

    def _note_version(self, published: Published) -> None:
        self.published = published
        log.info(
            "version_published",
            version=str(published.name),
            generation=str(published.generation),
            items=published.n_items,
            seconds=round(published.seconds, 3),
            **{
                f"recall_{kind}": round(recall["click_weighted"], 4)
                for kind, recall in published.recall.items()
            },
        )
        self.on_publish(published)


def _outcome(beside: Beside[T], deadline: Deadline | None) -> T | None:
    """Return what `beside` has done by the deadline, if there is one, and None if it goes on.

    Waits in slices, for a signal may shorten the deadline meanwhile.
    """
    while True:
        left = 0.0 if deadline is None else deadline.seconds_left()
        outcome = beside.take(min(left, SLICE_SECONDS))
        if outcome is not None or not beside.is_busy or left == 0.0:
            return outcome
