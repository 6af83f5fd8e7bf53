"""What the daemon's metrics say of a batch, a commit and a version."""

from prometheus_client import Counter

from state.offsets import Partition
from streamer.clock import Clock
from streamer.metrics import DaemonMetrics
from streamer.pipeline import Pipeline
from streamer.publishing.publisher import Committed, Published, Publisher

LOOK_SECONDS = 1.0


class Observer:
    """Carries counts of the space over to counters of this process.

    What a restored generation has counted already is not counted again.
    """

    def __init__(self, metrics: DaemonMetrics, pipeline: Pipeline, clock: Clock) -> None:
        self._metrics = metrics
        self._pipeline = pipeline
        self._clock = clock
        self._looked_at = -LOOK_SECONDS
        self._seen = {(name, label): n for _, name, label, n in self._totals()}

    def batch(self, publisher: Publisher, *, is_broker_up: bool) -> None:
        """Take over the counts after a batch; those of every partition once a second."""
        metrics, pipeline = self._metrics, self._pipeline
        for counter, name, label, total in self._totals():
            counter.inc(total - self._seen.get((name, label), 0))
            self._seen[name, label] = total
        metrics.clicks_held.set(pipeline.windows.held)
        metrics.dead_letters.waiting.set(pipeline.dead_letters.n_waiting)
        metrics.items.set(len(pipeline.store))
        metrics.max_items.set(pipeline.store.settings.max_items)
        metrics.windows_open.set(len(pipeline.windows))
        metrics.quality_scored.set(pipeline.quality.n_scored)
        metrics.state.uncommitted.set(publisher.uncommitted)
        metrics.source.broker_up.set(is_broker_up)
        if pipeline.poll_seconds is not None:
            metrics.source.poll_seconds.observe(pipeline.poll_seconds)
        if pipeline.batch_seconds is not None:
            metrics.batch_seconds.observe(pipeline.batch_seconds)
        if pipeline.lag.clicks is not None:
            metrics.source.lag.set(pipeline.lag.clicks)
        if pipeline.last_read is not None:
            self._set_watermark(pipeline.last_read)
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._set_lag_by_partition()
            self._set_quality()

    def restored(self, publisher: Publisher, committed_ms: int) -> None:
        """Take over the generation and the version that a start goes on from."""
        if publisher.committed is not None:
            self._set_generation(publisher.committed, committed_ms)
        if publisher.published is not None:
            self._set_version(publisher.published)
        for partition in self._pipeline.watermarks.partitions:
            self._set_watermark(partition)

    def commit(self, committed: Committed) -> None:
        """Take over what a commit was."""
        self._set_generation(committed, self._clock.now_ms())
        self._metrics.state.commit_seconds.observe(committed.seconds)

    def version(self, published: Published) -> None:
        """Take over what a version is."""
        self._set_version(published)
        self._metrics.build_seconds.observe(published.seconds)

    def _set_generation(self, committed: Committed, time_ms: int) -> None:
        self._metrics.state.generation.set(committed.name.number)
        self._metrics.state.committed.set(time_ms / 1000)
        self._metrics.state.generation_age.set_function(
            lambda: (self._clock.now_ms() - time_ms) / 1000
        )

    def _set_lag_by_partition(self) -> None:
        metrics, lag = self._metrics, self._pipeline.lag
        for partition, clicks in lag.by_partition.items():
            labels = partition.topic, partition.number
            metrics.source.partition_lag.labels(*labels).set(clicks)
            metrics.source.held_back.labels(*labels).set(lag.held_back.get(partition, 0))
            seconds = lag.held_back_seconds.get(partition, 0.0)
            metrics.source.held_back_seconds.labels(*labels).set(seconds)

    def _set_quality(self) -> None:
        for name, (recall, mrr) in self._pipeline.quality.figures.items():
            self._metrics.live_recall.labels(name).set(recall)
            self._metrics.live_mrr.labels(name).set(mrr)

    def _set_watermark(self, partition: Partition) -> None:
        time_ms = self._pipeline.watermarks.event_time_ms(partition)
        if time_ms is not None:
            labels = partition.topic, partition.number
            self._metrics.source.watermark.labels(*labels).set(time_ms / 1000)
            self._metrics.source.watermark_age.labels(*labels).set_function(
                lambda: (self._clock.now_ms() - time_ms) / 1000
            )

    def _set_version(self, published: Published) -> None:
        self._metrics.version.set(published.name.number)
        self._metrics.published.set(published.created_ms / 1000)
        for kind, by_queries in published.recall.items():
            for queries, recall in by_queries.items():
                self._metrics.recall.labels(kind, queries).set(recall)

    def _totals(self) -> list[tuple[Counter, str, str, int]]:
        """Return (counter, its name, its label, what the space has counted) of every counter."""
        metrics, ledger = self._metrics, self._pipeline.ledger
        totals = [
            (metrics.clicks_read, "read", "", ledger.read),
            (metrics.clicks_applied, "applied", "", ledger.applied),
            (metrics.pairs, "pairs", "", ledger.pairs),
            (metrics.reset, "reset", "", self._pipeline.store.n_reset),
            (metrics.dead_letters.sent, "sent", "", self._pipeline.dead_letters.n_sent),
        ]
        for name, counter, by_label in (
            ("filtered", metrics.clicks_filtered, ledger.filtered),
            ("dead", metrics.clicks_dead_lettered, ledger.dead_lettered),
            ("lost", metrics.source.clicks_lost, ledger.lost),
            ("windows", metrics.windows, self._pipeline.windows.counts()),
        ):
            totals += [(counter.labels(label), name, label, n) for label, n in by_label.items()]
        return totals
