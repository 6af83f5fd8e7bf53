"""Index versions as files: the write side and the read side of one format.

    published/OWNER, terms/0003          mirror those of the state directory
    published/v0003-000000000042/        manifest.json, <kind>.faiss, vectors, items
    published/CURRENT                    "v0003-000000000042 3": the version, the writer's term

A version is there whole or not at all, and readers look only where `CURRENT` points. A line
under an older term than the newest is a superseded writer's: readers pass over it.
"""

import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
from numpy.typing import NDArray

from state import durable
from state.durable import Part, Unreadable
from state.errors import DamagedVersion, PublicationError, Superseded
from state.index import EXACT, BuiltIndex, Items
from state.lease import Lineage, Tenure, name_owner, read_owner, terms
from state.manifest import FILE_NAME, GenerationName, Manifest, seal, unseal
from state.sections import Section

FORMAT = 1

_NAME = re.compile(r"v(\d{4,})-(\d{12,})", re.ASCII)
_WRITE_BYTES = 4 << 20


class VersionName(NamedTuple):
    """Which term published a version, and its number, which only grows.

    >>> VersionName.parse(str(VersionName(3, 42)))
    VersionName(term=3, number=42)
    """

    term: int
    number: int

    def __str__(self) -> str:
        return f"v{self.term:04d}-{self.number:012d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Invert `str`; raises `ValueError` for anything else."""
        match = _NAME.fullmatch(text)
        if match is None or str(cls(int(match[1]), int(match[2]))) != text:
            message = f"expected a version like 'v0003-000000000042', found {text!r}"
            raise ValueError(message)
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Version:
    """A published version, verified and in memory; `index` may be searched by many threads."""

    name: VersionName
    manifest: Mapping[str, Any]
    items: Items
    kind: str
    index: Any

    @property
    def index_facts(self) -> Mapping[str, Any]:
        """What the manifest says of the index: parameters, recall_at_10, reason."""
        facts: Mapping[str, Any] = self.manifest["indexes"][self.kind]
        return facts


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
        term = self._tenure.term
        self._check()
        durable.make_directory(self._directory / "terms")
        self._claim()
        line = {"restored": None if restored is None else str(restored)}
        mirror = self._directory / "terms" / f"{term:04d}"
        durable.write(mirror, json.dumps(line).encode() + b"\n")
        there = versions(self._directory)
        counts = self._counting(there)
        self._newest = counts[-1] if counts else None
        self._next_number = max([*(name.number for name in there), self._last_pointed()]) + 1
        if self._newest is not None:
            self._point()
        elif (self._directory / "CURRENT").exists():
            durable.remove_tree(self._directory / "CURRENT")
        durable.collect_temporaries(self._directory)
        self._collect()

    def newest_manifest(self) -> Mapping[str, Any] | None:
        """Return the manifest of the version that CURRENT names, taken over or our own.

        None when there is none, or when any byte of it is not what was written: it has to be
        published again. Blocks for the length of the reads.
        """
        if self._newest is None:
            return None
        try:
            return _verified_manifest(self._directory, self._newest)
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
        exists, `NoSpace` when the disk is full; before 3 they leave nothing behind.
        """
        self._check()
        name = VersionName(self._tenure.term, self._next_number)
        beside = self._directory / f"{name}{durable.TEMPORARY}"
        fields = _fields(name, self._newest, generation, items, built)
        try:
            self._claim()
            durable.make_directory(beside)
            parts = _write_parts(beside, items, built)
            fields |= {"created_ms": created_ms, "parts": [part._asdict() for part in parts]}
            durable.write_part(beside / FILE_NAME, seal(fields))
            durable.rename_directory(beside, self._directory / str(name))
        except BaseException:
            durable.remove_tree(beside)
            self._check()  # our successor may have collected what we were writing
            raise
        self._next_number += 1
        self._check()
        self._newest = name
        self._point()
        self._collect()
        return name

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
            pointed = _read_line(self._directory)
            return 0 if pointed is None else pointed[0].number
        return 0

    def _counting(self, names: list[VersionName]) -> list[VersionName]:
        """Return the versions with a manifest, built from a generation that counts."""
        lineage = Lineage.read(self._directory)
        return [name for name in names if not self._is_void(name, lineage)]

    def _is_void(self, name: VersionName, lineage: Lineage) -> bool:
        try:
            manifest = _read_manifest(self._directory, name)
            generation = GenerationName.parse(manifest["generation"])
        except (PublicationError, LookupError, ValueError):
            return True
        return lineage.is_void(generation)

    def _collect(self) -> None:
        """Remove what no longer counts, and never what a newer term wrote."""
        ours = [name for name in versions(self._directory) if name.term <= self._tenure.term]
        newest = 0 if self._newest is None else self._newest.number
        counts = self._counting([name for name in ours if name.number <= newest])
        for name in ours:
            if name not in counts[-self._retain :]:
                durable.remove_tree(self._directory / str(name))


def versions(directory: Path) -> list[VersionName]:
    """Return the versions in a directory, lowest number first."""
    names = []
    for path in durable.entries(directory):
        with suppress(ValueError):
            names.append(VersionName.parse(path.name))
    return sorted(names, key=lambda name: (name.number, name.term))


def read_current(directory: Path) -> VersionName | None:
    """Return the version that CURRENT names, None when nothing has been published yet.

    Raises `Superseded` for a line under an older term than the newest, `DamagedVersion` for
    garbage.
    """
    line = _read_line(directory)
    if line is None:
        return None
    name, term = line
    newest = max(terms(directory), default=0)
    if term < newest:
        message = (
            f"{str(directory / 'CURRENT')!r} was written by term {term}, superseded by term "
            f"{newest}; waiting for the newer one to publish"
        )
        raise Superseded(message)
    return name


def _read_line(directory: Path) -> tuple[VersionName, int] | None:
    path = directory / "CURRENT"
    content: bytes | None = b""
    try:
        content = durable.read(path)
        if content is None:
            return None
        text, written = content.decode("ascii").removesuffix("\n").split(" ")
        return VersionName.parse(text), int(written)
    except ValueError as error:
        message = (
            f"{str(path)!r}: expected '<version> <term>', found {(content or b'')[:80]!r}; "
            "the daemon writes it again with its next version"
        )
        raise DamagedVersion(message) from error


def open_version(directory: Path, name: VersionName, kind: str) -> Version:
    """Return a version with its index of `kind`, or its exact one where it holds no other.

    Every byte is compared with its checksum first; the index is then mapped, not copied. It
    stays usable after the version has been collected. Raises `DamagedVersion`.
    """
    manifest = _read_manifest(directory, name)
    try:
        indexes = manifest["indexes"]
        parts = {part["name"]: Part(**part) for part in manifest["parts"]}
        held = next((held for held in (kind, EXACT) if held in indexes), None)
        if held is None:
            found = ", ".join(indexes)
            message = f"version {name} in {str(directory)!r}: expected an index {kind!r}, found "
            message += f"{found}; set serving.kind to it, or add {kind!r} to index.kinds"
            raise PublicationError(message)
        vectors = _read_section(directory, name, parts["vectors.safetensors"])
        columns = _read_section(directory, name, parts["items.safetensors"])
        items = Items(**vectors.arrays, **columns.arrays)
        index = _read_index(directory, name, parts[f"{held}.faiss"])
    except (LookupError, TypeError) as error:
        raise _damage(directory, name, f"{FILE_NAME!r} lacks or misshapes {error}") from error
    return Version(name, manifest, items, held, index)


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


def _read_manifest(directory: Path, name: VersionName) -> dict[str, Any]:
    try:
        content = durable.read(directory / str(name) / FILE_NAME)
        if content is None:
            raise _damage(directory, name, f"{FILE_NAME!r} is missing")
        manifest = unseal(content)
    except Unreadable as error:
        raise _passing(directory, name, str(error)) from error
    except ValueError as error:
        raise _damage(directory, name, str(error)) from error
    if manifest.get("format") != FORMAT:
        message = (
            f"version {name} in {str(directory)!r}: format {manifest.get('format')!r} was written "
            f"by a newer livevec, this one reads format {FORMAT}; start the newer one"
        )
        raise PublicationError(message)
    if (manifest.get("term"), manifest.get("number")) != name:
        raise _damage(directory, name, f"{FILE_NAME!r} is that of another version")
    return manifest


def _verified_manifest(directory: Path, name: VersionName) -> dict[str, Any]:
    """Return the manifest of a version, having compared every byte with its checksum."""
    manifest = _read_manifest(directory, name)
    try:
        parts = [Part(**part) for part in manifest["parts"]]
    except (LookupError, TypeError) as error:
        raise _damage(directory, name, f"{FILE_NAME!r} lacks or misshapes {error}") from error
    for part in parts:
        _read_part(directory, name, part)
    return manifest


def _read_part(directory: Path, name: VersionName, part: Part) -> bytes:
    try:
        return durable.read_part(directory / str(name), part)
    except Unreadable as error:
        raise _passing(directory, name, str(error)) from error
    except ValueError as error:
        raise _damage(directory, name, str(error)) from error


def _read_section(directory: Path, name: VersionName, part: Part) -> Section:
    try:
        return durable.decode_section(_read_part(directory, name, part))
    except ValueError as error:
        raise _damage(directory, name, str(error)) from error


def _read_index(directory: Path, name: VersionName, part: Part) -> Any:
    _read_part(directory, name, part)
    try:
        return faiss.read_index(str(directory / str(name) / part.name), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:  # its bytes are whole: for want of descriptors or memory
        raise _passing(directory, name, " ".join(str(error).split())) from error


def _passing(directory: Path, name: VersionName, fault: str) -> PublicationError:
    where = f"version {name} in {str(directory)!r}"
    return PublicationError(f"{where}: {fault}; it is tried again, check the disk and the limits")


def _damage(directory: Path, name: VersionName, fault: str) -> DamagedVersion:
    message = f"version {name} in {str(directory)!r}: {fault}; "
    return DamagedVersion(f"{message}the next version the daemon publishes replaces it")
