"""How fast each stage of the way of a click is, on one thread.

    python -m tests.bench.bench_stages [--data clicks.csv] [--quick]

Prints a table (medians over repetitions) and, as the last line, one JSON object. Without --data
the clicks are generated, with the traffic of the demo. The last column is the ratio to
reading alone; the stages are measured in the same run.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kernels import policy, sgns
from state.offsets import Offsets
from streamer import config as settings
from streamer.clock import SystemClock
from streamer.pipeline import MAX_BATCH, Pipeline, Start
from streamer.sources.contract import Source
from streamer.sources.dead_letters import DeadLetters
from streamer.sources.files import FileSource
from streamer.sources.simulated import SimulatedClicks, TrafficSettings

GENERATED_CLICKS = 1_000_000
QUICK_CLICKS = 200_000


def batches(source: Source) -> Iterator[object]:
    source.seek(Offsets(), {})
    while not source.is_exhausted():
        batch = source.poll(0.0, MAX_BATCH)
        if batch is not None:
            yield batch
    source.close()


def timed(source: Source, config: settings.Config, directory: Path) -> dict[str, float]:
    """Read everything, then apply it, a stage at a time; seconds by stage."""
    clock = SystemClock()
    letters = DeadLetters(directory / "dead-letters.jsonl", 10**9, 1.0)
    pipeline = Pipeline(config, letters, clock, Start({}, Offsets(), "bench"))
    begun = time.perf_counter()
    held = list(batches(source))
    read = time.perf_counter() - begun
    train = 0.0
    trained = pipeline._trainer.train

    def train_timed(*arguments: object) -> int:
        nonlocal train
        began = time.perf_counter()
        pairs = trained(*arguments)
        train += time.perf_counter() - began
        return pairs

    pipeline._trainer.train = train_timed
    begun = time.perf_counter()
    for batch in held:
        pipeline.apply(batch)
    applied = time.perf_counter() - begun
    begun = time.perf_counter()
    pipeline.cut()
    cut = time.perf_counter() - begun
    letters.close()
    return {
        "clicks": pipeline.clicks,
        "pairs": pipeline.ledger.pairs,
        "read": read,
        "place": applied - train,
        "train": train,
        "cut": cut,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    config = settings.load(
        None, source={"files": {"paths": [str(options.data)]}} if options.data else {}
    )
    sgns.train_tiles(config.training.dim)
    policy.compile_all()
    n_generated = QUICK_CLICKS if options.quick else GENERATED_CLICKS
    runs = []
    for _ in range(2 if options.quick else 5):
        source: Source = (
            FileSource(config.source.files, config.clicks, SystemClock())
            if config.source.files
            else SimulatedClicks(TrafficSettings(limit=n_generated), SystemClock())
        )
        with tempfile.TemporaryDirectory() as directory:
            runs.append(timed(source, config, Path(directory)))
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    clicks = median["clicks"]
    print(f"{'stage':<28}{'seconds':>10}{'clicks/s':>14}{'x reading':>12}")
    for name, text in (
        ("read", "read and decode"),
        ("place", "look up, windows, admit"),
        ("train", "train"),
        ("cut", "copy for a generation"),
    ):
        seconds = median[name]
        ratio = seconds / median["read"]
        print(f"{text:<28}{seconds:>10.3f}{clicks / seconds:>14,.0f}{ratio:>12.2f}")
    whole = median["read"] + median["place"] + median["train"]
    print(f"{'all, one thread':<28}{whole:>10.3f}{clicks / whole:>14,.0f}")
    figures = {
        "clicks": int(clicks),
        "pairs": int(median["pairs"]),
        "clicks_per_second": round(clicks / whole),
        "pairs_per_second_trained": round(median["pairs"] / median["train"]),
        "seconds": {name: round(median[name], 4) for name in ("read", "place", "train", "cut")},
        "runs": len(runs),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
