"""The embedded default: generated traffic, daemon and query service in one process."""

import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from prometheus_client import CollectorRegistry

from streamer import config as settings
from streamer.clock import Clock, SystemClock
from streamer.config import Config
from streamer.daemon import Daemon, stop_on_signals
from streamer.errors import NotReady
from streamer.logs import configure_logs, kernel_progress
from streamer.metrics import ServingMetrics
from streamer.publishing.publisher import Published
from streamer.serving.app import QueryService
from streamer.serving.ranking import Options, Searchable
from streamer.serving.searcher import Searcher
from streamer.sources.simulated import (
    SimulatedClicks,
    TrafficSettings,
    item_name,
    named_items,
    taste_of,
)

# Slow and noisy enough that a person sees neighbours become sensible over half a minute.
TRAFFIC = TrafficSettings(rate=10_000.0, items_per_taste=200, foreign=0.35, two_tastes=0.3)
REFRESH_SECONDS = 0.5
FIRST_SECONDS = 0.02  # until the first click has come, from which seconds are counted
NEIGHBOURS_SECONDS = 3.0
# Two items that everybody looks at, and two that are seldom seen.
NAMED = (*named_items(2), *(item_name(number).encode() for number in (24 * 60 + 5, 24 * 90 + 13)))
N_NEIGHBOURS = 10
N_SHOWN = 3
# The share is taken over items that traffic shows: whoever was clicked five times has a place.
MIN_CLICKS = 5
MAX_MEASURED = 2000


def run(port: int, seconds: float | None, *, is_quiet: bool) -> dict[str, Any]:
    """Run until `seconds` after the first click, or a signal; return the summary.

    Everything it writes lies in a temporary directory and goes with it, unless a second signal
    forces it to end at once. What a person watches goes to standard error if `is_quiet`, so that
    standard output holds the summary alone.
    """
    out = sys.stderr if is_quiet else sys.stdout
    # An index that is still being built may write into what is being removed.
    with tempfile.TemporaryDirectory(
        prefix="livevec-demo-", ignore_cleanup_errors=True
    ) as directory:
        config = _config(Path(directory), port)
        configure_logs(config.log)
        clock = SystemClock()
        source = SimulatedClicks(TRAFFIC, clock)
        daemon = Daemon(
            config, lambda: source, clock, on_progress=kernel_progress(sys.stderr, clock)
        )
        searcher = Searcher(
            config.published, config.serving, clock, ServingMetrics(CollectorRegistry())
        )
        service = QueryService(searcher, config.serving)
        stop_on_signals(daemon.stop)
        with _beside(service), _watched(_Display(daemon, searcher, clock, out, seconds)) as display:
            out.write(f"query service on {service.address}\n")
            out.write(f"until it ends, its files are in {directory}\n")
            out.flush()
            summary = daemon.run()
            searcher.refresh()
            return {**summary, **display.summary()}


def same_taste_share(version: Searchable, rows: list[int]) -> float:
    """Return the share of the ten nearest neighbours of these items that have their true taste."""
    shares = [
        np.mean([taste_of(one) == taste_of(version.ids[row]) for one in neighbours])
        for row in rows
        if (neighbours := version.neighbors(version.ids[row], Options(limit=N_NEIGHBOURS)).ids())
    ]
    return float(np.mean(shares)) if shares else 0.0


def measured_rows(version: Searchable) -> list[int]:
    """Return the items over which the share is measured: the clicked ones, evenly spread."""
    rows = np.flatnonzero(version.version.items.clicks >= MIN_CLICKS)
    step = max(1, len(rows) // MAX_MEASURED)
    return [int(row) for row in rows[::step]]


class _Display:
    """What a person sees: one live line, and every few seconds neighbours of named items."""

    def __init__(
        self,
        daemon: Daemon,
        searcher: Searcher,
        clock: Clock,
        out: TextIO,
        seconds: float | None,
    ) -> None:
        self._daemon = daemon
        self._searcher = searcher
        self._clock = clock
        self._out = out
        self._seconds = seconds
        self._begun = 0.0
        self._last = (0.0, 0)
        self._shown_at = 0.0
        self._ended = 0.0

    def watch(self, stopping: threading.Event) -> None:
        """Show what happens until `stopping`; tell the daemon to stop when its time is over."""
        self._daemon.started.wait()
        while not stopping.wait(REFRESH_SECONDS if self._begun else FIRST_SECONDS):
            pipeline, now = self._daemon.pipeline, self._clock.monotonic()
            if pipeline is None or pipeline.clicks == 0:
                continue
            if not self._begun:
                self._begun = self._shown_at = now
                self._last = (now, pipeline.clicks)
            if self._seconds is not None and now - self._begun >= self._seconds:
                self._ended = self._ended or now
                self._daemon.stop()
            self._show_line(now)
            if now - self._shown_at >= NEIGHBOURS_SECONDS:
                self._shown_at = now
                self._show_neighbours()

    def summary(self) -> Mapping[str, Any]:
        """Return what only the display knows: how well tastes were found, and how fast it went."""
        pipeline = self._daemon.pipeline
        assert pipeline is not None
        ended = self._ended or self._clock.monotonic()
        rate = pipeline.clicks / max(ended - self._begun, REFRESH_SECONDS) if self._begun else 0.0
        try:
            version = self._searcher.loaded()
        except NotReady:
            return {"same_taste_share": None, "clicks_per_second": round(rate)}
        share = same_taste_share(version, measured_rows(version))
        return {"same_taste_share": round(share, 4), "clicks_per_second": round(rate)}

    def _show_line(self, now: float) -> None:
        pipeline, publisher = self._daemon.pipeline, self._daemon.publisher
        assert pipeline is not None
        assert publisher is not None
        before, clicks = self._last
        rate = (pipeline.clicks - clicks) / max(now - before, 1e-9)
        self._last = (now, pipeline.clicks)
        committed = publisher.committed
        line = (
            f"{rate:>8,.0f} clicks/s  {len(pipeline.windows):>7,} open windows  "
            f"{len(pipeline.store):>6,} items  "
            f"generation {committed.name.number if committed else '-'}  "
            f"index {self._version_text(publisher.published)}"
        )
        is_live = self._out.isatty()
        self._out.write(f"\r\x1b[K{line}" if is_live else f"{line}\n")
        self._out.flush()

    def _version_text(self, published: Published | None) -> str:
        try:
            version = self._searcher.loaded().version
        except NotReady:
            return "not yet published" if published is None else "being loaded"
        age = (self._clock.now_ms() - version.manifest["created_ms"]) / 1000
        return f"{version.name.number}, {age:.0f} s old"

    def _show_neighbours(self) -> None:
        try:
            version = self._searcher.loaded()
        except NotReady:
            return
        lines = []
        for item in NAMED:
            row = version.rows.get(item)
            if row is None:
                continue
            near = version.neighbors(item, Options(limit=N_SHOWN)).ids()
            share = same_taste_share(version, [row])
            names = " | ".join(one.decode() for one in near)
            lines.append(f"  {item.decode():<36} -> {names}  [{share:.0%} of 10 same taste]")
        if lines:
            share = same_taste_share(version, measured_rows(version)[::10])
            lines.append(f"  same taste among ten neighbours: {share:.0%} (by chance 4%)")
            self._out.write(("\n" if self._out.isatty() else "") + "\n".join(lines) + "\n")
            self._out.flush()


@contextmanager
def _beside(service: QueryService) -> Iterator[None]:
    service.start()
    try:
        yield
    finally:
        service.close()


@contextmanager
def _watched(display: _Display) -> Iterator[_Display]:
    stopping = threading.Event()
    thread = threading.Thread(target=display.watch, args=(stopping,), name="display", daemon=True)
    thread.start()
    try:
        yield display
    finally:
        stopping.set()


def _config(directory: Path, port: int) -> Config:
    """Commit and publish every few seconds, so that a person sees it happen."""
    return settings.load(
        None,
        store={"directory": directory, "max_items": 100_000},
        checkpoint={"interval_seconds": 1.0},
        index={"interval_seconds": 2.0, "min_rows": 500},
        serving={"port": port},
        metrics={"port": 0},
        log={"level": "warning"},
    )
