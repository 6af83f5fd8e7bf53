"""A daemon at a steady rate of clicks for a long time: does its memory grow, or its lag?

    python -m tests.system.soak --minutes 20 --rate 20000

Clicks of a fixed catalogue and of returning users flow through a real Kafka; their event times go
on faster than the clock, so that sessions end inside the run. After a warm-up the slope of the
memory is fitted: of the medians over 10 seconds, because a commit copies the state for a second.
Its upper bound is the 95th percentile of a moving-block bootstrap of the residuals (Kuensch 1989),
in per cent of the mean memory per hour. Prints one line a minute, a verdict, and one line of JSON;
exits with 1 if something grows or the log holds a warning.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import httpx
import numpy as np
from kafka import KafkaAdminClient, KafkaProducer

from deploy.broker.broker import Broker
from streamer.clock import SystemClock
from streamer.sources.simulated import SimulatedClicks, TrafficSettings
from tests.system.runs import Livevec, Running

TOPIC = "clicks"
N_PARTITIONS = 4
N_CYCLE = 300_000  # clicks, then the same users and items again
# So long that sessions end: at 2,000 s one user in ten never pauses for the 30 minutes that end a
# session, and the memory grows by 10 MB a minute until each holds the 200 clicks that it may.
EVENT_SECONDS_PER_CYCLE = 7_200
SLICE_SECONDS = 0.02
MEDIAN_SECONDS = 10
BLOCK_SECONDS = 120  # as long as from one index version to the next
N_RESAMPLED = 2000
WARM_UP = 0.3  # of the run
UPPER_PERCENT_PER_HOUR = 1.0
LAG_SECONDS = 0.25  # of clicks, by which the lag may seem to have grown


@dataclass(frozen=True)
class Verdict:
    """What was seen after the warm-up."""

    minutes: float
    clicks: int
    clicks_per_second: float
    memory_mb: float
    slope_percent_per_hour: float
    slope_upper_percent_per_hour: float
    lag_first_half: float  # median, in clicks
    lag_second_half: float
    warnings: list[str]

    @property
    def is_steady(self) -> bool:
        return (
            self.slope_upper_percent_per_hour < UPPER_PERCENT_PER_HOUR
            and self.lag_second_half < self.lag_first_half + LAG_SECONDS * self.clicks_per_second
            and not self.warnings
        )


class Load:
    """Produces clicks at a rate, from a thread of its own."""

    def __init__(self, bootstrap: str, rate: float) -> None:
        self._rate = rate
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap, compression_type="lz4", linger_ms=20, batch_size=1 << 18
        )
        self._is_closed = False
        self.n_produced = 0
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_closed = True
        self._thread.join()
        self._producer.close(10)

    def _run(self) -> None:
        records, begun = _records(), time.monotonic()
        while not self._is_closed:
            due = int((time.monotonic() - begun) * self._rate) - self.n_produced
            for _ in range(due):
                partition, value = next(records)
                self._producer.send(TOPIC, value, partition=partition)
            self.n_produced += due
            time.sleep(SLICE_SECONDS)


def run(minutes: float, rate: float, directory: Path) -> Verdict:
    """Run daemon and load for `minutes`; return what came of it."""
    (directory / "broker").mkdir()
    broker = Broker(directory / "broker")
    broker.start()
    livevec = Livevec(directory)
    load = None
    try:
        _create_topic(broker.bootstrap)
        livevec.configure(
            {"source.kafka": {"bootstrap_servers": [broker.bootstrap], "topics": [TOPIC]}}
        )
        load = Load(broker.bootstrap, rate)
        running = livevec.start()
        samples = _sample(running, minutes)
        load.close()
        ended = running.terminated()
    finally:
        livevec.close()
        broker.stop()
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    warnings = [line["event"] for line in lines if line["level"] in {"warning", "error"}]
    return judged(np.array(samples), [*warnings, *ended.complaints], minutes)


def judged(samples: np.ndarray, warnings: list[str], minutes: float) -> Verdict:
    """Judge samples (n, 4): seconds, memory in MB, lag, clicks read."""
    after = samples[samples[:, 0] >= WARM_UP * samples[-1, 0]]
    seconds, memory, lag, read = after.T
    slope, upper = slope_and_bound(*medians(seconds, memory))
    half = len(lag) // 2
    per_hour = 3600 * 100 / memory.mean()
    return Verdict(
        minutes=minutes,
        clicks=int(samples[-1, 3]),
        clicks_per_second=round(float((read[-1] - read[0]) / (seconds[-1] - seconds[0])), 1),
        memory_mb=round(float(memory.mean()), 1),
        slope_percent_per_hour=round(slope * per_hour, 3),
        slope_upper_percent_per_hour=round(upper * per_hour, 3),
        lag_first_half=float(np.median(lag[:half])),
        lag_second_half=float(np.median(lag[half:])),
        warnings=warnings,
    )


def medians(seconds: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of every `MEDIAN_SECONDS` and the median of the values there."""
    slot = ((seconds - seconds[0]) // MEDIAN_SECONDS).astype(int)
    parts = [slot == at for at in np.unique(slot)]
    middles = [np.mean(seconds[part]) for part in parts]
    return np.array(middles), np.array([np.median(values[part]) for part in parts])


def slope_and_bound(seconds: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the slope of a line through `values`, and the 95 % upper bound of it."""
    slope, at_zero = np.polyfit(seconds, values, 1)
    fitted = slope * seconds + at_zero
    residuals = values - fitted
    block = max(1, round(BLOCK_SECONDS / float(np.median(np.diff(seconds)))))
    block = min(block, len(values) // 4)
    rng = np.random.default_rng(1)
    n_blocks = -(-len(values) // block)
    slopes = []
    for _ in range(N_RESAMPLED):
        starts = rng.integers(0, len(values) - block + 1, n_blocks)
        drawn = np.concatenate([residuals[start : start + block] for start in starts])
        slopes.append(np.polyfit(seconds, fitted + drawn[: len(values)], 1)[0])
    return float(slope), float(np.percentile(slopes, 95))


def _sample(running: Running, minutes: float) -> list[tuple[float, float, float, float]]:
    address = running.event("metrics_listening")["address"]
    running.event("polling")
    begun, samples, told = time.monotonic(), [], 0
    with httpx.Client() as client:
        while (seconds := time.monotonic() - begun) < 60 * minutes:
            metrics = _metrics(client.get(f"{address}/metrics").text)
            lag = metrics.get("livevec_source_lag_clicks", 0.0)
            read = metrics["livevec_clicks_read_total"]
            samples.append((seconds, _memory_mb(running.process.pid), lag, read))
            if seconds >= 60 * told:
                print(
                    f"{told:>4} min {samples[-1][1]:8.1f} MB {read:>12,.0f} read {lag:>8,.0f} lag"
                )
                sys.stdout.flush()
                told += 1
            time.sleep(1.0)
    return samples


def _metrics(text: str) -> dict[str, float]:
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def _memory_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def _records() -> Iterator[tuple[int, bytes]]:
    """Yield (partition, value) of the same clicks again and again, later each time."""
    source = SimulatedClicks(TrafficSettings(malformed=0.0, too_late=0.0), SystemClock())
    rows = list(source.rows(N_CYCLE))
    start = int(rows[0]["ts"])
    scale = 1000 * EVENT_SECONDS_PER_CYCLE / (int(rows[-1]["ts"]) - start)
    made = [
        (
            int(str(row["user_id"])[1:]) % N_PARTITIONS,
            json.dumps({"user_id": row["user_id"], "item_id": row["item_id"]})[:-1].encode(),
            round((int(row["ts"]) - start) * scale),
        )
        for row in rows
    ]
    for cycle in count():
        base = start + 1000 * EVENT_SECONDS_PER_CYCLE * cycle
        for partition, head, offset_ms in made:
            yield partition, b'%s,"ts":%d}' % (head, base + offset_ms)


def _create_topic(bootstrap: str) -> None:
    bounds = {"retention.bytes": str(256 << 20), "segment.bytes": str(64 << 20)}
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        settings = {"num_partitions": N_PARTITIONS, "configs": bounds}
        admin.create_topics({TOPIC: settings}, wait_for_metadata=True)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=20_000.0, help="clicks per second")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="livevec-soak-") as directory:
        verdict = run(asked.minutes, asked.rate, Path(directory))
    steady = "steady" if verdict.is_steady else "NOT STEADY"
    print(
        f"{steady}: memory {verdict.memory_mb} MB, slope {verdict.slope_percent_per_hour} % an "
        f"hour, at most {verdict.slope_upper_percent_per_hour} (95 %); lag "
        f"{verdict.lag_first_half:,.0f}, then {verdict.lag_second_half:,.0f}; "
        f"{len(verdict.warnings)} warnings"
    )
    print(json.dumps(asdict(verdict)))
    return 0 if verdict.is_steady else 1


if __name__ == "__main__":
    sys.exit(_main())
