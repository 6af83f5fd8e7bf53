"""An index version as readers see it: which one counts, verified, in memory."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss

from state import durable
from state.durable import Part, Unreadable
from state.errors import DamagedVersion, PublicationError, Superseded
from state.index import EXACT, Items
from state.lease import Lineage, terms
from state.manifest import FILE_NAME, GenerationName, unseal
from state.sections import Section

FORMAT = 1

_NAME = re.compile(r"v(\d{4,})-(\d{12,})", re.ASCII)


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


def versions(directory: Path) -> list[VersionName]:
    """Return the versions in a directory, lowest number first."""
    names = []
    for path in durable.entries(directory):
        with suppress(ValueError):
            names.append(VersionName.parse(path.name))
    return sorted(names, key=lambda name: (name.number, name.term))


def counting(directory: Path, names: Iterable[VersionName]) -> list[VersionName]:
    """Return those of `names` that have a manifest, built from a generation that counts."""
    lineage = Lineage.read(directory)
    return [name for name in names if not _is_void(directory, name, lineage)]


def read_current(directory: Path) -> VersionName | None:
    """Return the version that CURRENT names, None when nothing has been published yet.

    Without CURRENT, or where its line has an older term than the newest, a superseded writer was
    the last there: then it is the newest version that counts. Raises `Superseded` when there is
    none beside such a line, `DamagedVersion` for garbage.
    """
    line = read_line(directory)
    newest = max(terms(directory), default=0)
    if line is not None and line[1] >= newest:
        return line[0]
    counts = counting(directory, versions(directory))
    if counts or line is None:
        return counts[-1] if counts else None
    message = (
        f"{str(directory / 'CURRENT')!r} was written by term {line[1]}, superseded by term "
        f"{newest}; waiting for the newer one to publish"
    )
    raise Superseded(message)


def read_line(directory: Path) -> tuple[VersionName, int] | None:
    """Return what `CURRENT` says: a version, and the term under which the line was written.

    None when there is no CURRENT; raises `DamagedVersion` for garbage.
    """
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


def verified_manifest(directory: Path, name: VersionName) -> dict[str, Any]:
    """Return the manifest of a version, having compared every byte with its checksum."""
    manifest = _read_manifest(directory, name)
    try:
        parts = [Part(**part) for part in manifest["parts"]]
    except (LookupError, TypeError) as error:
        raise _damage(directory, name, f"{FILE_NAME!r} lacks or misshapes {error}") from error
    for part in parts:
        _read_part(directory, name, part)
    return manifest


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


def _is_void(directory: Path, name: VersionName, lineage: Lineage) -> bool:
    try:
        manifest = _read_manifest(directory, name)
        generation = GenerationName.parse(manifest["generation"])
    except (PublicationError, LookupError, ValueError):
        return True
    return lineage.is_void(generation)


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
