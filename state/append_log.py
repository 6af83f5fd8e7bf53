"""A file that only grows, and is cut back to a committed length at a restore."""

import os
from collections.abc import Iterator
from pathlib import Path

from state import durable
from state.durable import failures, write_all

_CHUNK_BYTES = 4 << 20


class AppendLog:
    """A file that only grows, and is cut back to a committed length at a restore.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "letters"
    >>> log = AppendLog(path)
    >>> log.append(b"kept;")
    >>> committed = log.sync()
    >>> log.append(b"after the commit;")
    >>> log.close()
    >>> restored = AppendLog(path)
    >>> restored.truncate_to(committed)
    >>> path.read_bytes(), restored.sync()
    (b'kept;', 5)
    >>> restored.close()

    Whoever takes the file from an owner that may still live calls `replace_by_copy`: the file is
    then another one, and what the other still appends to its own, or cuts off, is void.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        durable.make_directory(path.parent)
        with failures(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            durable.sync_directory(path.parent)
            self._length = os.fstat(self._descriptor).st_size

    def append(self, content: bytes) -> None:
        """Add `content` whole, or nothing: on a full disk what was begun is cut off again."""
        with failures(self._path):
            try:
                write_all(self._descriptor, memoryview(content))
            except OSError:
                os.ftruncate(self._descriptor, self._length)
                raise
            self._length += len(content)

    def sync(self) -> int:
        """Make what was appended durable; return the length to commit."""
        with failures(self._path):
            os.fsync(self._descriptor)
        return self._length

    def truncate_to(self, length: int) -> bool:
        """Cut off what lies beyond `length`; False if the file is another one, rotated, shorter."""
        if length < self._length:
            with failures(self._path):
                os.ftruncate(self._descriptor, length)
                os.fsync(self._descriptor)
            self._length = length
        return length == self._length

    def replace_by_copy(self, length: int) -> bool:
        """Put a copy of the first `length` bytes in the file's place; False as `truncate_to`.

        Blocks for the length of the copy. A crash leaves the old file or the copy.
        """
        kept = min(length, self._length)
        durable.write_chunks(self._path, self._chunks(kept))
        with failures(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND)
        self.close()
        self._descriptor, self._length = descriptor, kept
        return length == kept

    def close(self) -> None:
        """Release the file; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _chunks(self, length: int) -> Iterator[bytes]:
        for start in range(0, length, _CHUNK_BYTES):
            yield os.pread(self._descriptor, min(_CHUNK_BYTES, length - start), start)
