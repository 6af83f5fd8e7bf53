"""Where unusable clicks go, and the limit after which we stop."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from state.append_log import AppendLog
from state.errors import NoSpace
from state.offsets import Partition
from streamer.errors import DeadLetterLimit
from streamer.sources.clicks import MAX_RAW_BYTES, DeadLetter, Headers

FILE_NAME = "dead-letters.jsonl"


class DeadLetterQueue(ABC):
    """Where unusable clicks go; a subclass knows the place, and `where` names it.

    Letters leave before the generation that counts them is committed: `sync`, at its cut, then
    `deliver`, beside the stream. `is_rotated` says that what the manifest states of the letters
    no longer holds, so that a new generation has to.
    """

    where: str
    is_rotated = False

    def __init__(self, max_count: int, max_share: float) -> None:
        self._max_count = max_count
        self._max_share = max_share
        self._last: DeadLetter | None = None
        self.n_sent = 0  # letters of this process that have left memory

    @property
    @abstractmethod
    def n_waiting(self) -> int:
        """Letters that wait in memory."""

    @property
    @abstractmethod
    def is_full(self) -> bool:
        """Whether as many letters wait as may, so that reading must wait, too."""

    @abstractmethod
    def append(self, letters: Iterable[DeadLetter]) -> None:
        """Take letters, on the stream's thread; never waits for a disk or a broker."""

    @abstractmethod
    def sync(self) -> int:
        """Fix what the next `deliver` has to deliver; return the file's length, for the manifest.

        Called at a cut, while no `deliver` is under way. Raises `NoSpace` while the disk is full.
        """

    @abstractmethod
    def truncate_to(self, length: int, *, is_contested: bool = False) -> None:
        """Forget what lies beyond `length` of the file; called at a restore, before `append`.

        The file of a contested directory is copied: the process that is superseded may go on to
        append to its own, or to cut it back.
        """

    @abstractmethod
    def deliver(self) -> None:
        """See that every letter up to the last `sync` has left; blocks. Raises `NotDelivered`."""

    @abstractmethod
    def close(self) -> None:
        """Let go, soon, after what is at hand has left if it can. Idempotent."""

    def check(self, n_dead: int, n_read: int) -> None:
        """Raise `DeadLetterLimit` if `n_dead` of `n_read` clicks are more than is tolerated.

        Both limits must be passed: the count, so that one bad click among the first few is
        nothing, and the share, so that a long life is not ended by a few bad clicks a day.
        """
        if n_dead > self._max_count and n_dead > self._max_share * n_read:
            self.refuse(n_dead, n_read)

    def refuse(self, n_dead: int, n_read: int) -> NoReturn:
        """Raise `DeadLetterLimit`, naming the last letter and where the others are."""
        last = ""
        if self._last is not None:
            place = f"{self._last.partition} offset {self._last.offset}"
            last = f"; the last is {self._last.reason} at {place}: {self._last.detail}"
        msg = (
            f"dead letters: expected at most {self._max_count} or {self._max_share:g} of the"
            f" clicks, found {n_dead} of {n_read}{last}; see {self.where}, then mend the"
            " producer or [clicks], or raise clicks.max_dead_letters"
        )
        raise DeadLetterLimit(msg)


class DeadLetters(DeadLetterQueue):
    """One JSON line for each unusable click, in a file that is cut back with the state.

    A restart replays the clicks behind the generation it restores, and would write their dead
    letters again: `truncate_to` the length that the generation's manifest states comes first.
    """

    def __init__(self, path: Path, max_count: int, max_share: float) -> None:
        super().__init__(max_count, max_share)
        self.where = repr(str(path))
        self._log = AppendLog(path)
        self._waiting = bytearray()
        self._n_waiting = 0

    @property
    def n_waiting(self) -> int:
        """Letters that wait for room on the disk."""
        return self._n_waiting

    @property
    def is_full(self) -> bool:
        """Return False: what waits for room on the disk is bounded by `max_uncommitted`."""
        return False

    def append(self, letters: Iterable[DeadLetter]) -> None:
        """Add a line for each letter; durable after the next `sync`.

        While the disk is full the lines wait in memory, and the stream goes on.
        """
        for letter in letters:
            self._waiting += to_line(letter)
            self._n_waiting += 1
            self._last = letter
        with suppress(NoSpace):
            self._write()

    def sync(self) -> int:
        """Make what was appended durable; return the length, for the manifest.

        Raises `NoSpace` while the disk is full.
        """
        self._write()
        return self._log.sync()

    def deliver(self) -> None:
        """Do nothing: `sync` has seen to it."""

    def truncate_to(self, length: int, *, is_contested: bool = False) -> None:
        """Forget what lies beyond `length`."""
        cut = self._log.replace_by_copy if is_contested else self._log.truncate_to
        self.is_rotated = not cut(length)

    def close(self) -> None:
        """Release the file. Idempotent."""
        with suppress(NoSpace):
            self._write()
        self._log.close()

    def _write(self) -> None:
        if self._waiting:
            self._log.append(bytes(self._waiting))
            self._waiting.clear()
            self.n_sent += self._n_waiting
            self._n_waiting = 0


class _Header(msgspec.Struct, omit_defaults=True):
    """A header of a Kafka record; a value that is no text is base64, and there may be none."""

    name: str
    value: str | None = None
    value_base64: str | None = None


class _Line(msgspec.Struct, omit_defaults=True):
    """A dead letter as a line of JSON; bytes that are no text are base64."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    raw: str | None = None
    raw_base64: str | None = None
    raw_bytes: int | None = None  # how many there were, where `raw` is only their head
    key: str | None = None
    key_base64: str | None = None
    headers: list[_Header] = []
    headers_bytes: int | None = None  # how many there were, where they were left out


def to_line(
    letter: DeadLetter, at_most: int | None = MAX_RAW_BYTES, n_bytes: int | None = None
) -> bytes:
    """Return a letter as a line of JSON with at most so many bytes of its record, or headers.

    `n_bytes` is how many there were, where `raw` does not hold them all.
    """
    head, size = letter.raw[:at_most], n_bytes or len(letter.raw)
    line = _Line(*letter.partition, letter.offset, letter.reason, letter.detail)
    line.raw, line.raw_base64 = _as_text(head)
    line.raw_bytes = size if size > len(head) else None
    if letter.key is not None:
        line.key, line.key_base64 = _as_text(letter.key)
    if at_most is not None and headers_size(letter.headers) > at_most:
        line.headers_bytes = headers_size(letter.headers)
    else:
        line.headers = [_Header(name, *_as_text(value)) for name, value in letter.headers]
    return msgspec.json.encode(line) + b"\n"


def from_line(line: bytes) -> tuple[DeadLetter, int]:
    """Return the letter of a line, and how many bytes there were of its record.

    Raises `ValueError` for a line that is no dead letter.
    """
    try:
        found = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"expected a dead letter as a line of JSON: {error}"
        raise ValueError(msg) from error
    raw = _as_bytes(found.raw, found.raw_base64)
    if raw is None:
        msg = "expected raw or raw_base64, found neither"
        raise ValueError(msg)
    key = _as_bytes(found.key, found.key_base64)
    place = Partition(found.topic, found.partition)
    headers = tuple((one.name, _as_bytes(one.value, one.value_base64)) for one in found.headers)
    letter = DeadLetter(place, found.offset, found.reason, found.detail, raw, key, headers)
    return letter, found.raw_bytes or len(raw)


def headers_size(headers: Headers) -> int:
    """Return how many bytes the names and values of headers have."""
    return sum(len(name.encode()) + len(value or b"") for name, value in headers)


def _as_text(content: bytes | None) -> tuple[str | None, str | None]:
    if content is None:
        return None, None
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def _as_bytes(text: str | None, encoded: str | None) -> bytes | None:
    if text is not None:
        return text.encode()
    return None if encoded is None else base64.b64decode(encoded, validate=True)
