"""Who may write: the lock, the lease, the terms, and what a superseded term left behind.

`terms/<n>` is created exclusively by each start and names the generation that it restored. A
living process holds a lock on its term's file, from before the file can be seen: a start is
refused while it lives, and not a moment longer. It also touches the file again and again: that
is the lease. Who watches it and sees no change takes over though the lock is held, by the next
term; what the other does later is void. `OWNER` is written with the first generation: it says
that there was one, and tells the state from every other.

Between a `Tenure.check` and the act that follows it a process may be paused, and superseded. So
each act is one that harms nothing when it comes late: it creates a name that has the term in it,
or one that only the first creates; or it writes a pointer under a term that readers compare; or
it removes what was seen before the check, when no newer term had written yet.
"""

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from state import durable
from state.durable import TEMPORARY, Identity
from state.errors import DamagedPointer, DirectoryTaken, Superseded
from state.manifest import GenerationName, generations

OWNER = "OWNER"
KEPT_TERMS = 1000  # more starts than a paused process misses: its run must still be known as ours

_TERM = re.compile(r"\d{4,}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which generations count: for each ancestor of the newest term, what it restored."""

    restored: Mapping[int, GenerationName | None]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the newest term of a directory and its ancestors, not those beside them.

        Raises `DamagedPointer` for one that is torn.
        """
        there, restored = set(terms(directory)), dict[int, GenerationName | None]()
        term = max(there, default=0)
        while term in there:
            base = restored[term] = _restored(directory, term)
            term = base.term if base else 0
        return cls(restored)

    @property
    def newest_term(self) -> int:
        """The newest term, 0 when there is none yet."""
        return max(self.restored, default=0)

    def is_void(self, name: GenerationName) -> bool:
        """Return whether `name` lies outside the ancestry of the newest term.

        A term's ancestry is what it wrote, then what it restored and the ancestry of that.
        So whatever an older term wrote after the generation its successor restored is void,
        whenever it arrives.

        >>> taken_over = Lineage({1: None, 2: GenerationName(1, 7)})
        >>> taken_over.is_void(GenerationName(1, 7)), taken_over.is_void(GenerationName(1, 8))
        (False, True)
        """
        term = self.newest_term
        while name.term < term and term in self.restored:
            base = self.restored[term]
            if base is None or name.term > base.term:
                return True
            if name.term == base.term:
                return name.number > base.number
            term = base.term
        return False


class Sign(NamedTuple):
    """A sign of life: the newest term, and a number that changes when its owner renews it."""

    term: int
    renewal: int


class Tenure:
    """The right to write under one term, until a newer one exists or its file is gone.

    `run` is drawn for each term: two state directories have the same terms, and other runs.
    """

    def __init__(self, directory: Path, term: int, run: str, file: Identity | None) -> None:
        self._directory = directory
        self._file = file
        self.term = term
        self.run = run

    def check(self) -> None:
        """Raise `Superseded` if a newer term exists, or ours is no longer what we hold."""
        newest = max(terms(self._directory), default=0)
        if newest > self.term:
            message = (
                f"term {self.term} of {str(self._directory)!r} is superseded by term {newest}; "
                "nothing more is written, stop this process"
            )
            raise Superseded(message)
        path = _term_path(self._directory, self.term)
        found = durable.identity(path)
        if found != self._file:
            state = "nothing" if found is None else "another start's"
            message = (
                f"{str(path)!r}: expected the file of this process, found {state}: the state "
                "directory was removed; nothing more is written, stop this process"
            )
            raise Superseded(message)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise `Superseded` for what fails inside once a newer term exists: that is its cause.

        Our successor collects what we were writing, for one.
        """
        try:
            yield
        except BaseException:
            self.check()
            raise

    def owner(self) -> str | None:
        """Return the id of the state in our directory; None before its first commit."""
        return read_owner(self._directory)

    def wrote(self, term: int, run: str) -> bool:
        """Tell whether `run` is that of `term` of our directory, so that what it wrote is ours."""
        return _line(self._directory, term).get("run") == run


class Hold:
    """A state directory that no other living process may write to; `release` lets go.

    One that is `contested` was taken from a process that holds the lock and has not renewed its
    lease: that one may go on. `renew` may be called from another thread.
    """

    def __init__(
        self, directory: Path, next_term: int, descriptor: int | None, last: Sign | None = None
    ) -> None:
        self._directory = directory
        self._next_term = next_term
        self._descriptor = descriptor
        self._last = last
        self._guard = threading.Lock()
        self.is_contested = last is not None

    @property
    def predecessor(self) -> int:
        """The newest term before ours, 0 when there is none."""
        return self._next_term - 1

    def begin_term(self, restored: GenerationName | None) -> Tenure:
        """Create the next term exclusively, naming the generation that it goes on from.

        Its file is locked before it can be seen. Raises `DirectoryTaken` if another start
        was quicker, or if the process from which a contested directory is taken has gone on.
        """
        self.check()
        term, run = self._next_term, os.urandom(4).hex()
        line = {
            "restored": None if restored is None else str(restored),
            "last_number": last_number(self._directory),
            "pid": os.getpid(),
            "run": run,
        }
        content = json.dumps(line).encode() + b"\n"
        try:
            descriptor = durable.create_locked(_term_path(self._directory, term), content)
        except FileExistsError as error:
            raise DirectoryTaken(_taken(self._directory, term)) from error
        self._replace(descriptor)
        self._next_term = term + 1
        self._last = None
        return Tenure(self._directory, term, run, durable.identity(descriptor))

    def check(self) -> None:
        """Raise `DirectoryTaken` if the process from which we take the directory has gone on."""
        if self._last is not None and last_sign(self._directory) != self._last:
            raise DirectoryTaken(_taken(self._directory, self._last.term))

    def renew(self) -> None:
        """Renew the lease: whoever watches sees that this process is not paused."""
        with self._guard:
            if self._descriptor is not None:
                durable.touch(self._descriptor, self._directory)

    def release(self) -> None:
        """Let go of the directory; may be called again."""
        self._replace(None)

    def _replace(self, descriptor: int | None) -> None:
        with self._guard:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = descriptor


def hold(directory: Path) -> Hold:
    """Take the state directory, making it if it is absent; never waits.

    Of several first starts, which find no term to lock, `begin_term` lets one through. Raises
    `DirectoryTaken` while a living process holds the directory, and only then.
    """
    durable.make_directory(directory / "terms")
    while True:
        newest = max(terms(directory), default=0)
        if newest == 0:
            return Hold(directory, _newest_writer(directory) + 1, None)
        descriptor = durable.lock(_term_path(directory, newest))
        if descriptor is None:
            raise DirectoryTaken(_taken(directory, newest))
        if max(terms(directory)) == newest:
            return Hold(directory, newest + 1, descriptor)
        os.close(descriptor)  # a newer term came between the look and the lock


def overtake(directory: Path, last: Sign) -> Hold:
    """Take the state directory from a process that lives and gave no sign since `last`.

    Nothing changes before `begin_term`, which decides: of several that do this one wins, and
    none if the other has gone on.
    """
    return Hold(directory, last.term + 1, None, last)


def last_sign(directory: Path) -> Sign | None:
    """Return the last sign of life of whoever has the directory; None before the first term."""
    newest = max(terms(directory), default=0)
    renewal = durable.touched(_term_path(directory, newest)) if newest else None
    return None if renewal is None else Sign(newest, renewal)


def read_owner(directory: Path) -> str | None:
    """Return which state this directory belongs to: an id that no other state has, if any."""
    content = durable.read(directory / OWNER)
    return None if content is None else content.decode("ascii", "replace").strip()


def name_owner(directory: Path, owner: str | None = None) -> None:
    """Say to which state a directory belongs, by default to a new one, if nothing says so yet."""
    if read_owner(directory) is None:
        with suppress(FileExistsError):  # of several that do so, the first is right
            durable.create(directory / OWNER, f"{owner or os.urandom(16).hex()}\n".encode())


def terms(directory: Path) -> list[int]:
    """Return the terms that were begun in a state directory, in order."""
    names = (path.name for path in durable.entries(directory / "terms"))
    return sorted(int(name) for name in names if _TERM.fullmatch(name))


def collect_terms(directory: Path) -> None:
    """Remove terms outside the ancestry of the newest, except for the newest `KEPT_TERMS`.

    What they wrote is void whether their files are there or not.
    """
    ancestry = Lineage.read(directory).restored
    for term in terms(directory)[:-KEPT_TERMS]:
        if term not in ancestry:
            durable.remove_tree(_term_path(directory, term))


def last_number(directory: Path) -> int:
    """Return the largest number that a generation has had, though it may be collected by now.

    Each term records it as it begins: a rollback collects what it leaves behind, and the next
    must not give those numbers again.
    """
    numbers = [0]
    for path in durable.entries(directory / "checkpoints"):
        with suppress(ValueError):
            numbers.append(GenerationName.parse(path.name.removesuffix(TEMPORARY)).number)
    for term in terms(directory):
        recorded = _line(directory, term).get("last_number")
        numbers += [recorded] if isinstance(recorded, int) else []
    return max(numbers)


def _term_path(directory: Path, term: int) -> Path:
    return directory / "terms" / f"{term:04d}"


def _newest_writer(directory: Path) -> int:
    # Where terms/ was lost, terms count on from the generations, so that none comes twice.
    written = generations(directory / "checkpoints")
    return max((name.term for name in written), default=0)


def _taken(directory: Path, term: int) -> str:
    pid = _line(directory, term).get("pid")
    return (
        f"{str(directory)!r} is held by a living process, term {term}, pid {pid}; "
        "stop that one first, or choose another state directory"
    )


def _restored(directory: Path, term: int) -> GenerationName | None:
    try:
        named = _line(directory, term)["restored"]
        base = None if named is None else GenerationName.parse(str(named))
    except (KeyError, ValueError) as error:
        raise DamagedPointer(_torn(directory, term)) from error
    if base is not None and base.term >= term:
        raise DamagedPointer(_torn(directory, term))
    return base


def _torn(directory: Path, term: int) -> str:
    path = _term_path(directory, term)
    return (
        f"{str(path)!r}: expected JSON with the generation that term {term} restored, found "
        f'{(durable.read(path) or b"")[:80]!r}; write {{"restored": "<generation>"}} into it: '
        "the parent in the manifest of the first generation of the term, or null"
    )


def _line(directory: Path, term: int) -> dict[str, object]:
    content = durable.read(_term_path(directory, term))
    try:
        line = json.loads(content or b"")
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
