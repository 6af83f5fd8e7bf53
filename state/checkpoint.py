"""Commit a generation in numbered steps; retain and collect.

What a process does that was paused after a check of its tenure, and superseded meanwhile: parts
and a manifest go into a name of its own term; a generation that is renamed into place has a
number above the one restored, and is void; a CURRENT that it writes has an older term in its
line, and says nothing; a generation that it drops was one too many before the newer term began;
and the `.tmp` that it removes is older than that term, too.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from state import durable
from state.durable import Part
from state.errors import DamagedPointer
from state.lease import Lineage, Tenure, collect_terms, last_number, name_owner
from state.manifest import FILE_NAME, GenerationName, Manifest, generations
from state.offsets import Offsets
from state.recovery import SUFFIX, Pointer, Recovered, read_pointer
from state.sections import Sections

_SECTION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Checkpoints:
    """The generations of a state directory, written under one tenure.

    `adopt` comes first, once; then `commit`, by one thread at a time. `on_step` is told the
    number of each step of a commit as it begins.
    """

    def __init__(
        self,
        directory: Path,
        tenure: Tenure,
        retain: int,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._directory = directory
        self._checkpoints = directory / "checkpoints"
        self._tenure = tenure
        self._retain = retain
        self._on_step = on_step
        self._newest: GenerationName | None = None
        self._pointed: GenerationName | None = None
        self._last_number: int | None = None

    @property
    def newest(self) -> GenerationName | None:
        """The generation that the next one goes on from: committed by us, or restored."""
        return self._newest

    def adopt(self, recovered: Recovered | None) -> None:
        """Take over the generations under our term, going on from `recovered`.

        CURRENT is written again before anything else, so that from here on no line of an
        older term is believed; then what crashes and older terms left behind is collected.
        """
        with self._tenure.explaining():
            durable.make_directory(self._checkpoints)
            self._last_number = _last_number(self._directory)
            self._newest = None if recovered is None else recovered.name
            self._point()
            durable.collect_temporaries(self._checkpoints, self._tenure.check)
            self._collect()
            collect_terms(self._directory)

    def commit(  # noqa: PLR0913 - each is one field of the manifest, by its name
        self,
        sections: Sections,
        *,
        offsets: Offsets,
        fingerprint: Mapping[str, Any],
        settings: Mapping[str, Any],
        facts: Mapping[str, Any],
        created_ms: int,
    ) -> GenerationName:
        """Make `sections` and `offsets` durable together, as the next generation.

        1. write each part beside its final name   4. rename the directory into place
        2. fsync it, before the next is begun      5. point CURRENT at it
        3. write and fsync the manifest            6. drop generations beyond `retain`

        Blocks for the length of the writes, the caller's thread only; copies no array. A crash
        before 4 leaves the previous generation; from 4 on the new one is found and used, if
        its parent is the current one and its term holds. A CURRENT that could not be written
        is written by the next commit before its step 1; step 6 is repeated by it.

        Raises `NoSpace` before step 4, leaving nothing behind, and `Superseded` when a newer
        term exists: checked before steps 1, 4 and 5, before each removal, and at the end. Who
        takes over looks for generations after its term has begun, we for terms after ours is
        there: so one whose commit has returned is found by them, and is never void.
        """
        assert self._last_number is not None, "adopt comes first"
        with self._tenure.explaining():
            self._tenure.check()
            self._point()
            self._last_number += 1
            name = GenerationName(self._tenure.term, self._last_number)
            manifest = Manifest(
                name, self._newest, offsets, fingerprint, settings, facts, created_ms, parts=()
            )
            self._put_in_place(sections, manifest)
            self._newest = name
            self._on_step(5)
            self._point()
            self._on_step(6)
            self._collect()
            self._tenure.check()
        return name

    def _put_in_place(self, sections: Sections, manifest: Manifest) -> None:
        beside = self._checkpoints / f"{manifest.name}{durable.TEMPORARY}"
        try:
            self._stage(beside, sections, manifest)
            self._on_step(4)
            self._tenure.check()
            durable.rename_directory(beside, self._checkpoints / str(manifest.name))
        except BaseException:
            durable.remove_tree(beside)
            raise

    def _stage(self, beside: Path, sections: Sections, manifest: Manifest) -> None:
        self._on_step(1)
        durable.make_directory(beside)
        parts: list[Part] = []
        for section_name, section in sections.items():
            assert _SECTION_NAME.fullmatch(section_name), section_name
            path = beside / f"{section_name}{SUFFIX}"
            parts.append(durable.write_section(path, section))
            self._on_step(2)
        self._on_step(3)
        durable.write_part(beside / FILE_NAME, replace(manifest, parts=tuple(parts)).to_json())

    def _point(self) -> None:
        if self._newest is None or self._newest == self._pointed:
            return
        self._tenure.check()
        line = f"{Pointer(self._newest, self._tenure.term)}\n"
        durable.write(self._checkpoints / "CURRENT", line.encode())
        name_owner(self._directory)
        self._pointed = self._newest

    def _collect(self) -> None:
        names = generations(self._checkpoints)
        lineage = Lineage.read(self._directory)
        kept = [name for name in names if not lineage.is_void(name)][-self._retain :]
        for name in names:
            if name not in kept:
                self._tenure.check()
                durable.remove_tree(self._checkpoints / str(name))


def _last_number(directory: Path) -> int:
    pointer = None
    with suppress(DamagedPointer):
        pointer = read_pointer(directory)
    return max(last_number(directory), pointer.name.number if pointer else 0)
