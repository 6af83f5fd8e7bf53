"""One life of a writer over a state directory, start to end, as the daemon leads it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from state import lease, succession
from state.checkpoint import Checkpoints
from state.lease import Hold
from state.manifest import GenerationName
from state.offsets import Offsets, Partition
from state.recovery import Recovered
from state.sections import Section, Sections

FINGERPRINT = {"store.dim": 2, "training.seed": 1}
CLICKS = Partition("clicks", 0)


def sections_of(value: int) -> Sections:
    rows = np.full((value % 5, 2), value, "f4")
    shard = Section({"inputs": rows, "keys": np.arange(value % 5, dtype="u8")})
    return {"shard-000": shard, "store": Section(values={"accepted": value}), "empty": Section()}


class Life:
    """Start on `directory`, going on from what is recovered; `end` is what a kill does."""

    def __init__(
        self,
        directory: Path,
        generation: int | None = None,
        retain: int = 3,
        on_step: Callable[[int], None] = lambda step: None,
        hold: Hold | None = None,
    ) -> None:
        self.directory = directory
        self.hold = hold or lease.hold(directory)
        try:
            self.recovered, self.tenure = succession.succeed(
                directory, self.hold, FINGERPRINT, generation
            )
            self.checkpoints = Checkpoints(directory, self.tenure, retain, on_step)
            self.checkpoints.adopt(self.recovered)
        except BaseException:
            self.hold.release()
            raise

    def commit(self, value: int) -> GenerationName:
        return self.checkpoints.commit(
            sections_of(value),
            offsets=Offsets({CLICKS: value}),
            fingerprint=FINGERPRINT,
            settings={"retain": 3},
            facts={"accepted": value},
            created_ms=1_700_000_000_000 + value,
        )

    def end(self) -> None:
        self.hold.release()


def value_of(recovered: Recovered | None) -> int | None:
    """Return the value that `recovered` holds, having checked that it is whole; None if fresh."""
    if recovered is None:
        return None
    value = recovered.manifest.offsets[CLICKS]
    wanted = sections_of(value)
    assert recovered.manifest.facts == {"accepted": value}
    assert recovered.manifest.name == recovered.name
    assert recovered.sections.keys() == wanted.keys()
    for name, section in wanted.items():
        found = recovered.sections[name]
        assert found.values == section.values
        assert found.arrays.keys() == section.arrays.keys()
        for key, array in section.arrays.items():
            assert found.arrays[key].dtype == array.dtype
            assert np.array_equal(found.arrays[key], array)
    return value


def restored_value(directory: Path) -> int | None:
    """Start and end a life; return the value that it went on from."""
    life = Life(directory)
    life.end()
    return value_of(life.recovered)
