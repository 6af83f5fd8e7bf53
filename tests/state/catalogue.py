"""Small catalogues of items around tastes, and the generations and versions made from them."""

from pathlib import Path

import numpy as np

from state import lease
from state.index import BuiltIndex, IndexSettings, Items, build
from state.lease import Hold
from state.manifest import GenerationName, Manifest
from state.offsets import Offsets, Partition
from state.publication import Publications
from state.versions import VersionName

SMALL = IndexSettings(("ivf", "lsh"), recall_target=0.97, lsh_bits=128, min_rows=300, seed=1)


def catalogue(n: int, dim: int = 8, seed: int = 1) -> Items:
    """n items named item-0.., around one direction in twenty; the first are clicked most."""
    rng = np.random.default_rng(seed)
    tastes = rng.normal(size=(max(1, n // 20), dim))
    vectors = tastes[np.arange(n) % len(tastes)] + 0.3 * rng.normal(size=(n, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    clicks = np.maximum(1, 5000 // (1 + np.arange(n)))
    return items_of([f"item-{i}".encode() for i in range(n)], vectors, clicks)


def items_of(ids: list[bytes], vectors: np.ndarray, clicks: np.ndarray) -> Items:
    return Items(
        vectors=np.ascontiguousarray(vectors, "f4"),
        id_bytes=np.frombuffer(b"".join(ids), "u1"),
        id_ends=np.cumsum([len(one) for one in ids], dtype="i8"),
        clicks=np.asarray(clicks, "i8"),
        popularity=np.stack([clicks, clicks * 2], axis=1).astype("f4"),
    )


def generation(number: int, term: int = 1) -> Manifest:
    return Manifest(
        name=GenerationName(term, number),
        parent=None,
        offsets=Offsets({Partition("clicks", 0): 10 * number}),
        fingerprint={},
        settings={},
        facts={"space_id": "space", "event_times_ms": [["clicks", 0, 1000 * number]]},
        created_ms=0,
        parts=(),
    )


class Publisher:
    """One term's publisher over `<directory>/published`, as the daemon uses it."""

    def __init__(
        self,
        directory: Path,
        restored: GenerationName | None = None,
        retain: int = 3,
        hold: Hold | None = None,
    ) -> None:
        self.published = directory / "published"
        self.hold = hold or lease.hold(directory)
        self.tenure = self.hold.begin_term(restored)
        self.publications = Publications(self.published, self.tenure, retain)
        self.publications.adopt(restored)

    def publish(
        self,
        number: int,
        items: Items | None = None,
        built: dict[str, BuiltIndex] | None = None,
        created_ms: int = 1_700_000_000_000,
    ) -> VersionName:
        items = catalogue(40) if items is None else items
        return self.publications.publish(
            generation(number, self.tenure.term),
            items,
            build(items, SMALL) if built is None else built,
            created_ms,
        )
