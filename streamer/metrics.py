"""Every metric, defined once: prefix `livevec_`, base units, bounded labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_QUERY_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


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


class DaemonMetrics:
    """The metrics of the daemon; `streamer.observer` sets them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.term = Gauge("livevec_term", "Term under which the daemon writes", registry=registry)
        self.clicks_read = Counter("livevec_clicks_read", "Records read", registry=registry)
        self.clicks_applied = Counter(
            "livevec_clicks_applied", "Clicks whose tile was trained", registry=registry
        )
        self.clicks_filtered = Counter(
            "livevec_clicks_filtered", "Clicks left out, by reason", ["reason"], registry=registry
        )
        self.clicks_dead_lettered = Counter(
            "livevec_clicks_dead_lettered",
            "Unusable clicks, by reason",
            ["reason"],
            registry=registry,
        )
        self.clicks_held = Gauge(
            "livevec_clicks_held", "Clicks that wait for their window to close", registry=registry
        )
        self.pairs = Counter("livevec_pairs_trained", "Pairs trained", registry=registry)
        self.items = Gauge("livevec_items", "Items that have a row", registry=registry)
        self.max_items = Gauge("livevec_max_items", "Items that may have a row", registry=registry)
        self.reset = Counter(
            "livevec_rows_reset", "Rows that were not finite and began anew", registry=registry
        )
        self.windows_open = Gauge("livevec_windows_open", "Open session windows", registry=registry)
        self.windows = Counter(
            "livevec_windows",
            "What happened to session windows: closed, closed_by_idle, evicted, merged; "
            "dropped counts clicks that a window no longer keeps",
            ["event"],
            registry=registry,
        )
        self.lag = Gauge(
            "livevec_source_lag_clicks", "Clicks that wait to be read", registry=registry
        )
        self.uncommitted = Gauge(
            "livevec_uncommitted_clicks", "Clicks not yet durable", registry=registry
        )
        self.watermark = Gauge(
            "livevec_watermark_timestamp_seconds",
            "Event time up to which a partition is complete",
            ["topic", "partition"],
            registry=registry,
        )
        self.generation = Gauge(
            "livevec_generation_number", "Newest committed generation", registry=registry
        )
        self.committed = Gauge(
            "livevec_generation_committed_timestamp_seconds",
            "When the newest generation was committed",
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "livevec_commit_duration_seconds",
            "From the cut to a durable generation",
            registry=registry,
        )
        self.version = Gauge(
            "livevec_index_version_number", "Newest published version", registry=registry
        )
        self.published = Gauge(
            "livevec_index_published_timestamp_seconds",
            "When the newest version was published",
            registry=registry,
        )
        self.build_seconds = Histogram(
            "livevec_index_build_duration_seconds",
            "From loading a generation to a published version",
            buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
            registry=registry,
        )
        self.recall = Gauge(
            "livevec_index_recall_ratio",
            "recall@10 of the newest version against exact search",
            ["kind", "queries"],
            registry=registry,
        )
