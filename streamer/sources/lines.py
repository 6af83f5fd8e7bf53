"""The lines of a file, plain or compressed, block by block and without a Python object for each."""

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
COMPRESSED = (".gz", ".zst")

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


class Lines:
    """An open file as blocks of whole lines, numbered from `first`, without blank ones."""

    def __init__(self, path: Path, first: int, is_growing: bool) -> None:
        self._path = path
        self._is_growing = is_growing
        self._is_first = True
        self._n_lines = first
        self._rest = bytearray()  # a line whose end has not been read, or its head
        self._is_too_long = False
        self._blocks = _open(path)

    def n_seen(self) -> int:
        """Return how many lines have been seen, with one that has no end yet."""
        return self._n_lines + bool(self._rest)

    def read(self) -> Records | None:
        """Return the next lines, or None at the end of what is there."""
        while block := self._block():
            data = self._rest + block
            end = data.rfind(b"\n", len(self._rest)) + 1
            if end:
                self._rest = data[end:]
                records = self._split(np.frombuffer(data, np.uint8)[:end])
                self._bound_rest()
                if len(records.starts):
                    return records
            else:
                self._rest = data
                self._bound_rest()
        if self._is_growing or not self._rest:
            return None
        self._rest, last = bytearray(), self._rest + b"\n"
        records = self._split(np.frombuffer(last, np.uint8))
        return records if len(records.starts) else None

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

    def _bound_rest(self) -> None:
        if self._is_too_long or len(self._rest) > MAX_RECORD_BYTES:
            self._is_too_long = True
            self._rest = self._rest[:MAX_RAW_BYTES]

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
        self._n_lines += len(ends)
        if is_line.all():
            return Records(buffer, starts, lengths, offsets)
        return Records(buffer, starts[is_line], lengths[is_line], offsets[is_line])


class _DamageError(Exception):
    """Raised when compressed data is not whole; says where."""


class _Blocks(Protocol):
    def read(self) -> bytearray:
        """Return about `BLOCK_BYTES`, or nothing at the end."""

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
                f" {self._file.tell()}; follow a file that is not rotated"
            )
            raise ConfigError(msg)
        return block

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

    def close(self) -> None:
        self._file.close()


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
    if path.suffix == ".gz":
        return _Compressed(file, lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16))
    if path.suffix == ".zst":
        return _Compressed(file, lambda: zstandard.ZstdDecompressor().decompressobj())
    return _Plain(path, file)
