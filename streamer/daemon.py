"""startup -> step* -> drain -> close; signals; health."""

import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from kernels import policy
from kernels.sgns import train_tiles
from state.checkpoint import Checkpoints
from state.deaths import Deaths
from state.errors import StateError
from state.offsets import Offsets, Partition
from state.publication import Publications
from state.recovery import Recovered
from streamer.clock import Clock
from streamer.config import Config
from streamer.deadline import Deadline
from streamer.doubts import Doubts
from streamer.errors import BrokerUnavailable, ConfigError, StreamError
from streamer.health import Health, monitoring_app
from streamer.http import HttpServer
from streamer.metrics import DaemonMetrics
from streamer.observer import Observer
from streamer.obstacles import Obstacle, Obstacles
from streamer.pace import Pace
from streamer.pipeline import Pipeline, Start
from streamer.publishing.publisher import Committed, Publisher
from streamer.sources.contract import Claim, Source
from streamer.sources.opening import open_dead_letters
from streamer.standby import Entered, Standby, enter

log = structlog.get_logger()

POLL_SECONDS = 0.1
WAIT_SECONDS = 0.05
WAIT_FOR_BROKERS_SECONDS = 1.0
EXIT_FORCED = 1


class Daemon:
    """The stream's process: one thread reads, trains and commits; the rest runs beside it.

    `run` does everything. `stop` may be called from a signal handler or another thread. A standby
    opens the source twice: to see that it can, and when it has taken over.
    """

    _source: Source

    def __init__(  # noqa: PLR0913 - the last three are each an option of the command
        self,
        config: Config,
        open_source: Callable[[], Source],
        clock: Clock,
        *,
        generation: int | None = None,
        is_standby: bool = False,
        on_progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        self._config = config
        self._open_source = open_source
        self._close_source: Callable[[], None] = lambda: None
        self._is_standby = is_standby
        self._entered: Entered | None = None
        self._deaths = Deaths()
        self._clock = clock
        self._made_at = clock.monotonic()
        self._generation = generation
        self._on_progress = on_progress
        self._stopping = threading.Event()
        self._drained_by = Deadline(clock, float("inf"))
        self._closers: list[Callable[[], None]] = []
        self.started = threading.Event()
        self.health = Health(clock, config.metrics.stalled_seconds)
        self.metrics = DaemonMetrics(CollectorRegistry())
        self.pipeline: Pipeline | None = None
        self.publisher: Publisher | None = None

    def run(self) -> dict[str, Any]:
        """Run until the source ends or `stop`; return the summary of what was done.

        The order of a drain: stop polling, so that nothing more is accepted; the batch at hand
        is applied already; train what windows hold if the last source has ended; commit the
        generation, whose manifest is the truth; tell the outside the offsets, which must not be
        ahead of it; close the source; and stop the metrics last, so that the drain is seen.

        After an error nothing is committed. A standby that is told to stop while it waits has
        done nothing, and says so.
        """
        try:
            started = self._start()
            if started is None:
                return {"clicks": 0, "stood_by": True}
            pipeline, publisher = started
            before, began = pipeline.clicks, self._clock.monotonic()
            is_exhausted = self._loop(pipeline, publisher)
            speed = (pipeline.clicks - before) / max(self._clock.monotonic() - began, 1e-9)
            summary = self._drain(pipeline, publisher, is_exhausted=is_exhausted)
            return {**summary, "clicks_per_second": round(speed)}
        except (StateError, StreamError):
            self._deaths.clear()  # it is no click that ends the process
            if self._entered is not None:
                self._entered.renewal.look()  # what a superseded process meets has one cause
            raise
        finally:
            self._close()

    def stop(self) -> None:
        """Let the stream come to its end after the batch at hand, and soon. Idempotent."""
        self._stopping.set()
        self._drained_by.shorten_to(self._config.checkpoint.drain_seconds)

    def _start(self) -> tuple[Pipeline, Publisher] | None:
        config = self._config
        self._open()
        if config.metrics.is_enabled:
            app = monitoring_app(self.metrics.registry, self.health)
            server = HttpServer(app, config.metrics.host, config.metrics.port, "metrics.port")
            server.start()
            self._closers.append(server.stop)
            log.info("metrics_listening", address=server.address)
        started = self._clock.monotonic()
        train_tiles(config.training.dim)  # so that it is among what is compiled
        n_kernels = policy.compile_all(self._on_progress)
        seconds = round(self._clock.monotonic() - started, 3)
        log.info("kernels_compiled", kernels=n_kernels, seconds=seconds)
        self._entered = self._enter()
        if self._entered is None:
            return None
        pipeline, publisher = self._restore(self._entered)
        self._source.seek(pipeline.offsets, pipeline.marks())
        publisher.begin(is_new=pipeline.begin_at(self._source))
        self.pipeline, self.publisher = pipeline, publisher
        self.health.ready()
        self.started.set()
        return pipeline, publisher

    def _open(self) -> None:
        self._source = self._open_source()
        self._close_source = self._source.close

    def _enter(self) -> Entered | None:
        """Take the directory, as a standby when it may be taken; None when told to stop before."""
        config, standby = self._config, None
        if self._is_standby:
            self._close_source()
            standby = Standby(
                config.store.directory,
                config.store.lease_seconds,
                self._clock,
                self._stopping.is_set,
                self._on_wait,
            )
        entered = enter(config, self._generation, standby)
        if entered is not None:
            self._closers.append(entered.leave)
            if self._is_standby:
                self.metrics.state.standby.set(0)
                self.health.not_ready("starting")
                return entered if self._open_patiently() else None
        return entered

    def _open_patiently(self) -> bool:
        """Open the source; brokers may be away with whom we follow. False when told to stop."""
        is_told = False
        while not self._stopping.is_set():
            try:
                self._open()
            except BrokerUnavailable as error:
                if not is_told:
                    log.warning("broker_away", reason=str(error))
                is_told = True
                self.health.not_ready(str(error))
                self._stopping.wait(WAIT_FOR_BROKERS_SECONDS)
            else:
                return True
        return False

    def _on_wait(self, term: int) -> None:
        directory = str(self._config.store.directory)
        self.metrics.state.standby.set(1)
        self.health.not_ready(f"standing by: term {term} has {directory!r}")
        log.info("standing_by", term=term, directory=directory)

    def _restore(self, entered: Entered) -> tuple[Pipeline, Publisher]:
        """Take over what the newest generation holds, or start a new space."""
        config, directory = self._config, self._config.store.directory
        found, tenure = entered.found, entered.tenure
        for note in found.notes if found else ():
            log.warning("generation_passed_over", reason=note)
        name = found.name if found else None
        checkpoints = Checkpoints(directory, tenure, config.checkpoint.retain)
        checkpoints.adopt(found)
        publications = Publications(config.published, tenure, config.index.retain)
        publications.adopt(name)
        pipeline = self._build(entered)
        log.info(
            "restored" if found else "started_afresh",
            term=tenure.term,
            generation=str(name) if name else None,
            space_id=pipeline.store.space_id,
            clicks=pipeline.clicks,
            items=len(pipeline.store),
            position=[f"{partition}:{at}" for partition, at in pipeline.offsets.items()],
        )
        publisher = Publisher(config, pipeline, checkpoints, publications, self._clock)
        observer = Observer(self.metrics, pipeline, self._clock)
        if found:
            publisher.adopt(found)
            observer.restored(publisher, found.manifest.created_ms)
        self._source.claim(
            Claim(pipeline.store.space_id, tenure, is_fresh=found is None, deaths=self._deaths)
        )
        publisher.on_commit = lambda one: self._on_commit(observer, one)
        publisher.on_publish = observer.version
        self.metrics.state.term.set(tenure.term)
        self._observer = observer
        return pipeline, publisher

    def _build(self, entered: Entered) -> Pipeline:
        found = entered.found
        letters = open_dead_letters(self._config, self._clock)
        self._closers.append(letters.close)
        entered.tenure.check()  # so what was opened is not the file of a newer term
        letters.truncate_to(
            found.manifest.facts["dead_letters_bytes"] if found else 0,
            is_contested=entered.hold.is_contested,
        )
        self._deaths = self._begin_deaths(entered)
        start = Start(
            found.sections if found else {},
            found.manifest.offsets if found else Offsets(),
            uuid.uuid4().hex,
            _marks(found),
        )
        try:
            return Pipeline(self._config, letters, self._clock, start, self._deaths)
        except MemoryError as error:
            store = self._config.store
            msg = f"store.max_items: {store.max_items} rows do not fit in memory: {error}"
            raise ConfigError(msg) from error

    def _begin_deaths(self, entered: Entered) -> Deaths:
        """Count the death before this start, if there was one, and note from now on."""
        found = entered.found
        deaths = Deaths.begin(
            self._config.store.directory,
            entered.tenure,
            found.manifest.offsets if found else Offsets(),
            is_contested=entered.hold.is_contested,
        )
        self._closers.append(deaths.close)
        for place, n in deaths.counted:
            log.warning(
                "died_before",
                stage=place.stage,
                partition=str(place.partition),
                first=place.first,
                next=place.next,
                deaths=n,
            )
        for one in deaths.condemned:
            log.error("click_quarantined", partition=str(one.partition), offset=one.offset)
        return deaths

    def _loop(self, pipeline: Pipeline, publisher: Publisher) -> bool:
        """Step until told to stop; return whether the source has ended."""
        pace = Pace(self._clock, self._config.source.max_clicks_per_second)
        doubts = Doubts(pipeline, self._clock, self._config.clicks.time_unit)
        assert self._entered is not None
        renewal = self._entered.renewal
        log.info("polling", seconds=round(self._clock.monotonic() - self._made_at, 3))
        obstacles = Obstacles(self.health, self._clock)
        while not self._stopping.is_set():
            self.health.turn()
            renewal.check()
            publisher.tick()
            n_read = 0
            if self._must_wait(pipeline, publisher, obstacles):
                self._clock.sleep(WAIT_SECONDS)
                pipeline.wait(self._source)
            else:
                n_read = pipeline.step(self._source, POLL_SECONDS, pace.allowance())
                pace.took(n_read)
            trouble = self._source.trouble()
            obstacles.note(Obstacle.COMMIT, publisher.trouble)
            obstacles.note(Obstacle.BROKER, trouble)
            self._observer.batch(publisher, is_broker_up=trouble is None)
            doubts.look()
            if n_read == 0 and self._source.is_exhausted():
                return True
        return False

    def _must_wait(self, pipeline: Pipeline, publisher: Publisher, obstacles: Obstacles) -> bool:
        """Pause reading while too much is not durable, so that retention is never outrun."""
        if not publisher.must_wait:
            self._source.resume()
            obstacles.note(Obstacle.UNCOMMITTED, None)
            return False
        self._source.pause()
        n = publisher.uncommitted
        reason = f"{n} clicks are not yet durable; reading is paused"
        if pipeline.is_full:
            letters = pipeline.dead_letters
            reason = f"{letters.n_waiting} dead letters wait for {letters.where}, and {reason}"
        obstacles.note(Obstacle.UNCOMMITTED, reason)
        return True

    def _drain(
        self, pipeline: Pipeline, publisher: Publisher, *, is_exhausted: bool
    ) -> dict[str, Any]:
        self.health.not_ready("draining")
        log.info("draining", reason="the source has ended" if is_exhausted else "told to stop")
        n_closed = 0
        if is_exhausted:
            pipeline.refuse_if_nothing_was_usable()
            n_closed = pipeline.finish()
        assert pipeline.missing == 0, f"{pipeline.missing} clicks are nowhere"
        publisher.finish(self._drained_by, publish=is_exhausted, is_changed=n_closed > 0)
        self._observer.batch(publisher, is_broker_up=self._source.trouble() is None)
        summary = summary_of(pipeline, publisher)
        if summary["dead_lettered"]:
            log.warning(
                "dead_letters",
                **summary["dead_lettered_by_reason"],
                where=pipeline.dead_letters.where,
            )
        log.info("drained", **summary)
        return summary

    def _on_commit(self, observer: Observer, committed: Committed) -> None:
        self._source.publish_position(committed.offsets)
        observer.commit(committed)

    def _close(self) -> None:
        """Release everything, the source first and the metrics last; an error stops none of it."""
        for close in [self._close_source, *reversed(self._closers)]:
            try:
                close()
            except Exception:  # closing goes on
                log.exception("close_failed")
        self._closers.clear()


def _marks(found: Recovered | None) -> dict[Partition, str]:
    """Return what the manifest holds of marks; one that was written before there were any, none."""
    rows = found.manifest.facts.get("marks", []) if found else []
    return {Partition(topic, number): mark for topic, number, mark in rows}


def summary_of(pipeline: Pipeline, publisher: Publisher) -> dict[str, Any]:
    """Return what has been done, as summaries print it."""
    committed, published = publisher.committed, publisher.published
    recall = (
        {kind: round(one["click_weighted"], 4) for kind, one in published.recall.items()}
        if published
        else {}
    )
    return {
        **pipeline.ledger.counts(pipeline.windows.held),
        "items": len(pipeline.store),
        "generation": str(committed.name) if committed else None,
        "index_version": str(published.name) if published else None,
        "recall_at_10": recall,
    }


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT; exit with 1 at once at the second."""
    heard = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        if heard.is_set():
            sys.stderr.write("forced by a second signal\n")
            sys.stderr.flush()
            os._exit(EXIT_FORCED)
        heard.set()
        stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
