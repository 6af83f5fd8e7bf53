"""The newest whole generation, or the reason why not; restore.

A generation counts if it lies in the ancestry of the newest term (`lease.Lineage`). `CURRENT`
names the one that was committed last and the term that wrote the line; a line of an older term
is what a crash at a take-over or a paused owner leaves, and says nothing against the ancestry.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from state import durable
from state.errors import DamagedCheckpoint, DamagedPointer, ForeignCheckpoint
from state.lease import OWNER, Lineage, read_owner
from state.manifest import (
    FILE_NAME,
    GenerationName,
    Manifest,
    UnknownFormat,
    generations,
)
from state.sections import Section

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Recovered:
    """One generation, verified and in memory; `notes` say what was passed over, and why."""

    name: GenerationName
    manifest: Manifest
    sections: Mapping[str, Section]
    notes: tuple[str, ...] = ()


class Pointer(NamedTuple):
    """The line of `CURRENT`: the generation, and the term under which the line was written."""

    name: GenerationName
    term: int

    def __str__(self) -> str:
        return f"{self.name} {self.term}"


def newest(
    directory: Path, fingerprint: Mapping[str, Any], generation: int | None = None
) -> Recovered | None:
    """Return the newest whole generation of a state directory; None is a fresh start.

    `generation` picks one by its number, and then it alone, wherever CURRENT points. Without
    it a damaged generation is passed over with a note, for the one before. Called once per
    start, under the hold; blocks for the length of the reads.

    Raises `DamagedPointer` for a CURRENT that is absent though it cannot be, empty or garbage,
    and when all generations are gone though a term restored one;
    `DamagedCheckpoint` when no whole generation is left; `ForeignCheckpoint` when the settings
    are not those of the state.
    """
    checkpoints = directory / "checkpoints"
    if generation is not None:
        return restore(directory, _numbered(directory, generation), fingerprint)
    candidates, notes = _candidates(directory)
    faults = list(notes)
    for name in candidates:
        try:
            found = _checked(checkpoints, name, fingerprint)
        except _Damage as damage:
            faults.append(str(damage))
            continue
        told = (f"{fault}; restored {str(name)!r} instead" for fault in faults)
        return Recovered(name, found.manifest, found.sections, tuple(told))
    if candidates or notes:
        message = f"no whole generation in {str(checkpoints)!r}: {'; '.join(faults)}; {_RETREAT}"
        raise DamagedCheckpoint(message)
    return None


def restore(directory: Path, name: GenerationName, fingerprint: Mapping[str, Any]) -> Recovered:
    """Return the generation `name` of a state directory to go on from it, wherever CURRENT points.

    Raises `DamagedCheckpoint` when it is not what was written, `ForeignCheckpoint` when the
    settings are not those of the state.
    """
    checkpoints = directory / "checkpoints"
    try:
        return _checked(checkpoints, name, fingerprint)
    except _Damage as damage:
        message = f"{damage}; {_way_out(checkpoints, name)}"
        raise DamagedCheckpoint(message) from damage


def load(directory: Path, name: GenerationName) -> Recovered:
    """Return the generation `name` of a state directory, verified.

    Raises `DamagedCheckpoint` when it is not what was written.
    """
    checkpoints = directory / "checkpoints"
    manifest = _manifest(checkpoints, name)
    return Recovered(name, manifest, _sections(checkpoints, manifest))


def read_pointer(directory: Path) -> Pointer | None:
    """Return what `CURRENT` says, None when there is none; raises `DamagedPointer` for garbage."""
    content = None
    try:
        content = durable.read(directory / "checkpoints" / "CURRENT")
        if content is None:
            return None
        name, term = content.decode("ascii").removesuffix("\n").split(" ")
        return Pointer(GenerationName.parse(name), int(term))
    except ValueError as error:
        found = "an unreadable one" if content is None else repr(content[:80])
        raise DamagedPointer(_pointer_fault(directory, found)) from error


class _Damage(DamagedCheckpoint):
    """Raised when a generation is not what was written, so that the one before may serve."""


_RETREAT = "restore 'checkpoints' from a backup, or empty the state directory to start afresh"


def _candidates(directory: Path) -> tuple[list[GenerationName], list[str]]:
    """Return the generations that count, best first, and what is already known to be wrong."""
    lineage = Lineage.read(directory)
    valid = _valid(directory, lineage)
    pointer = read_pointer(directory)
    if pointer is None:
        return _unpointed(directory, lineage, valid), []
    head: GenerationName | None = pointer.name
    if pointer.term < lineage.newest_term or lineage.is_void(pointer.name):
        head = None if valid else lineage.restored.get(lineage.newest_term)
    if head is None:
        return valid, []
    return _from_head(directory / "checkpoints", valid, head)


def _valid(directory: Path, lineage: Lineage) -> list[GenerationName]:
    names = generations(directory / "checkpoints")
    return [name for name in reversed(names) if not lineage.is_void(name)]


def _unpointed(
    directory: Path, lineage: Lineage, valid: list[GenerationName]
) -> list[GenerationName]:
    """Allow what the first commit of all leaves when it dies before CURRENT, and no more."""
    if not valid:
        _refuse_loss(directory, lineage)
        return []
    try:
        if len(valid) == 1 and _manifest(directory / "checkpoints", valid[0]).parent is None:
            return valid
    except _Damage:
        return valid
    raise DamagedPointer(_pointer_fault(directory, "none, beside generations that were committed"))


def _refuse_loss(directory: Path, lineage: Lineage) -> None:
    """Raise `DamagedPointer` if there was a generation once: then this is no new state."""
    # A term's last_number proves nothing: it counts what died in its first commit, too.
    named = [(term, base) for term, base in lineage.restored.items() if base is not None]
    if not named and read_owner(directory) is None:
        return
    sign = "term {} restored '{}'".format(*max(named)) if named else f"{OWNER!r} was written"
    message = (
        f"{str(directory / 'checkpoints')!r}: expected generations, as {sign}, found none; "
        f"the generations are gone: {_RETREAT}"
    )
    raise DamagedPointer(message)


def _from_head(
    checkpoints: Path, valid: list[GenerationName], head: GenerationName
) -> tuple[list[GenerationName], list[str]]:
    """Return the child of `head` that died before CURRENT, `head`, and those before it."""
    notes = []
    names = [name for name in valid if name.number <= head.number]
    if head not in names:
        notes.append(f"checkpoint generation {str(head)!r} in {str(checkpoints)!r} is missing")
    for name in [name for name in valid if name.number > head.number]:
        try:
            if _manifest(checkpoints, name).parent == head:
                names.insert(0, name)
        except _Damage as damage:
            notes.append(str(damage))
    return names, notes


def _numbered(directory: Path, number: int) -> GenerationName:
    names = generations(directory / "checkpoints")
    found = [name for name in names if name.number == number]
    if len(found) > 1:
        lineage = Lineage.read(directory)
        found.sort(key=lambda name: (not lineage.is_void(name), name.term))
    if not found:
        there = ", ".join(str(name.number) for name in names) or "none at all"
        where = str(directory / "checkpoints")
        message = f"expected checkpoint generation {number} in {where!r}, found {there}; pick one"
        raise DamagedCheckpoint(message)
    return found[-1]


def _checked(checkpoints: Path, name: GenerationName, fingerprint: Mapping[str, Any]) -> Recovered:
    manifest = _manifest(checkpoints, name)
    _refuse_foreign(checkpoints, manifest, fingerprint)
    return Recovered(name, manifest, _sections(checkpoints, manifest))


def _manifest(checkpoints: Path, name: GenerationName) -> Manifest:
    try:
        content = durable.read(checkpoints / str(name) / FILE_NAME)
        if content is None:
            raise _damage(checkpoints, name, f"{FILE_NAME!r} is missing")
        manifest = Manifest.from_json(content)
    except ValueError as error:
        raise _damage(checkpoints, name, str(error)) from error
    except UnknownFormat as error:
        message = f"checkpoint generation {str(name)!r} in {str(checkpoints)!r}: {error}"
        raise UnknownFormat(message) from error
    if manifest.name != name:
        raise _damage(checkpoints, name, f"{FILE_NAME!r} is that of {str(manifest.name)!r}")
    return manifest


def _sections(checkpoints: Path, manifest: Manifest) -> dict[str, Section]:
    sections = {}
    for part in manifest.parts:
        try:
            content = durable.read_part(checkpoints / str(manifest.name), part)
            sections[part.name.removesuffix(SUFFIX)] = durable.decode_section(content)
        except ValueError as error:
            raise _damage(checkpoints, manifest.name, str(error)) from error
    return sections


def _way_out(checkpoints: Path, name: GenerationName) -> str:
    others = [other.number for other in generations(checkpoints) if other.number < name.number]
    return f"restore an older one with --generation {max(others)}" if others else _RETREAT


def _damage(checkpoints: Path, name: GenerationName, fault: str) -> _Damage:
    where = f"checkpoint generation {str(name)!r} in {str(checkpoints)!r}"
    return _Damage(f"{where}: {fault}")


def _refuse_foreign(checkpoints: Path, manifest: Manifest, fingerprint: Mapping[str, Any]) -> None:
    ours, theirs = json.loads(json.dumps(fingerprint)), manifest.fingerprint
    differing = [
        f"{key} is {ours.get(key)!r}, the state has {theirs.get(key)!r}"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
    if differing:
        message = (
            f"checkpoint generation {str(manifest.name)!r} in {str(checkpoints)!r} was made under "
            f"other settings: {'; '.join(differing)}; set them back, or choose another state "
            "directory to start afresh"
        )
        raise ForeignCheckpoint(message)


def _pointer_fault(directory: Path, found: str) -> str:
    path = directory / "checkpoints" / "CURRENT"
    lineage = Lineage.read(directory)
    valid = _valid(directory, lineage)
    where = f"{str(path)!r}: expected '<generation> <term>', found {found}"
    if not valid:
        return f"{where}; no generation is left beside it: {_RETREAT}"
    line = Pointer(valid[0], max(lineage.newest_term, valid[0].term))
    return (
        f"{where}; write the line {str(line)!r} into it, or start once with "
        f"--generation {valid[0].number}"
    )
