"""The lines of a file, plain or compressed, block by block and without a Python object for each.

The sum of n lines is the CRC-32 of the decompressed content from its start to the end of line
n - 1, a header, blank lines and all; without the line feed, or carriage return and line feed,
that ends this line, because the last line of a file may get its end later.
"""

import os
import zlib
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from streamer.errors import ConfigError
from streamer.sources.clicks import MAX_RAW_BYTES, MAX_RECORD_BYTES, TOO_LONG

BLOCK_BYTES = 1 << 20  # read at once, decompressed
PIECE_BYTES = 4096  # decompressed at once, so that little is lost before a damaged byte

_GZIP, _ZSTANDARD = ".gz", ".zst"
_BOM = b"\xef\xbb\xbf"
_LINE_FEED, _CARRIAGE_RETURN = 10, 13


class Records(NamedTuple):
    """Lines of one file; `lengths` may hold `TOO_LONG`."""

    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def split(self, n: int) -> "tuple[Records, Records | None]":
        """Return the first n records, with only their part of the buffer, and the rest if any."""
        rest = self.since(n)
        stop = int(rest.starts[0]) if rest is not None else len(self.buffer)
        start = int(self.starts[0])
        first = Records(
            self.buffer[start:stop], self.starts[:n] - start, self.lengths[:n], self.offsets[:n]
        )
        return first, rest

    def since(self, n: int) -> "Records | None":
        """Return the records from the n-th on, if any."""
        if n >= len(self.starts):
            return None
        return Records(self.buffer, self.starts[n:], self.lengths[n:], self.offsets[n:])


class _Block(NamedTuple):
    """What was split last: its lines begin with number `first` and have their ends at `ends`."""

    buffer: NDArray[np.uint8]
    ends: NDArray[np.int64]
    first: int


class Lines:
    """An open file as blocks of whole lines, numbered from `first`, without blank ones.

    `sum_at_start` becomes the sum of the first `start` lines once these have been read.
    """

    def __init__(self, path: Path, first: int, is_growing: bool, start: int = 0) -> None:
        self._path = path
        self._is_growing = is_growing
        self._is_first = True
        self._n_lines = first
        self._start = start
        self.sum_at_start: int | None = None
        self._rest = bytearray()  # a line whose end has not been read, or its head
        self._is_too_long = False
        self._last = _nothing_before(first)
        self._crc = 0
        self._n_summed = 0  # so much of the last block, or of the rest behind it, is in `_crc`
        self._blocks = _open(path)

    def n_seen(self) -> int:
        """Return how many lines have been seen, with one that has no end yet."""
        return self._n_lines + bool(self._rest)

    def read(self) -> Records | None:
        """Return the next lines, or None at the end of what is there."""
        self._leave_block()
        while block := self._block():
            data = self._rest + block
            end = data.rfind(b"\n", len(self._rest)) + 1
            self._rest = data[end:]
            if end:
                records = self._split(np.frombuffer(data, np.uint8)[:end])
                if len(records.starts):
                    return records
            self._leave_block()
        if self._is_growing:
            self._check_name()
            return None
        if not self._rest:
            return None
        self._rest, last = bytearray(), self._rest + b"\n"
        records = self._split(np.frombuffer(last, np.uint8))
        return records if len(records.starts) else None

    def sum_of(self, n: int) -> int:
        """Return the sum of the first n lines, which end in what was read last.

        May not be asked for fewer lines than the time before: each byte is summed once.
        """
        at = n - self._last.first - 1
        end = int(self._last.ends[at])
        has_return = end > 0 and self._last.buffer[end - 1] == _CARRIAGE_RETURN
        self._sum_to(self._last.buffer, end - int(has_return))
        return self._crc

    def close(self) -> None:
        """Release the file."""
        self._blocks.close()

    def _block(self) -> bytearray:
        try:
            return self._blocks.read()
        except _DamageError as error:
            msg = (
                f"{self._path}: expected whole compressed data, found {error}, behind line"
                f" {max(self._n_lines, 0)}; restore the file or repair it"
            )
            raise ConfigError(msg) from error
        except OSError as error:
            msg = (
                f"{self._path}: expected a file that can be read, found: {error.strerror},"
                f" behind line {max(self._n_lines, 0)}"
            )
            raise ConfigError(msg) from error

    def _check_name(self) -> None:
        """Raise `ConfigError` if the path names another file by now, or none."""
        if not self._blocks.is_at(self._path):
            msg = (
                f"{self._path}: expected the file that is being followed, found another one of"
                f" this name, or none, behind line {max(self._n_lines, 0)}; follow a file that is"
                " not rotated"
            )
            raise ConfigError(msg)

    def _sum_to(self, buffer: NDArray[np.uint8], end: int) -> None:
        if end > self._n_summed:
            self._crc = zlib.crc32(buffer[self._n_summed : end].data, self._crc)
            self._n_summed = end

    def _leave_block(self) -> None:
        """Sum what is left of the last block, and hold no more than the head of a long rest."""
        if len(self._last.buffer):
            self._sum_to(self._last.buffer, len(self._last.buffer))
            self._last = _nothing_before(self._n_lines)
            self._n_summed = 0
        if self._is_too_long or len(self._rest) > MAX_RECORD_BYTES:
            self._is_too_long = True
            # The last byte stays, and is not summed: it may be half of the end of the line.
            self._sum_to(np.frombuffer(self._rest, np.uint8), len(self._rest) - 1)
            self._rest = self._rest[:MAX_RAW_BYTES] + self._rest[-1:]
            self._n_summed = MAX_RAW_BYTES

    def _split(self, buffer: NDArray[np.uint8]) -> Records:
        """Split bytes that end with a line feed into lines."""
        ends = np.flatnonzero(buffer == _LINE_FEED)
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))
        if self._is_first and buffer[:3].tobytes() == _BOM:
            starts[0] = len(_BOM)
        lengths = ends - starts
        offsets = np.arange(self._n_lines, self._n_lines + len(ends))
        is_line = lengths > 0
        ones = np.flatnonzero(lengths == 1)
        is_line[ones] = buffer[starts[ones]] != _CARRIAGE_RETURN
        lengths[lengths > MAX_RECORD_BYTES] = TOO_LONG
        if self._is_too_long:
            lengths[0] = TOO_LONG
        self._is_first = self._is_too_long = False
        self._last = _Block(buffer, ends, self._n_lines)
        self._n_lines += len(ends)
        if self._last.first < self._start <= self._n_lines:
            self.sum_at_start = self.sum_of(self._start)
        if is_line.all():
            return Records(buffer, starts, lengths, offsets)
        return Records(buffer, starts[is_line], lengths[is_line], offsets[is_line])


class _DamageError(Exception):
    """Raised when compressed data is not whole; says where."""


class _Blocks(Protocol):
    def read(self) -> bytearray:
        """Return about `BLOCK_BYTES`, or nothing at the end."""

    def is_at(self, path: Path) -> bool:
        """Tell whether the file is the one that `path` names now."""

    def close(self) -> None:
        """Release the file."""


class _Stream(Protocol):
    """What zlib's and zstandard's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class _Plain:
    """A file as it is; reads on where it has grown."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path = path
        self._file = file

    def read(self) -> bytearray:
        block = bytearray(BLOCK_BYTES)
        del block[self._file.readinto(block) :]
        if not block and os.fstat(self._file.fileno()).st_size < self._file.tell():
            msg = (
                f"{self._path}: expected a file that only grows, found it cut back behind byte"
                f" {self._file.tell()}; let nothing cut or rotate it while it is read"
            )
            raise ConfigError(msg)
        return block

    def is_at(self, path: Path) -> bool:
        return _is_at(self._file, path)

    def close(self) -> None:
        self._file.close()


class _Compressed:
    """The content of a compressed file; one or more streams, one behind the other."""

    def __init__(self, file: FileIO, new_stream: Callable[[], _Stream]) -> None:
        self._file = file
        self._new_stream = new_stream
        self._stream: _Stream | None = None
        self._at = 0
        self._is_read = False
        self._damage = ""

    def read(self) -> bytearray:
        block = bytearray()
        while len(block) < BLOCK_BYTES and not self._is_read:
            self._add_piece(block)
        if not block and self._damage:
            raise _DamageError(self._damage)
        return block

    def _add_piece(self, block: bytearray) -> None:
        piece = self._file.read(PIECE_BYTES)
        if not piece:
            self._is_read = True
            if self._stream is not None:
                self._damage = f"its end too early, at byte {self._at}"
            return
        try:
            while piece:
                if self._stream is None:
                    piece = piece.lstrip(b"\0")  # gzip files may be padded
                    self._stream = self._new_stream() if piece else None
                if self._stream is not None:
                    block += self._stream.decompress(piece)
                    piece = self._stream.unused_data if self._stream.eof else b""
                    self._stream = None if self._stream.eof else self._stream
        except (zlib.error, zstandard.ZstdError) as error:
            self._is_read = True
            self._damage = f"damage near byte {self._at} ({error})"
        self._at += PIECE_BYTES

    def is_at(self, path: Path) -> bool:
        return _is_at(self._file, path)

    def close(self) -> None:
        self._file.close()


def is_compressed(path: Path) -> bool:
    """Tell by its name whether a file is compressed."""
    return path.suffix.lower() in (_GZIP, _ZSTANDARD)


def _nothing_before(line: int) -> _Block:
    return _Block(np.empty(0, np.uint8), np.empty(0, np.int64), line)


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _open(path: Path) -> _Blocks:
    try:
        if path.exists() and not path.is_file():
            msg = f"{path}: expected a file, found a directory or device"
            raise ConfigError(msg)
        file = FileIO(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        msg = f"{path}: expected a file that can be read, found: {reason}"
        raise ConfigError(msg) from error
    if path.suffix.lower() == _GZIP:
        return _Compressed(file, lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16))
    if path.suffix.lower() == _ZSTANDARD:
        return _Compressed(file, lambda: zstandard.ZstdDecompressor().decompressobj())
    return _Plain(path, file)
