"""What became of every click that was read, counted where it happens (nothing-vanishes)."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from state.sections import Section


class Ledger:
    """Counts of the space's clicks; part of every generation.

    >>> ledger = Ledger(Section())
    >>> ledger.read += 3
    >>> ledger.applied += 2
    >>> ledger.filter("late", 1)
    >>> ledger.missing(held=0)
    0
    """

    def __init__(self, section: Section) -> None:
        values = section.values
        self.read: int = values.get("read", 0)
        self.applied: int = values.get("applied", 0)
        self.pairs: int = values.get("pairs", 0)
        self.filtered: Counter[str] = Counter(values.get("filtered", {}))
        self.dead_lettered: Counter[str] = Counter(values.get("dead_lettered", {}))
        # Never read, so no part of the sum.
        self.lost: Counter[str] = Counter(values.get("lost", {}))

    def filter(self, reason: str, n: int) -> None:
        """Count clicks that are left out for a reason that is no fault of theirs."""
        if n:
            self.filtered[reason] += n

    def missing(self, held: int) -> int:
        """Return the clicks that were read and are nowhere; anything but 0 is a bug."""
        accounted = self.applied + held + self.filtered.total() + self.dead_lettered.total()
        return self.read - accounted

    def counts(self, held: int) -> dict[str, Any]:
        """Return all counts by name, as summaries and manifests print them."""
        return {
            "clicks": self.read,
            "applied": self.applied,
            "held": held,
            "filtered": self.filtered.total(),
            "dead_lettered": self.dead_lettered.total(),
            "pairs": self.pairs,
            "filtered_by_reason": _ordered(self.filtered),
            "dead_lettered_by_reason": _ordered(self.dead_lettered),
            "lost": self.lost.total(),
        }

    def snapshot(self) -> Section:
        """Return what a restart needs."""
        return Section(
            values={
                "read": self.read,
                "applied": self.applied,
                "pairs": self.pairs,
                "filtered": _ordered(self.filtered),
                "dead_lettered": _ordered(self.dead_lettered),
                "lost": _ordered(self.lost),
            }
        )


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
