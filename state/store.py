"""The shards together: which shard holds a key, and what a generation keeps of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.negatives import Noise
from kernels.pairs import Pairs
from kernels.scratch import Scratch
from kernels.sgns import Learning, Rows
from kernels.tiles import Tiles
from kernels.vocabulary import FULL, Ids
from state import shard as shards
from state.errors import ForeignCheckpoint
from state.sections import Section, Sections
from state.shard import MemorySettings
from state.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What gives a store its meaning; fixed for the life of a space."""

    dim: int
    max_items: int
    n_shards: int
    seed: int
    noise_table_size: int
    memory: MemorySettings


def shard_name(shard: int) -> str:
    """Return the name of a shard's section."""
    return f"shard-{shard:03d}"


class Store:
    """Rows of all items, written by the one thread that owns it.

    A store is built from the sections of a generation; from none, it is the empty store of a new
    space (resume-is-start).

    >>> memory = MemorySettings((3000.0, 50000.0), 20000.0, 32, 64, 1024, 16)
    >>> settings = StoreSettings(8, 100, 2, 1, 16, memory)
    >>> store = Store(settings, {}, space_id="s")
    >>> again = Store(settings, store.snapshot(), space_id="unused")
    >>> again.space_id, len(again)
    ('s', 0)
    """

    def __init__(self, settings: StoreSettings, sections: Sections, space_id: str) -> None:
        self.settings = settings
        self.space_id = space_id
        self.n_reset = 0
        self.vocabulary = Vocabulary(settings.max_items, settings.n_shards)
        self._noise = Noise(np.zeros(settings.noise_table_size, np.int64), np.zeros(1, np.int64))
        ids = self.vocabulary.arrays
        self._rows = shards.allocate(
            len(ids.keys), settings.dim, settings.memory, ids.table_keys, ids.table_slots
        )
        per_shard = self.vocabulary.rows_per_shard
        self._shards = [
            shards.Shard(self._rows, settings.dim, s * per_shard) for s in range(settings.n_shards)
        ]
        if sections:
            self._restore(sections)

    def __len__(self) -> int:
        return len(self.vocabulary)

    @property
    def accepted(self) -> int:
        """Clicks trained since the space began: the clock of half-lives."""
        return int(self._rows.accepted[0])

    def count_clicked(self) -> int:
        """Return how many items have been clicked."""
        spans = zip(*self.vocabulary.spans(), strict=True)
        return sum(int(np.count_nonzero(self._rows.clicks[a:b])) for a, b in spans)

    @property
    def rows(self) -> Rows:
        """What has been learned and is remembered, to be read by the thread that trains."""
        return self._rows

    def admit(self, ids: Ids) -> NDArray[np.int64]:
        """Return the row of each item; new ones begin with a newborn's values.

        The caller has asked the vocabulary whether there is room.
        """
        before = self.vocabulary.arrays.shard_sizes.copy()
        rows = self.vocabulary.admit(ids)
        assert not (rows == FULL).any()
        for shard, begin in enumerate(before):
            first = shard * self.vocabulary.rows_per_shard
            new = np.arange(first + begin, first + self.vocabulary.shard_size(shard))
            if len(new):
                keys = self.vocabulary.arrays.keys[new]
                shards.initialise(self._rows, self.settings.dim, new, keys, self.settings.seed)
        return rows

    def train(
        self, tiles: Tiles, span: range, pairs: Pairs, learning: Learning, scratch: Scratch
    ) -> int:
        """Train tiles whose items have been admitted; count and return the pairs trained."""
        return shards.train(self._rows, self._noise, pairs, tiles, span, learning, scratch)

    def snapshot(self) -> dict[str, Section]:
        """Return what a generation keeps, as copies that later training cannot touch.

        A non-finite row never enters a generation: it is reset, and counted in `n_reset`.
        """
        settings = self.settings
        values = {
            "space_id": self.space_id,
            "accepted": self.accepted,
            "half_lives": list(settings.memory.popularity_half_lives),
            "transition_half_life": settings.memory.transition_half_life,
            "dim": settings.dim,
            "n_shards": settings.n_shards,
            "max_items": settings.max_items,
        }
        filled = int(self._noise.filled[0])
        sections = {
            "store": Section(values=values),
            "noise": Section({"entries": self._noise.entries[:filled].copy()}),
            "recent_sessions": shards.copy_sessions(self._rows),
        }
        for number, shard in enumerate(self._shards):
            sections[shard_name(number)] = self._copy_shard(number, shard)
        return sections

    def _copy_shard(self, number: int, shard: shards.Shard) -> Section:
        size = self.vocabulary.shard_size(number)
        keys = self.vocabulary.arrays.keys
        self.n_reset += shard.reset_non_finite(size, keys, self.settings.seed)
        id_bytes, id_ends = self.vocabulary.ids(number)
        arrays = shard.copy(size)
        arrays["keys"] = keys[shard.begin : shard.begin + size].copy()
        return Section({**arrays, "id_bytes": id_bytes, "id_ends": id_ends})

    def _restore(self, sections: Sections) -> None:
        values = sections["store"].values
        for name in ("dim", "n_shards", "max_items"):
            if values[name] != getattr(self.settings, name):
                msg = (
                    f"generation was made with {name} {values[name]!r}, "
                    f"configured is {getattr(self.settings, name)!r}"
                )
                raise ForeignCheckpoint(msg)
        self.space_id = values["space_id"]
        self._rows.accepted[0] = values["accepted"]
        entries = sections["noise"].arrays["entries"]
        self._noise.entries[: len(entries)] = entries
        self._noise.filled[0] = len(entries)
        shards.restore_sessions(self._rows, sections["recent_sessions"])
        for number, shard in enumerate(self._shards):
            section = sections[shard_name(number)]
            shard.restore(section)
            arrays = section.arrays
            self.vocabulary.restore(number, arrays["keys"], arrays["id_bytes"], arrays["id_ends"])
