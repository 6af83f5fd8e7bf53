"""What an evaluation has found, as a table and as one JSON object."""

from collections.abc import Mapping
from typing import Any

from streamer.evaluation.figures import FIGURES, Ranked

BASE = "co_occurrence"
_TITLES = dict(zip(FIGURES, ("recall@20", "MRR@20", "cold recall@20"), strict=True))


def as_object(tests: Ranked, seed: int) -> dict[str, Any]:
    """Return `tests, cold_tests, results, ratios`; ratios are [ratio, low, high] to `BASE`."""
    return {
        "tests": len(tests.sessions),
        "cold_tests": int(tests.is_cold.sum()),
        "results": tests.results(),
        "ratios": tests.ratios(BASE, seed),
    }


def as_table(found: Mapping[str, Any]) -> str:
    """Return one line for each contender, with its ratios to the base."""
    width = max(len(name) for name in found["results"])
    head = "".join(f"{_TITLES[figure]:>16} {'x ' + BASE:>24}" for figure in FIGURES)
    lines = [f"{'':{width}}{head}"]
    for name, figures in found["results"].items():
        cells = "".join(
            f"{figures[figure]:>16.4f} {_ratio(found['ratios'].get(name), figure):>24}"
            for figure in FIGURES
        )
        lines.append(f"{name:{width}}{cells}")
    tail = f"{found['tests']:,} tests, {found['cold_tests']:,} of items first seen under 6 h before"
    return "\n".join([*lines, tail])


def _ratio(ratios: Mapping[str, list[float]] | None, figure: str) -> str:
    if ratios is None:
        return ""
    ratio, low, high = ratios[figure]
    return f"{ratio:.3f} ({low:.3f} to {high:.3f})"
