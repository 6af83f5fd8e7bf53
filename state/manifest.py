"""What a generation says of itself: format, offsets, settings fingerprint, parts, checksums.

The manifest carries a checksum of its own, over its other keys in canonical JSON, by a rule that
is the same in every format: so that a flipped digit of an offset is damage and not a position.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from state import durable
from state.durable import Part, checksum
from state.errors import DamagedCheckpoint
from state.offsets import Offsets

FILE_NAME = "manifest.json"
FORMAT = 1

_NAME = re.compile(r"(\d{4,})-(\d{12,})", re.ASCII)


class UnknownFormat(DamagedCheckpoint):
    """Raised when a manifest is whole and in a format that a newer livevec writes."""


class GenerationName(NamedTuple):
    """Which term wrote a generation, and its number, which no other generation has.

    >>> GenerationName.parse(str(GenerationName(3, 42)))
    GenerationName(term=3, number=42)
    """

    term: int
    number: int

    def __str__(self) -> str:
        return f"{self.term:04d}-{self.number:012d}"

    @classmethod
    def parse(cls, text: str) -> "GenerationName":
        """Invert `str`; raises `ValueError` for anything else."""
        match = _NAME.fullmatch(text)
        if match is None or str(cls(int(match[1]), int(match[2]))) != text:
            message = f"expected a generation like '0003-000000000042', found {text!r}"
            raise ValueError(message)
        return cls(int(match[1]), int(match[2]))


def generations(checkpoints: Path) -> list[GenerationName]:
    """Return the generations in the directory `checkpoints`, whole or not, lowest number first."""
    names = []
    for path in durable.entries(checkpoints):
        with suppress(ValueError):
            names.append(GenerationName.parse(path.name))
    return sorted(names, key=lambda name: (name.number, name.term))


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation: where in the stream it stands, what made it, and its parts.

    `fingerprint` are the settings that give the state its meaning, `settings` all of them;
    `facts` is what the stream says of itself at the cut (its ledger, event times, space).
    """

    name: GenerationName
    parent: GenerationName | None
    offsets: Offsets
    fingerprint: Mapping[str, Any]
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    created_ms: int
    parts: tuple[Part, ...]
    format: int = FORMAT

    @property
    def term(self) -> int:
        """The term that wrote the generation."""
        return self.name.term

    @property
    def number(self) -> int:
        """The number of the generation."""
        return self.name.number

    def to_json(self) -> bytes:
        """Return the manifest as it stands on disk; `ValueError` if a mapping is not JSON."""
        fields = {
            "format": self.format,
            "term": self.term,
            "number": self.number,
            "parent": None if self.parent is None else str(self.parent),
            "offsets": self.offsets.to_json(),
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "facts": self.facts,
            "created_ms": self.created_ms,
            "parts": [part._asdict() for part in self.parts],
        }
        return seal(fields)

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Invert `to_json`.

        Raises `ValueError` for bytes that are not what was written, `UnknownFormat` for a
        whole manifest in a format of the future.
        """
        fields = unseal(content)
        if fields.get("format") != FORMAT:
            message = (
                f"format {fields.get('format')!r} was written by a newer livevec, this one "
                f"reads format {FORMAT}; start the newer one"
            )
            raise UnknownFormat(message)
        try:
            return cls._from_fields(fields)
        except (LookupError, TypeError) as error:
            message = f"{FILE_NAME!r} lacks or misshapes {error}"
            raise ValueError(message) from error

    @classmethod
    def _from_fields(cls, fields: Mapping[str, Any]) -> Self:
        parent = fields["parent"]
        return cls(
            name=GenerationName(fields["term"], fields["number"]),
            parent=None if parent is None else GenerationName.parse(parent),
            offsets=Offsets.from_json(fields["offsets"]),
            fingerprint=fields["fingerprint"],
            settings=fields["settings"],
            facts=fields["facts"],
            created_ms=fields["created_ms"],
            parts=tuple(Part(**part) for part in fields["parts"]),
        )


def seal(fields: Mapping[str, Any]) -> bytes:
    """Return `fields` as indented JSON that carries its own checksum.

    Raises `ValueError` for what is not JSON (infinities are not).
    """
    plain = json.loads(_canonical(fields))
    sealed = {**plain, "checksum": checksum(_canonical(plain))}
    return json.dumps(sealed, ensure_ascii=False, indent=1).encode() + b"\n"


def unseal(content: bytes) -> dict[str, Any]:
    """Invert `seal`; raises `ValueError` when the checksum does not fit."""
    try:
        fields = json.loads(content)
    except ValueError as error:
        message = f"{FILE_NAME!r}: expected JSON, found {error}"
        raise ValueError(message) from error
    if not isinstance(fields, dict):
        message = f"{FILE_NAME!r}: expected a JSON object, found {type(fields).__name__}"
        raise ValueError(message)
    said = fields.pop("checksum", None)
    found = checksum(_canonical(fields))
    if found != said:
        message = f"{FILE_NAME!r} has checksum {found}, it says {said!r} itself"
        raise ValueError(message)
    return fields


def _canonical(fields: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(fields, allow_nan=False, ensure_ascii=False, sort_keys=True)
        return text.encode()
    except TypeError as error:
        message = f"{FILE_NAME!r}: {error}"
        raise ValueError(message) from error
