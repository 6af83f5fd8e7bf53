"""Every metric, defined once: prefix `livevec_`, base units, bounded labels."""

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

# A time stamp beside every series is noise.
disable_created_metrics()  # type: ignore[no-untyped-call]

_QUERY_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
_STEP_BUCKETS = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_BUILD_BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class ServingMetrics:
    """The metrics of the query service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.queries = Counter(
            "livevec_queries_total",
            "Requests answered, by route and HTTP status.",
            ["route", "status"],
            registry=registry,
        )
        self.query_seconds = Histogram(
            "livevec_query_seconds",
            "Time from a whole request to its answer, by route.",
            ["route"],
            buckets=_QUERY_BUCKETS,
            registry=registry,
        )
        self.swaps = Counter(
            "livevec_version_swaps_total",
            "Index versions loaded and put in place of the one before.",
            registry=registry,
        )
        self.refusals = Counter(
            "livevec_version_refusals_total",
            "Index versions not loaded, by reason: damaged, recall, superseded, unusable.",
            ["reason"],
            registry=registry,
        )
        self.version_number = Gauge(
            "livevec_served_version_number",
            "Number of the index version that answers; 0 before the first.",
            registry=registry,
        )
        self.version_age = Gauge(
            "livevec_served_version_age_seconds",
            "Time since the index version that answers was made; 0 before the first.",
            registry=registry,
        )
        self.items = Gauge(
            "livevec_served_items",
            "Items in the index version that answers.",
            registry=registry,
        )


class SourceMetrics:
    """The metrics of what clicks come from; `streamer.observer` sets them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        by_partition = ["topic", "partition"]
        self.clicks_lost = counter(
            "livevec_clicks_lost", "Clicks passed over unread, as a policy allows", ["reason"]
        )
        self.lag = gauge("livevec_source_lag_clicks", "Clicks that wait to be read")
        self.partition_lag = gauge(
            "livevec_source_partition_lag_clicks", "Clicks that wait to be read", by_partition
        )
        self.held_back = gauge(
            "livevec_source_held_back_clicks",
            "Clicks behind a producer's open transaction, which nobody may read yet",
            by_partition,
        )
        self.held_back_seconds = gauge(
            "livevec_source_held_back_seconds",
            "Since when the last stable offset has stood still before the end; 0 when it has not",
            by_partition,
        )
        self.broker_up = gauge(
            "livevec_broker_up", "1 while all brokers and topics answer, 0 while one does not"
        )
        self.poll_seconds = Histogram(
            "livevec_poll_duration_seconds",
            "From asking for clicks to having some, or none",
            registry=registry,
            buckets=_STEP_BUCKETS,
        )
        self.watermark = gauge(
            "livevec_watermark_timestamp_seconds",
            "Event time up to which a partition is complete",
            by_partition,
        )
        self.watermark_age = gauge(
            "livevec_watermark_age_seconds",
            "Time since the event time up to which a partition is complete",
            by_partition,
        )


class StateMetrics:
    """The metrics of terms and generations; `streamer.observer` and the daemon set them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self.term = gauge("livevec_term", "Term under which the daemon writes")
        self.standby = gauge(
            "livevec_standby", "1 while the daemon waits for another to end, else 0"
        )
        self.uncommitted = gauge("livevec_uncommitted_clicks", "Clicks not yet durable")
        self.generation = gauge("livevec_generation_number", "Newest committed generation")
        self.committed = gauge(
            "livevec_generation_committed_timestamp_seconds",
            "When the newest generation was committed",
        )
        self.generation_age = gauge(
            "livevec_generation_age_seconds", "Time since the newest generation was committed"
        )
        self.commit_seconds = Histogram(
            "livevec_commit_duration_seconds",
            "From the cut to a durable generation",
            registry=registry,
        )


class DeadLetterMetrics:
    """The metrics of unusable clicks on their way out."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent = Counter(
            "livevec_dead_letters_sent",
            "Dead letters that their file or topic has taken from this process",
            registry=registry,
        )
        self.waiting = Gauge(
            "livevec_dead_letters_waiting", "Dead letters that wait in memory", registry=registry
        )


class DaemonMetrics:
    """The metrics of the daemon; `streamer.observer` sets them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.source = SourceMetrics(registry)
        self.state = StateMetrics(registry)
        self.dead_letters = DeadLetterMetrics(registry)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        by_reason = ["reason"]
        self.clicks_read = counter("livevec_clicks_read", "Records read")
        self.clicks_applied = counter("livevec_clicks_applied", "Clicks whose tile was trained")
        self.clicks_filtered = counter("livevec_clicks_filtered", "Clicks left out", by_reason)
        self.clicks_dead_lettered = counter(
            "livevec_clicks_dead_lettered", "Unusable clicks", by_reason
        )
        self.clicks_held = gauge(
            "livevec_clicks_held", "Clicks that wait for their window to close"
        )
        self.pairs = counter("livevec_pairs_trained", "Pairs (input, output) trained")
        self.items = gauge("livevec_items", "Items that have a row")
        self.max_items = gauge("livevec_max_items", "Items that may have a row")
        self.reset = counter("livevec_rows_reset", "Rows that were not finite and began anew")
        self.quality_scored = gauge(
            "livevec_live_quality_scored_clicks", "Clicks ranked before they were trained"
        )
        self.live_recall = gauge(
            "livevec_live_recall_at_20",
            "Of sampled clicks, ranked before they are trained: the share among the first 20",
            ["of"],
        )
        self.live_mrr = gauge(
            "livevec_live_mrr_at_20", "The mean of their reciprocal ranks, 0 behind 20", ["of"]
        )
        self.windows_open = gauge("livevec_windows_open", "Open session windows")
        self.windows = counter(
            "livevec_windows",
            "Session windows opened, closed, closed_by_idle, evicted or merged; "
            "dropped counts clicks that a window no longer keeps, spread windows that another "
            "partition of their topic has continued",
            ["event"],
        )
        self.batch_seconds = Histogram(
            "livevec_batch_duration_seconds",
            "From a batch of clicks to its trained tiles",
            registry=registry,
            buckets=_STEP_BUCKETS,
        )
        self.version = gauge("livevec_index_version_number", "Newest published version")
        self.published = gauge(
            "livevec_index_published_timestamp_seconds", "When the newest version was published"
        )
        self.build_seconds = Histogram(
            "livevec_index_build_duration_seconds",
            "From loading a generation to a published version",
            buckets=_BUILD_BUCKETS,
            registry=registry,
        )
        self.recall = gauge(
            "livevec_index_recall_ratio",
            "recall@10 of the newest version against exact search",
            ["kind", "queries"],
        )
