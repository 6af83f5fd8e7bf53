"""What one index version answers: candidates from its index, re-scored exactly.

score(i) = q . v_i n_i/(n_i + kappa) + b log(1 + popularity_i), where n_i are the item's clicks:
kappa is for neighbours, where rarely clicked items would crowd in, b for sessions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from kernels.topk import largest
from state.index import IVF, LSH, RECALL_AT
from state.versions import Version
from streamer.errors import InvalidQuery, UnknownItem
from streamer.settings.process import Serving

Vector = NDArray[np.float32]
Rows = NDArray[np.int64]

_DIRECTIONLESS = 1e-12


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may ask of a query beside its direction.

    `popularity` is b, by default 0, in sessions the configured one. `n_probed` is how many
    lists an IVF index searches; the other kinds have none and pass over it.
    """

    limit: int = 10
    offset: int = 0
    popularity: float | None = None
    score_threshold: float | None = None
    exclude: Iterable[bytes] = ()
    is_exact: bool = False
    n_probed: int | None = None


@dataclass(frozen=True, slots=True)
class _Terms:
    """b and kappa of the score."""

    popularity: float
    shrinkage: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of one version, best first, and their scores."""

    version: "Searchable"
    rows: Rows
    scores: Vector

    def ids(self) -> list[bytes]:
        """Return the id of each row."""
        return [self.version.ids[row] for row in self.rows.tolist()]


@dataclass(frozen=True, slots=True)
class Searchable:
    """A version with what its queries need at hand; immutable, searched by many threads."""

    version: Version
    ids: list[bytes]
    rows: Mapping[bytes, int]
    log_popularity: Vector  # (n,), log(1 + the fast one)
    by_popularity: Rows  # (n,), most popular first
    settings: Serving
    previous: str | None = field(default=None)

    @classmethod
    def of(cls, version: Version, settings: Serving, previous: str | None = None) -> "Searchable":
        """Prepare a version; blocks for the length of a pass over its items."""
        items = version.items
        ids = items.ids()
        log_popularity = np.log1p(items.popularity[:, 0])
        return cls(
            version=version,
            ids=ids,
            rows={one: row for row, one in enumerate(ids)},
            log_popularity=log_popularity,
            by_popularity=np.argsort(-log_popularity, kind="stable"),
            settings=settings,
            previous=previous,
        )

    def row(self, item: bytes) -> int:
        """Return the row of an item; raises `UnknownItem`."""
        row = self.rows.get(item)
        if row is None:
            text = item.decode("utf-8", "replace")
            message = f"expected an item of version {self.version.name}, found {text!r}; "
            raise UnknownItem(message + "it was never clicked, or since this version was made")
        return row

    def neighbors(self, item: bytes, options: Options) -> Answer:
        """Return the items nearest to `item`, itself left out."""
        row = self.row(item)
        return self._answer(self.version.items.vectors[row], options, self._near(options), [row])

    def query(self, vector: Vector, options: Options) -> Answer:
        """Return the items nearest to a vector, of any length but zero."""
        dim = self.version.items.vectors.shape[1]
        if vector.shape != (dim,):
            message = f"query: expected {dim} numbers, found {vector.size}"
            raise InvalidQuery(message)
        return self._answer(_direction(vector, "query"), options, self._near(options))

    def recommend(
        self, positive: Sequence[bytes], negative: Sequence[bytes], options: Options
    ) -> Answer:
        """Return what is near the positive items and far from the negative ones, all left out.

        The direction is mean(positive) + (mean(positive) - mean(negative)), as in Qdrant's
        average_vector.
        """
        if not positive:
            message = "query.recommend.positive: expected at least one item, found none"
            raise InvalidQuery(message)
        vectors = self.version.items.vectors
        liked, disliked = ([self.row(item) for item in items] for items in (positive, negative))
        direction = vectors[liked].mean(axis=0)
        if disliked:
            direction = 2 * direction - vectors[disliked].mean(axis=0)
        direction = _direction(direction, "query.recommend")
        return self._answer(direction, options, self._near(options), liked + disliked)

    def session(self, items: Sequence[bytes], decay: float, options: Options) -> Answer:
        """Return what the session may click next, its own items left out.

        Items that the version does not hold are passed over. Where it holds none of them, the
        most popular items are the answer, and none if popularity counts for nothing.
        """
        known = [self.rows[item] for item in items if item in self.rows]
        last = known[: -self.settings.session_items - 1 : -1]
        weights = np.float32(decay) ** np.arange(len(last), dtype=np.float32)
        direction = weights @ self.version.items.vectors[last]
        length = np.linalg.norm(direction)
        towards = direction / length if length > _DIRECTIONLESS else None
        given = options.popularity
        terms = _Terms(self.settings.popularity if given is None else given, 0.0)
        return self._answer(towards, options, terms, known)

    def _near(self, options: Options) -> _Terms:
        return _Terms(options.popularity or 0.0, self.settings.shrinkage)

    def _answer(
        self, direction: Vector | None, options: Options, terms: _Terms, own: Sequence[int] = ()
    ) -> Answer:
        """Score the candidates exactly, and return those asked for."""
        excluded = {self.rows[item] for item in options.exclude if item in self.rows}.union(own)
        wanted = options.offset + options.limit
        rows = np.arange(len(self.ids))
        if direction is None and terms.popularity == 0:
            rows = rows[:0]
        elif not options.is_exact:
            n_candidates = max(self.settings.candidates, wanted) + len(excluded)
            rows = self._candidates(direction, n_candidates, options.n_probed, terms)
        scores = self._scores(rows, direction, terms)
        if excluded:
            scores[np.isin(rows, np.fromiter(excluded, np.int64))] = -np.inf
        best, places = largest(scores, min(wanted, len(rows)))
        floor = -np.inf if options.score_threshold is None else options.score_threshold
        kept = np.flatnonzero((places >= 0) & (best >= floor))[options.offset :]
        return Answer(self, rows[places[kept]], best[kept])

    def _candidates(
        self, direction: Vector | None, n: int, n_probed: int | None, terms: _Terms
    ) -> Rows:
        """Return the index's nearest and, where popularity counts, the most popular, in order."""
        found = [] if direction is None else [self._nearest(direction, n, n_probed)]
        if terms.popularity > 0:
            found.append(self.by_popularity[:n])
        return np.unique(np.concatenate(found))

    def _nearest(self, direction: Vector, n: int, n_probed: int | None) -> Rows:
        index, kind = self.version.index, self.version.kind
        chosen = self.version.index_facts["parameters"]
        params: Any = None
        if kind == IVF and n_probed is not None:
            params = faiss.SearchParametersIVF()
            params.nprobe = min(n_probed, chosen["nlist"])
        if kind == LSH:
            # The factor was chosen for ten results; the codes fetched for n are enough for ten.
            params = faiss.IndexRefineSearchParameters()
            params.k_factor = max(1.0, chosen["k_factor"] * (RECALL_AT + 1) / n)
        faiss.omp_set_num_threads(1)  # of the calling thread; one query is too short to divide
        k = min(n, len(self.ids))
        if k == 0:
            return np.empty(0, np.int64)
        rows: Rows = index.search(direction[None], k, params=params)[1][0]
        return rows[rows >= 0]

    def _scores(self, rows: Rows, direction: Vector | None, terms: _Terms) -> Vector:
        items = self.version.items
        at = slice(None) if len(rows) == len(self.ids) else rows  # all of them are not copied
        scores = np.zeros(len(rows), np.float32)
        if direction is not None:
            scores += items.vectors[at] @ direction
            if terms.shrinkage > 0:
                clicks = items.clicks[at].astype(np.float32)
                scores *= clicks / (clicks + np.float32(terms.shrinkage))
        if terms.popularity > 0:
            scores += np.float32(terms.popularity) * self.log_popularity[at]
        return scores


def _direction(vector: Vector, where: str) -> Vector:
    if not np.isfinite(vector).all():
        message = f"{where}: expected finite numbers that fit 32 bits, found others"
        raise InvalidQuery(message)
    wide = vector.astype(np.float64)  # the square of a large float32 is no float32
    length = np.linalg.norm(wide)
    if length <= _DIRECTIONLESS:
        message = f"{where}: expected a vector that points somewhere, found one of length 0"
        raise InvalidQuery(message)
    return (wide / length).astype(np.float32)
