"""Build a FAISS index from a committed generation, and measure its recall.

An index is a function of (items, settings) alone: pure-index. A version holds one index of each
kind, or a single exact one while there are too few items for lists and codes. How much an index
searches (nprobe of lists, k_factor of codes) is chosen here, as the least that meets the recall
target for query items drawn as often as they are clicked: rarely seen items are still noise,
and no partition holds noise.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from kernels.memory import read_popularity
from kernels.topk import top_k
from state.sections import Section, Sections

IVF, LSH, EXACT = "ivf", "lsh", "exact"
RECALL_AT = 10
SHARD_PREFIX = "shard-"

_MAX_QUERIES = 1000  # of each of the two draws
_KMEANS_ITERATIONS = 8
_KMEANS_POINTS = 64  # for each list; more costs time and no recall was gained
_TIE = np.float32(1e-6)  # results this close to the tenth are the tenth


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What is built: kinds of index, and what they must reach."""

    kinds: tuple[str, ...]
    recall_target: float
    lsh_bits: int
    min_rows: int
    seed: int


@dataclass(frozen=True, slots=True)
class Items:
    """The items that are published, as columns; id i is id_bytes[id_ends[i - 1] : id_ends[i]]."""

    vectors: NDArray[np.float32]  # (n, dim), of length one
    id_bytes: NDArray[np.uint8]  # (total,)
    id_ends: NDArray[np.int64]  # (n,)
    clicks: NDArray[np.int64]  # (n,), >= 1
    popularity: NDArray[np.float32]  # (n, 2), decayed counts at the cut, fast and slow

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    def ids(self) -> list[bytes]:
        """Return the id of each item."""
        together = self.id_bytes.tobytes()
        ends = self.id_ends.tolist()
        return [together[a:b] for a, b in pairwise([0, *ends])]


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """A FAISS index, its parameters and its measured recall@10, click-weighted and uniform.

    `reason` tells why an exact index stands in for the kinds that were asked for.
    """

    kind: str
    index: Any
    parameters: dict[str, int | float]
    recall: dict[str, float]
    reason: str | None = None


def published_items(sections: Sections) -> Items:
    """Return the clicked items of a generation that have a direction, in the order of their keys.

    So the order does not depend on the number of shards.
    """
    store = sections["store"].values
    names = sorted(name for name in sections if name.startswith(SHARD_PREFIX))
    parts = [_shard_items(sections[name], store) for name in names]
    keys, items = [key for key, _ in parts], [items for _, items in parts]
    ends = np.cumsum([0] + [part.id_bytes.shape[0] for part in items])
    together = Items(
        vectors=np.concatenate([part.vectors for part in items]),
        id_bytes=np.concatenate([part.id_bytes for part in items]),
        id_ends=np.concatenate(
            [part.id_ends + end for part, end in zip(items, ends, strict=False)]
        ),
        clicks=np.concatenate([part.clicks for part in items]),
        popularity=np.concatenate([part.popularity for part in items]),
    )
    return _taken(together, np.argsort(np.concatenate(keys), kind="stable"))


def build(items: Items, settings: IndexSettings) -> dict[str, BuiltIndex]:
    """Return the indexes of a version, by kind.

    Blocks for the length of training and measuring, on the calling thread alone: the other
    cores belong to the stream.
    """
    faiss.omp_set_num_threads(1)
    if len(items) < settings.min_rows:
        return {EXACT: _exact(items, settings)}
    truth = _Truth.draw(items, settings.seed)
    built = {}
    for kind in settings.kinds:
        widened = _widened_lists if kind == IVF else _widened_codes
        built[kind] = _narrowest(kind, widened(items, settings), truth, settings.recall_target)
    return built


def _exact(items: Items, settings: IndexSettings) -> BuiltIndex:
    index = faiss.IndexFlatIP(items.vectors.shape[1])
    index.add(items.vectors)
    reason = f"{len(items)} items are fewer than index.min_rows {settings.min_rows}"
    return BuiltIndex(EXACT, index, {}, {"click_weighted": 1.0, "uniform": 1.0}, reason)


_Step = tuple[Any, dict[str, int | float]]


def _narrowest(kind: str, steps: Iterator[_Step], truth: "_Truth", target: float) -> BuiltIndex:
    """Take the first step that meets the target, or the last there is."""
    index, parameters = next(steps)
    while (reached := truth.click_weighted.recall(index)) < target:
        wider = next(steps, None)
        if wider is None:
            break
        index, parameters = wider
    recall = {"click_weighted": reached, "uniform": truth.uniform.recall(index)}
    return BuiltIndex(kind, index, parameters, recall)


def _widened_lists(items: Items, settings: IndexSettings) -> Iterator[_Step]:
    n, dim = items.vectors.shape
    n_lists = max(1, min(math.isqrt(n), n // 39))  # below 39 points a list FAISS warns
    clustering = faiss.Kmeans(
        dim,
        n_lists,
        niter=_KMEANS_ITERATIONS,
        max_points_per_centroid=_KMEANS_POINTS,
        seed=settings.seed % (1 << 31),
        spherical=True,
    )
    clustering.train(items.vectors)
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(clustering.centroids)
    index = faiss.IndexIVFFlat(quantizer, dim, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.add(items.vectors)
    for n_probed in _ladder(n_lists):
        index.nprobe = n_probed
        yield index, {"nlist": n_lists, "nprobe": n_probed}


def _widened_codes(items: Items, settings: IndexSettings) -> Iterator[_Step]:
    n, dim = items.vectors.shape
    codes = faiss.IndexLSH(dim, settings.lsh_bits, True, False)  # rotated, no thresholds
    codes.add(items.vectors)
    # The refinement takes its metric from the codes: under L2 it sorts inner products upside down.
    codes.metric_type = faiss.METRIC_INNER_PRODUCT
    exact = faiss.IndexFlatIP(dim)
    exact.add(items.vectors)
    index = faiss.IndexRefine(codes, exact)
    for factor in _ladder(-(-n // RECALL_AT)):
        index.k_factor = factor
        yield index, {"bits": settings.lsh_bits, "k_factor": factor}


def _ladder(end: int) -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 8, 12, 16, ... and at last `end`."""
    step = 1
    while step < end:
        yield step
        step += max(1, (1 << step.bit_length()) // 4)
    yield end


@dataclass(frozen=True, slots=True)
class _Queries:
    """Items asked for their neighbours, and the score of the last neighbour that counts."""

    vectors: NDArray[np.float32]  # (m, dim)
    rows: NDArray[np.int64]  # (m,)
    n_true: int
    floor: NDArray[np.float32]  # (m,)

    @classmethod
    def of(cls, items: Items, rows: NDArray[np.int64]) -> "_Queries":
        vectors = items.vectors[rows]
        n_true = min(RECALL_AT, len(items) - 1)
        scores, found = top_k(items.vectors, vectors, n_true + 1)
        return cls(vectors, rows, n_true, _without(rows, found, scores).min(axis=1) - _TIE)

    def recall(self, index: Any) -> float:
        """Return the share of true neighbours among as many that `index` finds, self excluded."""
        scores, found = index.search(self.vectors, self.n_true + 1)
        others = _without(self.rows, found, scores)
        return float(np.mean(others >= self.floor[:, None]))


def _without(
    rows: NDArray[np.int64], found: NDArray[np.int64], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return `scores` without the query's own, or without the last where it was not found."""
    own = found == rows[:, None]
    own[:, -1] |= ~own.any(axis=1)
    others: NDArray[np.float32] = scores[~own].reshape(scores.shape[0], -1)
    return others


@dataclass(frozen=True, slots=True)
class _Truth:
    """The exact neighbours of two draws of items."""

    click_weighted: _Queries
    uniform: _Queries

    @classmethod
    def draw(cls, items: Items, seed: int) -> "_Truth":
        rng = np.random.default_rng(seed)
        n, m = len(items), min(len(items), _MAX_QUERIES)
        at = rng.integers(items.clicks.sum(), size=m)
        clicked = np.searchsorted(np.cumsum(items.clicks), at, side="right")
        return cls(
            click_weighted=_Queries.of(items, clicked),
            uniform=_Queries.of(items, np.sort(rng.choice(n, m, replace=False))),
        )


def _shard_items(shard: Section, store: Mapping[str, Any]) -> tuple[NDArray[np.uint64], Items]:
    arrays = shard.arrays
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = arrays["inputs"] + arrays["outputs"]
        length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        rows = np.flatnonzero((arrays["clicks"] > 0) & (length > 0) & np.isfinite(length))
        length[length == 0] = 1
        vectors /= length[:, None]
    popularity = np.empty(arrays["popularity"].shape, np.float32)
    half_lives = np.asarray(store["half_lives"], np.float64)
    read_popularity(arrays["popularity"], store["accepted"], half_lives, popularity)
    items = Items(
        vectors=vectors,
        id_bytes=arrays["id_bytes"],
        id_ends=arrays["id_ends"],
        clicks=arrays["clicks"],
        popularity=popularity,
    )
    return arrays["keys"][rows], _taken(items, rows)


def _taken(items: Items, rows: NDArray[np.int64]) -> Items:
    """Return the items at `rows`, in that order."""
    starts = np.concatenate([np.zeros(1, np.int64), items.id_ends])[:-1]
    lengths = (items.id_ends - starts)[rows]
    ends = np.cumsum(lengths)
    shift = np.repeat(starts[rows] - (ends - lengths), lengths)
    return Items(
        vectors=items.vectors[rows],
        id_bytes=items.id_bytes[np.arange(shift.shape[0]) + shift],
        id_ends=ends,
        clicks=items.clicks[rows],
        popularity=items.popularity[rows],
    )
