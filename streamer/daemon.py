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
from state import lease, recovery
from state.checkpoint import Checkpoints
from state.offsets import Offsets, Partition
from state.publication import Publications
from state.recovery import Recovered
from streamer.clock import Clock
from streamer.config import Config
from streamer.deadline import Deadline
from streamer.doubts import Doubts
from streamer.errors import ConfigError
from streamer.health import Health, monitoring_app
from streamer.http import HttpServer
from streamer.metrics import DaemonMetrics
from streamer.observer import Observer
from streamer.pace import Pace
from streamer.pipeline import Pipeline, Start
from streamer.publishing.publisher import Committed, Publisher
from streamer.sources.contract import Source
from streamer.sources.opening import open_dead_letters

log = structlog.get_logger()

POLL_SECONDS = 0.1
WAIT_SECONDS = 0.05
EXIT_FORCED = 1


class Daemon:
    """The stream's process: one thread reads, trains and commits; the rest runs beside it.

    `run` does everything. `stop` may be called from a signal handler or another thread.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        clock: Clock,
        *,
        generation: int | None = None,
        on_progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        self._config = config
        self._source = source
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
        is applied already; close the windows if the last source has ended; commit the
        generation, whose manifest is the truth; tell the outside the offsets, which must not be
        ahead of it; close the source; and stop the metrics last, so that the drain is seen.

        After an error nothing is committed.
        """
        try:
            pipeline, publisher = self._start()
            before, began = pipeline.clicks, self._clock.monotonic()
            is_exhausted = self._loop(pipeline, publisher)
            speed = (pipeline.clicks - before) / max(self._clock.monotonic() - began, 1e-9)
            summary = self._drain(pipeline, publisher, is_exhausted=is_exhausted)
            return {**summary, "clicks_per_second": round(speed)}
        finally:
            self._close()

    def stop(self) -> None:
        """Let the stream come to its end after the batch at hand, and soon. Idempotent."""
        self._stopping.set()
        self._drained_by.shorten_to(self._config.checkpoint.drain_seconds)

    def _start(self) -> tuple[Pipeline, Publisher]:
        config = self._config
        if config.metrics.is_enabled:
            app = monitoring_app(self.metrics.registry, self.health)
            server = HttpServer(app, config.metrics.host, config.metrics.port, "metrics.port")
            server.start()
            self._closers.append(server.stop)
            log.info("metrics_listening", address=server.address)
        started = self._clock.monotonic()
        n_kernels = policy.compile_all(self._on_progress)
        seconds = round(self._clock.monotonic() - started, 3)
        log.info("kernels_compiled", kernels=n_kernels, seconds=seconds)
        pipeline, publisher = self._restore()
        self._source.seek(pipeline.offsets, pipeline.marks)
        is_new = pipeline.begin_at(self._source.position(), self._source.partitions())
        publisher.begin(is_new=is_new)
        self.pipeline, self.publisher = pipeline, publisher
        self.health.ready()
        self.started.set()
        return pipeline, publisher

    def _restore(self) -> tuple[Pipeline, Publisher]:
        """Take the directory, restore the newest generation or start a new space, begin a term."""
        config, directory = self._config, self._config.store.directory
        hold = lease.hold(directory)
        self._closers.append(hold.release)
        found = recovery.newest(directory, config.fingerprint(), self._generation)
        for note in found.notes if found else ():
            log.warning("generation_passed_over", reason=note)
        name = found.name if found else None
        tenure = hold.begin_term(name)
        checkpoints = Checkpoints(directory, tenure, config.checkpoint.retain)
        checkpoints.adopt(found)
        publications = Publications(config.published, tenure, config.index.retain)
        publications.adopt(name)
        pipeline = self._build(found)
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
        observer = Observer(self.metrics, pipeline)
        if found:
            publisher.adopt(found)
            observer.restored(publisher, found.manifest.created_ms)
        publisher.on_commit = lambda one: self._on_commit(observer, one, tenure.term)
        publisher.on_publish = observer.version
        self.metrics.term.set(tenure.term)
        self._observer = observer
        return pipeline, publisher

    def _build(self, found: Recovered | None) -> Pipeline:
        n_bytes = found.manifest.facts["dead_letters_bytes"] if found else 0
        letters = open_dead_letters(self._config, self._clock, n_bytes)
        self._closers.append(letters.close)
        start = Start(
            found.sections if found else {},
            found.manifest.offsets if found else Offsets(),
            uuid.uuid4().hex,
            _marks(found),
        )
        try:
            return Pipeline(self._config, letters, self._clock, start)
        except MemoryError as error:
            store = self._config.store
            msg = f"store.max_items: {store.max_items} rows do not fit in memory: {error}"
            raise ConfigError(msg) from error

    def _loop(self, pipeline: Pipeline, publisher: Publisher) -> bool:
        """Step until told to stop; return whether the source has ended."""
        pace = Pace(self._clock, self._config.source.max_clicks_per_second)
        doubts = Doubts(pipeline, self._clock, self._config.clicks.time_unit)
        log.info("polling", seconds=round(self._clock.monotonic() - self._made_at, 3))
        is_waiting = False
        while not self._stopping.is_set():
            self.health.turn()
            publisher.tick()
            if publisher.must_wait != is_waiting:
                is_waiting = publisher.must_wait
                self._wait_or_go_on(is_waiting, publisher.uncommitted)
            if is_waiting:
                self._clock.sleep(WAIT_SECONDS)
                continue
            n_read = pipeline.step(self._source, POLL_SECONDS, pace.allowance())
            pace.took(n_read)
            self._observer.batch(publisher, self._source.lag().clicks)
            doubts.look()
            if n_read == 0 and self._source.is_exhausted():
                return True
        return False

    def _wait_or_go_on(self, is_waiting: bool, uncommitted: int) -> None:
        """Pause reading while too much is not durable, so that retention is never outrun."""
        if is_waiting:
            self._source.pause()
            self.health.not_ready(f"{uncommitted} clicks are not yet durable; reading is paused")
            log.warning("reading_paused", uncommitted_clicks=uncommitted)
        else:
            self._source.resume()
            self.health.ready()
            log.info("reading_resumed")

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
        self._observer.batch(publisher, self._source.lag().clicks)
        summary = summary_of(pipeline, publisher)
        if summary["dead_lettered"]:
            log.warning(
                "dead_letters",
                **summary["dead_lettered_by_reason"],
                where=pipeline.dead_letters.where,
            )
        log.info("drained", **summary)
        return summary

    def _on_commit(self, observer: Observer, committed: Committed, term: int) -> None:
        self._source.publish_position(committed.offsets, term)
        observer.commit(committed, self._clock.now_ms())

    def _close(self) -> None:
        """Release everything, the source first and the metrics last; an error stops none of it."""
        for close in [self._source.close, *reversed(self._closers)]:
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
