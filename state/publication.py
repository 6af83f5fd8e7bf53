"""Index versions as files: how they are written, and what a superseded writer leaves.

    published/OWNER, terms/0003          mirror those of the state directory
    published/v0003-000000000042/        manifest.json, <kind>.faiss, vectors, items
    published/CURRENT                    "v0003-000000000042 3": the version, the writer's term

A version is there whole or not at all. What a process does that was paused after a check, and
superseded meanwhile: a version that it renames into place has its term in its name, and counts
only if its generation does; a `CURRENT` that it writes, or removes, readers pass over for the
newest version that counts; and what it collects was one too many before the newer term began.
"""

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
from numpy.typing import NDArray

from state import durable
from state.durable import Part
from state.errors import PublicationError, Superseded
from state.index import BuiltIndex, Items
from state.lease import Tenure, collect_terms, name_owner, read_owner, terms
from state.manifest import FILE_NAME, GenerationName, Manifest, seal
from state.sections import Section
from state.versions import FORMAT, VersionName, counting, read_line, verified_manifest, versions

_WRITE_BYTES = 4 << 20


class Publications:
    """The write side, under one tenure; called from one thread, beside the stream."""

    def __init__(self, directory: Path, tenure: Tenure, retain: int) -> None:
        self._directory = directory
        self._tenure = tenure
        self._retain = retain
        self._newest: VersionName | None = None
        self._next_number = 1

    def adopt(self, restored: GenerationName | None) -> None:
        """Take over what older terms published, before the first `publish` of this one.

        1. mirror the term, from where readers pass over what older terms still write
        2. point CURRENT, under our term, at the newest version in the ancestry of `restored`
        3. remove what crashes left and the versions outside that ancestry

        A crash on the way leaves either CURRENT whole. Raises `Superseded` when a newer term
        has been mirrored, `PublicationError` when another state directory publishes here.
        """
        with self._tenure.explaining():
            term = self._tenure.term
            self._check()
            durable.make_directory(self._directory / "terms")
            self._claim()
            line = {"restored": None if restored is None else str(restored)}
            mirror = self._directory / "terms" / f"{term:04d}"
            durable.write(mirror, json.dumps(line).encode() + b"\n")
            there = versions(self._directory)
            counts = counting(self._directory, there)
            self._newest = counts[-1] if counts else None
            self._next_number = max([*(name.number for name in there), self._last_pointed()]) + 1
            if self._newest is not None:
                self._point()
            elif (self._directory / "CURRENT").exists():
                durable.remove_tree(self._directory / "CURRENT")
            durable.collect_temporaries(self._directory, self._check)
            self._collect()
            collect_terms(self._directory)

    def newest_manifest(self) -> Mapping[str, Any] | None:
        """Return the manifest of the version that CURRENT names, taken over or our own.

        None when there is none, or when any byte of it is not what was written: it has to be
        published again. Blocks for the length of the reads.
        """
        if self._newest is None:
            return None
        try:
            return verified_manifest(self._directory, self._newest)
        except PublicationError:
            return None

    def publish(
        self, generation: Manifest, items: Items, built: Mapping[str, BuiltIndex], created_ms: int
    ) -> VersionName:
        """Publish indexes built from a committed generation as the next version.

        1. write the parts and the manifest beside     3. point CURRENT at it
        2. rename the directory into place             4. drop versions beyond `retain`

        Blocks for the length of the writes. A crash before 3 leaves CURRENT as it was; the
        next start collects or points at what is left. Raises `Superseded` when a newer term
        exists, at the end too, and `NoSpace` when the disk is full; before 3 they leave nothing
        behind.
        """
        with self._tenure.explaining():
            self._check()
            name = VersionName(self._tenure.term, self._next_number)
            fields = _fields(name, self._newest, generation, items, built)
            fields["created_ms"] = created_ms
            self._put_in_place(name, fields, items, built)
            self._next_number += 1
            self._check()
            self._newest = name
            self._point()
            self._collect()
            self._check()
        return name

    def _put_in_place(
        self,
        name: VersionName,
        fields: dict[str, Any],
        items: Items,
        built: Mapping[str, BuiltIndex],
    ) -> None:
        beside = self._directory / f"{name}{durable.TEMPORARY}"
        try:
            self._claim()
            durable.make_directory(beside)
            parts = _write_parts(beside, items, built)
            fields["parts"] = [part._asdict() for part in parts]
            durable.write_part(beside / FILE_NAME, seal(fields))
            self._check()
            durable.rename_directory(beside, self._directory / str(name))
        except BaseException:
            durable.remove_tree(beside)
            raise

    def _check(self) -> None:
        self._tenure.check()
        if read_owner(self._directory) not in (None, self._tenure.owner()):
            message = (
                f"{str(self._directory)!r}: expected versions of this state directory, found those "
                "of another one; choose another publish.directory, or remove this one"
            )
            raise PublicationError(message)
        newest = max(terms(self._directory), default=0)
        if newest > self._tenure.term:
            message = (
                f"term {self._tenure.term} may not publish to {str(self._directory)!r}, which term "
                f"{newest} has published to; stop this process"
            )
            raise Superseded(message)

    def _claim(self) -> None:
        if (owner := self._tenure.owner()) is not None:
            name_owner(self._directory, owner)

    def _point(self) -> None:
        durable.write(self._directory / "CURRENT", f"{self._newest} {self._tenure.term}\n".encode())

    def _last_pointed(self) -> int:
        # A version that was removed by hand had a number, which readers may have seen.
        with suppress(PublicationError):
            pointed = read_line(self._directory)
            return 0 if pointed is None else pointed[0].number
        return 0

    def _collect(self) -> None:
        """Remove what no longer counts, and never what a newer term wrote."""
        ours = [name for name in versions(self._directory) if name.term <= self._tenure.term]
        newest = 0 if self._newest is None else self._newest.number
        counts = counting(self._directory, [name for name in ours if name.number <= newest])
        for name in ours:
            if name not in counts[-self._retain :]:
                durable.remove_tree(self._directory / str(name))


def _write_parts(beside: Path, items: Items, built: Mapping[str, BuiltIndex]) -> list[Part]:
    columns: dict[str, NDArray[Any]] = {
        "id_bytes": items.id_bytes,
        "id_ends": items.id_ends,
        "clicks": items.clicks,
        "popularity": items.popularity,
    }
    sections = {"vectors": Section({"vectors": items.vectors}), "items": Section(columns)}
    parts = [
        durable.write_section(beside / f"{name}.safetensors", section)
        for name, section in sections.items()
    ]
    for kind, one in built.items():
        content = io.BytesIO()
        # FAISS's stubs lack the writer. Ten times as fast as serialize_index.
        writer = faiss.PyCallbackIOWriter(content.write, _WRITE_BYTES)  # type: ignore[attr-defined]
        faiss.write_index(one.index, writer)
        parts.append(durable.write_part(beside / f"{kind}.faiss", content.getbuffer()))
    return parts


def _fields(
    name: VersionName,
    parent: VersionName | None,
    generation: Manifest,
    items: Items,
    built: Mapping[str, BuiltIndex],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "space_id": generation.facts.get("space_id"),
        "term": name.term,
        "number": name.number,
        "generation": str(generation.name),
        "parent": None if parent is None else str(parent),
        "offsets": generation.offsets.to_json(),
        "facts": generation.facts,
        "n_items": len(items),
        "metric": "inner_product",
        "dim": items.vectors.shape[1],
        "indexes": {kind: _index_facts(one) for kind, one in built.items()},
    }


def _index_facts(built: BuiltIndex) -> dict[str, Any]:
    facts = {"parameters": built.parameters, "recall_at_10": built.recall}
    return facts if built.reason is None else {**facts, "reason": built.reason}
