"""Recall and reciprocal ranks of contenders, and their ratios with a paired interval."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.training.live_quality import TOP, worth

FIGURES = ("recall_at_20", "mrr_at_20", "cold_recall_at_20")
N_RESAMPLED = 1000
assert TOP == 20  # as the figures are named


@dataclass(frozen=True, slots=True)
class Ranked:
    """What was tested; the columns of a contender are its settings."""

    sessions: NDArray[np.int64]  # (n,)
    times_ms: NDArray[np.int64]  # (n,)
    is_cold: NDArray[np.bool_]  # (n,)
    ranks: Mapping[str, NDArray[np.int64]]  # name -> (n, n_settings)

    def values(self, name: str) -> dict[str, NDArray[np.float64]]:
        """Return what each test adds to each figure, (n,), by the best setting for that figure."""
        reciprocal, is_hit = worth(self.ranks[name])
        cold = is_hit & self.is_cold[:, None]
        columns = zip(FIGURES, (is_hit, reciprocal, cold), strict=True)
        return {
            figure: values[:, values.sum(axis=0).argmax()].astype(np.float64)
            for figure, values in columns
        }

    def results(self) -> dict[str, dict[str, float]]:
        """Return every contender's figures; nan where nothing was tested."""
        totals = {figure: len(self.sessions) for figure in FIGURES}
        totals["cold_recall_at_20"] = int(self.is_cold.sum())
        return {
            name: {
                figure: round(float(values.sum() / totals[figure]), 4) if totals[figure] else 0.0
                for figure, values in self.values(name).items()
            }
            for name in self.ranks
        }

    def ratios(self, base: str, seed: int) -> dict[str, dict[str, list[float]]]:
        """Return [ratio, low, high] to `base`, a 95 % interval over resampled sessions.

        The same sessions are drawn for both, so the interval is that of the difference.
        """
        _, session = np.unique(self.sessions, return_inverse=True)
        n = int(session.max(initial=-1)) + 1
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(n, np.full(n, 1 / max(n, 1)), N_RESAMPLED).astype(np.float32)
        below = {
            figure: _sums(session, values, n, drawn) for figure, values in self.values(base).items()
        }
        return {
            name: {
                figure: _ratio(_sums(session, values, n, drawn), below[figure])
                for figure, values in self.values(name).items()
            }
            for name in self.ranks
            if name != base
        }


def _sums(
    session: NDArray[np.intp], values: NDArray[np.float64], n: int, drawn: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the sum over all sessions, and that over each draw of them, (1 + n_drawn,)."""
    by_session = np.bincount(session, values, minlength=n)
    return np.concatenate([[by_session.sum()], drawn @ by_session.astype(np.float32)])


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> list[float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = above / below
    low, high = (
        np.nanpercentile(ratios[1:], [2.5, 97.5]) if np.isfinite(ratios[1:]).any() else (0.0, 0.0)
    )
    return [round(float(one), 4) if np.isfinite(one) else 0.0 for one in (ratios[0], low, high)]
