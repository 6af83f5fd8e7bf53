"""A section: named arrays and a small mapping, the unit in which state is snapshot and restored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the state as a checkpoint sees it.

    `arrays` are C-contiguous and owned by the section: nothing that happens later in the
    stream can touch them. `values` is JSON: numbers, strings, lists and maps of them.
    """

    arrays: Arrays = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


Sections = Mapping[str, Section]
