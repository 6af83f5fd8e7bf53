"""Where unusable clicks go, and the limit after which we stop."""

import base64
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from state.append_log import AppendLog
from state.errors import NoSpace
from streamer.errors import DeadLetterLimit
from streamer.sources.clicks import MAX_RAW_BYTES, DeadLetter


class DeadLetters:
    """One JSON line for each unusable click, in a file that is cut back with the state.

    A restart replays the clicks behind the generation it restores, and would write their dead
    letters again: `truncate_to` the length that the generation's manifest states comes first.
    """

    def __init__(self, path: Path, max_count: int, max_share: float) -> None:
        self._path = path
        self._max_count = max_count
        self._max_share = max_share
        self._last: DeadLetter | None = None
        self.is_rotated = False  # the file is not the one whose length the manifest states
        self._log = AppendLog(path)
        self._waiting = bytearray()

    def append(self, letters: Iterable[DeadLetter]) -> None:
        """Add a line for each letter; durable after the next `sync`.

        While the disk is full the lines wait in memory, and the stream goes on.
        """
        for letter in letters:
            self._waiting += _line(letter)
            self._last = letter
        with suppress(NoSpace):
            self._write()

    def sync(self) -> int:
        """Make what was appended durable; return the length, for the manifest.

        Raises `NoSpace` while the disk is full.
        """
        self._write()
        return self._log.sync()

    def truncate_to(self, length: int, *, is_contested: bool = False) -> None:
        """Forget what lies beyond `length`; called at a restore, before the first append.

        The file of a contested directory is copied: the process that is superseded may go on to
        append to its own, or to cut it back.
        """
        cut = self._log.replace_by_copy if is_contested else self._log.truncate_to
        self.is_rotated = not cut(length)

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
            f" clicks, found {n_dead} of {n_read}{last}; see {str(self._path)!r}, then mend the"
            " producer or [clicks], or raise clicks.max_dead_letters"
        )
        raise DeadLetterLimit(msg)

    def close(self) -> None:
        """Release the file. Idempotent."""
        with suppress(NoSpace):
            self._write()
        self._log.close()

    def _write(self) -> None:
        if self._waiting:
            self._log.append(bytes(self._waiting))
            self._waiting.clear()


def _line(letter: DeadLetter) -> bytes:
    line: dict[str, str | int] = {
        "topic": letter.partition.topic,
        "partition": letter.partition.number,
        "offset": letter.offset,
        "reason": letter.reason,
        "detail": letter.detail,
    }
    raw = letter.raw[:MAX_RAW_BYTES]
    try:
        line["raw"] = raw.decode()
    except UnicodeDecodeError:
        line["raw_base64"] = base64.b64encode(raw).decode()
    return msgspec.json.encode(line) + b"\n"
