"""How fast the training kernel is on one core, beside gensim and beside a matrix product.

    python -m tests.bench.bench_kernels [--quick]

The corpus for gensim is generated: sessions of 3 to 20 clicks, 100,000 items by Zipf. gensim reads
it from a file, its fastest way; we train the same sessions as early tiles, of a window so wide
that a token is in no fewer pairs than gensim's shrunken windows of 5 put it in. The tiles of the
other rows have the session lengths of news clicks. Prints a table of medians and, as the last line,
one JSON object. `make bench-kernels` keeps the libraries to one thread.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gensim.models import Word2Vec
from numpy.typing import NDArray

from kernels import sgns
from kernels.negatives import Noise
from kernels.pairs import Pairs
from kernels.rng import GOLDEN
from kernels.scratch import scratch
from kernels.table import insert_many, places
from kernels.tiles import Tiles, empty_tiles
from state import shard
from streamer.settings.stream import Store, Training
from streamer.training.trainer import memory_settings

N_TILES = 4096  # in one call, as from a batch of clicks
GENSIM_WINDOW = 5
# Sessions of 2, 3, 4 ... clicks in a week of news clicks (globo-week1), in %; the rest has 15.
NEWS_PERCENT = (60.1, 21.3, 8.9, 4.2, 2.2, 1.2, 0.7, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1)


@dataclass(frozen=True)
class Measured:
    """One row of the table; rates per second."""

    clicks_per_second: float
    dim: int
    n_items: int
    negatives: int
    passes: int
    pairs_per_click: float
    scores_per_second: float  # (input, target) scores, as if all of a tile's rows were distinct


@dataclass(frozen=True)
class Stream:
    """Clicks in order of time: the item of each, and its neighbours so far, the nearest first."""

    n_items: int
    items: NDArray[np.int64]
    numbers: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    n_neighbours: NDArray[np.int64]

    def tiles(self) -> list[Tiles]:
        keys, near = _keys(self.items), _keys(self.neighbours)
        cuts = range(0, len(self.items), N_TILES)
        return [self._part(keys, near, slice(at, at + N_TILES)) for at in cuts]

    def _part(self, keys: NDArray[np.uint64], near: NDArray[np.uint64], part: slice) -> Tiles:
        items = keys[part]
        n = len(items)
        tiles = empty_tiles(n, near.shape[1] // 2)
        tiles.weights[:] = 1.0
        return tiles._replace(
            items=items,
            numbers=self.numbers[part],
            neighbours=near[part],
            n_before=self.n_neighbours[part],
            n_neighbours=self.n_neighbours[part],
            offsets=np.arange(part.start, part.start + n),
            used=np.array([n]),
        )


class Model:
    """Rows of all items, a noise table that is full, and a kernel to train them."""

    def __init__(self, stream: Stream, dim: int, negatives: int, passes: int, window: int) -> None:
        keys, slots = _table(stream.n_items)
        rows = np.arange(stream.n_items)
        remembered = memory_settings(Training(), Store())
        self.rows = shard.allocate(stream.n_items, dim, remembered, keys, slots)
        shard.initialise(self.rows, dim, rows, _keys(rows), 1)
        settings = Training()
        self.noise = Noise(np.zeros(settings.noise_table_size, np.int64), np.zeros(1, np.int64))
        self.noise.filled[0] = settings.noise_table_size
        self.noise.entries[:] = np.resize(stream.items, settings.noise_table_size)
        self.learning = sgns.Learning(
            seed=np.uint64(1),
            learning_rate=np.float32(settings.learning_rate),
            epsilon=np.float32(settings.epsilon),
            dim=dim,
            negatives=negatives,
            passes=passes,
            half_lives=remembered.half_lives,
            partition_keys=np.zeros(1, np.uint64),
        )
        self.scratch = scratch(dim, window, negatives, passes)
        nothing = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        sums = np.zeros(1, np.int64), np.zeros(1, np.uint64)
        self.pairs = Pairs(*sums, *nothing, *nothing, nothing[0], np.zeros(1, np.int64))

    def train(self, batches: list[Tiles]) -> int:
        kernel = sgns.train_tiles(self.learning.dim)
        learned = self.rows, self.noise, self.pairs, self.learning, self.scratch
        return sum(kernel(tiles, 0, int(tiles.used[0]), *learned) for tiles in batches)


def zipf(n_items: int, exponent: float = 0.9) -> NDArray[np.float64]:
    """Return the shares of items by rank."""
    shares = 1 / np.arange(1, n_items + 1) ** exponent
    return np.asarray(shares / shares.sum())


def sessions(lengths: NDArray[np.int64], n_items: int, seed: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    items = rng.permutation(n_items)[rng.choice(n_items, lengths.sum(), p=zipf(n_items))]
    return np.split(items, np.cumsum(lengths)[:-1])


def interleaved(of: list[NDArray[np.int64]], n_items: int, window: int) -> Stream:
    """Let sessions run beside each other, some hundred at a time."""
    rng = np.random.default_rng(3)
    lengths = np.array([len(one) for one in of])
    items = np.concatenate(of)
    position = np.concatenate([np.arange(n) for n in lengths])
    begins = rng.random(len(of)) * len(of)
    time_of = np.repeat(begins, lengths) + position * 100.0
    numbers = np.repeat(1 + np.argsort(np.argsort(begins)), lengths)
    neighbours = np.zeros((len(items), 2 * window), np.int64)
    n_neighbours = np.zeros(len(items), np.int64)
    for j in range(1, window + 1):
        at = np.flatnonzero(position >= j)
        at = at[items[at - j] != items[at]]
        neighbours[at, n_neighbours[at]] = items[at - j]
        n_neighbours[at] += 1
    order = np.argsort(time_of, kind="stable")
    return Stream(n_items, items[order], numbers[order], neighbours[order], n_neighbours[order])


def news_lengths(n_sessions: int) -> NDArray[np.int64]:
    shares = np.array([*NEWS_PERCENT, 100 - sum(NEWS_PERCENT)])
    rng = np.random.default_rng(2)
    return 2 + rng.choice(len(shares), n_sessions, p=shares / shares.sum())


def measured(
    stream: Stream, dim: int, negatives: int, passes: int, window: int, repeats: int
) -> Measured:
    model, batches = Model(stream, dim, negatives, passes, window), stream.tiles()
    model.train(batches[:1])
    pairs = 0

    def run() -> None:
        nonlocal pairs
        pairs = model.train(batches)

    seconds = median_seconds(run, repeats)
    clicks = len(stream.items)
    # A tile of m neighbours: m targets of x, x for each of them, and negatives for each input.
    m = stream.n_neighbours[stream.n_neighbours > 0]
    scores = passes * float((2 * m + (m + 1) * negatives).sum())
    return Measured(
        clicks_per_second=round(clicks / seconds),
        dim=dim,
        n_items=stream.n_items,
        negatives=negatives,
        passes=passes,
        pairs_per_click=round(pairs / clicks, 3),
        scores_per_second=round(scores / seconds),
    )


def gensim_rate(of: list[NDArray[np.int64]], dim: int, repeats: int) -> float:
    """Return the tokens per second of gensim's skip-gram, one worker, from a file."""
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory) / "corpus.txt"
        with corpus.open("w", encoding="ascii") as file:
            file.writelines(" ".join(map(str, one.tolist())) + "\n" for one in of)
        model = Word2Vec(
            vector_size=dim,
            window=GENSIM_WINDOW,
            sg=1,
            negative=5,
            min_count=1,
            sample=0,
            workers=1,
        )
        model.build_vocab(corpus_file=str(corpus))
        tokens = sum(len(one) for one in of)

        def run() -> None:
            model.train(
                corpus_file=str(corpus), total_examples=len(of), total_words=tokens, epochs=1
            )

        return tokens / median_seconds(run, repeats)


def gensim_pairs_per_token(lengths: NDArray[np.int64]) -> float:
    """Return the expected pairs of a token under windows drawn uniformly from 1 to 5."""
    total = 0
    for reach in range(1, GENSIM_WINDOW + 1):
        near = np.minimum(reach, lengths - 1)
        total += 2 * (near * lengths - near * (near + 1) // 2).sum() / GENSIM_WINDOW
    return float(total / lengths.sum())


def matmul_flops(repeats: int) -> float:
    """Return the float32 operations per second of numpy's matrix product."""
    a = np.random.default_rng(1).random((1024, 1024), np.float32)
    return float(2 * 1024**3 / median_seconds(lambda: a @ a, 5 * repeats))


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def _keys(items: NDArray[np.int64]) -> NDArray[np.uint64]:
    return (items.astype(np.uint64) + np.uint64(1)) * GOLDEN


def _table(n_items: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    keys = np.zeros(places(n_items), np.uint64)
    slots = np.full(len(keys), -1, np.int64)
    rows = np.arange(n_items)
    insert_many(keys, slots, _keys(rows), rows)
    return keys, slots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    is_quick = parser.parse_args().quick
    repeats, n_sessions = (2, 15_000) if is_quick else (5, 60_000)
    shipped = Training()
    lengths = np.random.default_rng(0).integers(3, 21, n_sessions)
    corpus = sessions(lengths, 100_000, 1)
    theirs = gensim_pairs_per_token(lengths)
    window = next(
        w for w in range(1, 10) if interleaved(corpus, 100_000, w).n_neighbours.mean() * 2 >= theirs
    )
    stream = interleaved(corpus, 100_000, window)
    figures: dict[str, Any] = {}
    sgemm = matmul_flops(repeats)
    for dim in (64, 128):
        ours = measured(stream, dim, 5, 1, window, repeats)
        gensim = gensim_rate(corpus, dim, 2 if is_quick else 3)
        figures[f"d{dim}"] = {
            **asdict(ours),
            "ours": ours.clicks_per_second,
            "gensim": round(gensim),
            "ratio": round(ours.clicks_per_second / gensim, 2),
            "gensim_pairs_per_token": round(theirs, 3),
            "window": window,
        }
    flops = 6 * 128 * figures["d128"]["scores_per_second"]
    figures["sgemm_share"] = round(flops / sgemm, 3)
    figures["sgemm_gflops"] = round(sgemm / 1e9, 1)
    news = news_lengths(2 * n_sessions if is_quick else 5 * n_sessions)
    for name, dim, n_items, negatives, passes in (
        ("tiles_d64_24k", 64, 24_000, 5, 1),
        ("tiles_d64_24k_defaults", shipped.dim, 24_000, shipped.negatives, shipped.passes),
        ("tiles_d128_1m", 128, 1_000_000, 5, 1),
    ):
        clicks = interleaved(sessions(news, n_items, 4), n_items, shipped.window)
        figures[name] = asdict(measured(clicks, dim, negatives, passes, shipped.window, repeats))
    _tell(figures)
    print(json.dumps(figures))


def _tell(figures: dict[str, Any]) -> None:
    names = ("clicks_per_second", "dim", "n_items", "negatives", "passes", "pairs_per_click")
    print(f"{'':<24}" + "".join(f"{name:>19}" for name in names) + f"{'x gensim':>10}")
    for name, found in figures.items():
        if isinstance(found, dict):
            row = "".join(f"{found[one]:>19,}" for one in names)
            print(f"{name:<24}{row}{found.get('ratio', ''):>10}")
    print(f"of a matrix product of {figures['sgemm_gflops']} GFLOP/s: {figures['sgemm_share']:.1%}")


if __name__ == "__main__":
    main()
