"""Prequential evaluation: clicks are ranked before they are trained, by us and by baselines.

The daemon's own pipeline reads a file. A test is a drawn click, after the first 15 % of the stream,
whose session holds another item before it, and whose item is not among the query's. It is ranked
against all items that were clicked before, the query's own left out; a tie counts against it.
Every contender gets the same tests, by the same windows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.tiles import Tiles
from state.offsets import Offsets
from state.store import Store
from streamer.clock import Clock
from streamer.config import Config
from streamer.errors import ConfigError
from streamer.evaluation.baselines import CoOccurrence
from streamer.evaluation.figures import Ranked
from streamer.pipeline import MAX_BATCH, Pipeline, Start
from streamer.sources.clicks import ClickBatch
from streamer.sources.contract import Source
from streamer.sources.dead_letters import DeadLetters
from streamer.sources.opening import open_source
from streamer.training.live_quality import (
    ALL_DRAWS,
    POPULARITY_ALONE,
    SAMPLED_BELOW,
    SHIPPED,
    VECTORS_ALONE,
    picked,
)
from streamer.training.ranker import MISSED, Ranker, rows_before

WARM_UP = 0.15  # of the stream
HOUR_MS = 3_600_000
COLD_MS = 6 * HOUR_MS
AGES_MS = {"chosen_1h": HOUR_MS, "chosen_6h": 6 * HOUR_MS, "chosen_24h": 24 * HOUR_MS}
# What is served that old is behind by its age and the clicks of such a batch at most.
AGED_BATCH = 256
_NEVER = np.iinfo(np.int64).max
_ANY_NUMBER = 10**12  # of dead letters

FIXED = {
    "vectors": VECTORS_ALONE,
    "vectors_popularity": (1.0, *SHIPPED[1:3], 0.0, 0.0),
    "default": SHIPPED,
    "without_vectors": (0.0, *SHIPPED[1:]),
}
POPULARITIES = np.array([POPULARITY_ALONE, (0.0, 0.0, 1.0, 0.0, 0.0)], np.float32)


def _silent(done: int) -> None:
    del done


@dataclass(frozen=True, slots=True)
class Drawn:
    """The clicks that are tested: those whose draw is in [low, high), from one click on."""

    low: int
    high: int
    first: int  # accepted clicks before the first test
    n_tests: int
    n_clicks: int


class _Lottery:
    """Notes the draws of all clicks that could be tested."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._seed = np.uint64(seed)
        self._draws = [np.empty(0, np.uint64)]
        self._numbers = [np.empty(0, np.int64)]

    def picks(self, tiles: Tiles, partition_keys: NDArray[np.uint64]) -> Iterable[int]:
        found, draws = picked(tiles, self._seed, partition_keys, SAMPLED_BELOW, ALL_DRAWS)
        self._draws.append(draws)
        self._numbers.append(self._store.accepted + np.array(found, np.int64))
        return ()

    def examine(self, tiles: Tiles, t: int) -> None:
        """Nothing was picked."""

    def trained(self, tiles: Tiles) -> None:
        """Nothing more to look at."""

    def drawn(self, n_tests: int) -> Drawn:
        """Return the range of draws that holds `n_tests`, or all there are."""
        n_clicks = self._store.accepted
        first = round(WARM_UP * n_clicks)
        draws = np.sort(np.concatenate(self._draws)[np.concatenate(self._numbers) >= first])
        high = ALL_DRAWS if len(draws) <= n_tests else int(draws[n_tests])
        return Drawn(SAMPLED_BELOW, high, first, min(n_tests, len(draws)), n_clicks)


@dataclass(frozen=True, slots=True)
class Workplace:
    """What is evaluated: the file that `config` names, in a directory that may be written to."""

    config: Config
    clock: Clock
    directory: Path


class Stream:
    """A pipeline over the file, from its beginning."""

    def __init__(self, at: Workplace, config: Config | None = None) -> None:
        config = config or at.config
        letters = DeadLetters(at.directory / "dead-letters.jsonl", _ANY_NUMBER, 1.0)
        start = Start({}, Offsets(), "evaluation")
        self.pipeline = Pipeline(config, letters, at.clock, start)
        self.source: Source = open_source(config, at.clock)
        self.source.seek(Offsets(), {})

    def run(self, show: Callable[[int], None]) -> None:
        """Apply all clicks."""
        while not self.source.is_exhausted():
            self.pipeline.step(self.source, 0.0, MAX_BATCH)
            show(self.pipeline.clicks)
        self.pipeline.finish()

    def close(self) -> None:
        """Release the file."""
        self.source.close()
        self.pipeline.dead_letters.close()


class _Aged:
    """The same pipeline as it stood some time ago, with the setting that was ahead then."""

    def __init__(self, stream: Stream, age_ms: int) -> None:
        self._stream = stream
        self._age_ms = age_ms
        self._ranker = Ranker(stream.pipeline.store, stream.pipeline.quality.decay)
        self._next: ClickBatch | None = None

    def advance(self, now_ms: int) -> None:
        """Apply what was there by then, batch by batch."""
        batch = self._next or self._stream.source.poll(0.0, AGED_BATCH)
        while batch is not None and not _is_ahead(batch, now_ms - self._age_ms):
            self._stream.pipeline.apply(batch)
            batch = self._stream.source.poll(0.0, AGED_BATCH)
        self._next = batch

    def rank(self, keys: NDArray[np.uint64], number: int) -> int:
        """Return the rank of the first item for the session of the others, as served then."""
        pipeline = self._stream.pipeline
        target, *session = pipeline.store.vocabulary.rows_of(keys).tolist()
        if target < 0:
            return MISSED
        known = np.array([row for row in session if row >= 0], np.int64)
        setting = pipeline.quality.setting[None, :]
        return int(self._ranker.ranks(target, known, setting, number)[0])


def _is_ahead(batch: ClickBatch, until_ms: int) -> bool:
    times = batch.event_times_ms
    return len(times) > 0 and int(times[-1]) > until_ms


class Exam:
    """Ranks the drawn clicks by every contender."""

    def __init__(
        self, pipeline: Pipeline, drawn: Drawn, aged: Mapping[str, _Aged], rivals: CoOccurrence
    ) -> None:
        self._pipeline = pipeline
        self._drawn = drawn
        self._aged = aged
        self._rivals = rivals
        self._seed = np.uint64(pipeline.store.settings.seed)
        self._ranker = Ranker(pipeline.store, pipeline.quality.decay)
        self._fixed = np.array([*FIXED.values(), *POPULARITIES], np.float32)
        self._first_ms = np.full(len(pipeline.store.rows.clicks), _NEVER)
        self._rows = np.empty(0, np.int64), np.empty(0, np.int64)
        self._followed = 0
        self._sessions: list[int] = []
        self._times_ms: list[int] = []
        self._is_cold: list[bool] = []
        self._ranks: list[NDArray[np.int64]] = []

    def picks(self, tiles: Tiles, partition_keys: NDArray[np.uint64]) -> Iterable[int]:
        """Return the tiles that are tests."""
        vocabulary, n = self._pipeline.store.vocabulary, int(tiles.used[0])
        items = vocabulary.rows_of(tiles.items[:n])
        self._rows = items, vocabulary.rows_of(tiles.neighbours[:n].ravel())
        self._followed = 0
        accepted = self._pipeline.store.accepted
        drawn = self._drawn
        found, _ = picked(tiles, self._seed, partition_keys, drawn.low, drawn.high)
        return [t for t in found if accepted + t >= drawn.first]

    def examine(self, tiles: Tiles, t: int) -> None:
        """Rank a click by every contender."""
        self._follow(tiles, t)
        store, now_ms = self._pipeline.store, int(tiles.times[t])
        row, session = rows_before(tiles, t, store)
        number = int(tiles.numbers[t])
        settings = np.concatenate([self._fixed, self._pipeline.quality.setting[None, :]])
        ours = self._ranker.ranks(row, session, settings, number)
        keys = np.concatenate([tiles.items[t : t + 1], tiles.neighbours[t, : len(session)]])
        aged = []
        for one in self._aged.values():
            one.advance(now_ms)
            aged.append(one.rank(keys, number))
        ranks = ours, np.array(aged, np.int64), self._rivals.ranks(row, session)
        self._ranks.append(np.concatenate(ranks))
        self._sessions.append(number)
        self._times_ms.append(now_ms)
        self._is_cold.append(now_ms - int(self._first_ms[row]) < COLD_MS)

    def trained(self, tiles: Tiles) -> None:
        """Count what is left of the tiles."""
        self._follow(tiles, int(tiles.used[0]))

    def tests(self) -> Ranked:
        """Return what was found."""
        ranks = np.array(self._ranks, np.int64).reshape(len(self._ranks), -1)
        columns = [*((name, 1) for name in FIXED), ("popularity", len(POPULARITIES)), ("chosen", 1)]
        columns += [(name, 1) for name in self._aged]
        columns += [
            ("co_occurrence", len(self._rivals.counts)),
            ("item_knn", len(self._rivals.knn)),
        ]
        found, at = {}, 0
        for name, n in columns:
            found[name] = ranks[:, at : at + n]
            at += n
        return Ranked(
            sessions=np.array(self._sessions, np.int64),
            times_ms=np.array(self._times_ms, np.int64),
            is_cold=np.array(self._is_cold, np.bool_),
            ranks=found,
        )

    def _follow(self, tiles: Tiles, end: int) -> None:
        """Count the tiles before `end` that have not been counted."""
        span = range(self._followed, end)
        items, neighbours = self._rows
        self._rivals.count(tiles, span, items, neighbours)
        here = slice(span.start, span.stop)
        np.minimum.at(self._first_ms, items[here], tiles.times[here])
        self._followed = end


def draw(at: Workplace, n_tests: int) -> Drawn:
    """Read the file once, and draw `n_tests` clicks of it, or all that can be tested.

    Raises `ConfigError` where there is none.
    """
    training = at.config.training.model_copy(update={"dim": 2, "negatives": 1, "passes": 1})
    stream = Stream(at, at.config.model_copy(update={"training": training}))
    lottery = _Lottery(stream.pipeline.store, training.seed)
    stream.pipeline.examine_with(lottery)
    stream.run(_silent)
    stream.close()
    drawn = lottery.drawn(n_tests)
    if drawn.n_tests == 0:
        msg = (
            "expected clicks that follow another item of their session, found none in the last"
            f" {1 - WARM_UP:.0%} of {drawn.n_clicks} clicks"
        )
        unusable = stream.pipeline.ledger.dead_lettered
        if unusable:
            reasons = ", ".join(f"{n} {reason}" for reason, n in unusable.most_common())
            msg += f"; unusable records: {reasons}"
        raise ConfigError(msg)
    return drawn


def evaluate(
    at: Workplace,
    drawn: Drawn,
    show: Callable[[int], None] = _silent,
    *,
    is_wide: bool = False,
    ages_ms: Mapping[str, int] = AGES_MS,
) -> Ranked:
    """Test the drawn clicks; `show` is told how many have been read. Blocks for minutes.

    `is_wide`: the baselines try more settings. `ages_ms`: contenders that are served so old.
    """
    live, streams = Stream(at), {name: Stream(at) for name in ages_ms}
    aged = {name: _Aged(stream, ages_ms[name]) for name, stream in streams.items()}
    rivals = CoOccurrence(len(live.pipeline.store.rows.clicks), is_wide=is_wide)
    exam = Exam(live.pipeline, drawn, aged, rivals)
    live.pipeline.examine_with(exam)
    live.run(show)
    for stream in (live, *streams.values()):
        stream.close()
    return exam.tests()
