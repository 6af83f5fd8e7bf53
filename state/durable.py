"""Write, fsync, rename, fsync the directory; checksummed reads. Nothing else writes files.

Every name that a reader may look at appears by rename or by link, after its bytes are on the
disk. What a crash leaves behind ends in `.tmp`, and is the owner's to collect.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from state.errors import NoSpace, StateError
from state.sections import Section

Buffer = bytes | bytearray | memoryview

TEMPORARY = ".tmp"
_CHUNK_BYTES = 16 << 20
_TYPES = {
    "<f4": "F32", "<f8": "F64", "<i8": "I64", "<u8": "U64", "<i4": "I32", "<u4": "U32",
    "|u1": "U8", "|b1": "BOOL",
}  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_NOW = (errno.EAGAIN, errno.EACCES)


class Part(NamedTuple):
    """One file of a directory, as the manifest beside it vouches for it."""

    name: str
    size: int
    checksum: str


class Unreadable(ValueError):
    """Raised when the disk cannot read a file, which says nothing of what was written."""


class Identity(NamedTuple):
    """Which file it is, whatever its name; nothing else has it while a descriptor is open."""

    device: int
    inode: int


def checksum(content: Buffer) -> str:
    """Return the BLAKE2b-128 of `content`, in hex."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def write(path: Path, content: Buffer) -> None:
    """Replace the file at `path` by `content`, so that a crash leaves the old file or the new one.

    Raises `NoSpace` when the disk is full, leaving nothing behind.
    """
    write_chunks(path, [content])


def write_chunks(path: Path, chunks: Iterable[Buffer]) -> None:
    """Write as `write` does, what comes in pieces; they are taken before the file is replaced."""
    beside = _beside(path)
    with failures(path):
        try:
            _create(beside, chunks)
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_part(path: Path, content: Buffer) -> Part:
    """Write `content` to `path` and fsync it; the caller renames the directory around it.

    Raises `NoSpace` when the disk is full, leaving nothing behind.
    """
    return _write_part(path, [content])


def read_part(directory: Path, part: Part) -> bytes:
    """Return the bytes of `part`, which are what the manifest says.

    Raises `ValueError`, saying what was expected and found, when they are not; the caller
    knows whose part it is and what to do.
    """
    content = read(directory / part.name)
    if content is None:
        message = f"part {part.name!r} of {part.size} bytes is missing"
        raise ValueError(message)
    if len(content) != part.size:
        message = f"part {part.name!r} has {len(content)} bytes, manifest says {part.size}"
        raise ValueError(message)
    found = checksum(content)
    if found != part.checksum:
        message = f"part {part.name!r} has checksum {found}, manifest says {part.checksum}"
        raise ValueError(message)
    return content


def read(path: Path) -> bytes | None:
    """Return the bytes of the file at `path`; None when there is none.

    Raises `Unreadable` when the disk cannot read it, `StateError` when we may not.
    """
    with failures(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            message = f"file {path.name!r} cannot be read from the disk: {error.strerror}"
            raise Unreadable(message) from error


def identity(file: Path | int) -> Identity | None:
    """Return which file is at a path or behind a descriptor; None when there is none."""
    with failures(Path(str(file))):
        try:
            found = os.stat(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Identity(found.st_dev, found.st_ino)


def entries(directory: Path) -> list[Path]:
    """Return what stands in `directory`, in order; nothing when it is absent."""
    with failures(directory):
        return sorted(directory.iterdir()) if directory.exists() else []


def write_section(path: Path, section: Section) -> Part:
    """Write `section` as `write_part` would its encoding, without a copy of its arrays."""
    return _write_part(path, _section_chunks(section))


def encode_section(section: Section) -> bytes:
    """Return `section` in the safetensors format, its values as JSON in the metadata.

    The same section gives the same bytes. Raises `ValueError` for values that are not JSON
    and for arrays of other types than the format's.
    """
    return b"".join(_section_chunks(section))


def decode_section(content: bytes) -> Section:
    """Invert `encode_section`; the arrays are writable, C-contiguous and share nothing.

    Raises `ValueError` when `content` is no section.
    """
    try:
        arrays = load_arrays(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        values = json.loads(header["__metadata__"]["values"])
    except (SafetensorError, LookupError, TypeError) as error:
        message = f"expected a section in the safetensors format, found {error}"
        raise ValueError(message) from error
    owned = {name: np.require(arrays[name], requirements=["C", "W", "A"]) for name in arrays}
    return Section(owned, values)


def make_directory(path: Path) -> None:
    """Make `path` and the directories above it, durably; nothing happens if it is there."""
    with failures(path):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            message = f"{str(path)!r}: expected a directory, found a file; choose another path"
            raise StateError(message) from error
        for made in missing:
            sync_directory(made.parent)


def rename_directory(source: Path, target: Path) -> None:
    """Move a directory of fsynced files into place, durably: it is there whole or not at all."""
    with failures(target):
        sync_directory(source)
        os.rename(source, target)
        sync_directory(target.parent)


def remove_tree(path: Path) -> None:
    """Remove what is at `path`, if it is still there; a crash on the way leaves only a `.tmp`.

    A superseded owner may be removing it as well, or be writing into it: what is left of it
    then is collected by the next start.
    """
    with failures(path), suppress(FileNotFoundError):
        doomed = path
        if path.suffix != TEMPORARY:
            doomed = _beside(path)
            os.rename(path, doomed)
            sync_directory(path.parent)
        if not doomed.is_dir():
            doomed.unlink()
            return
        try:
            shutil.rmtree(doomed)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def collect_temporaries(directory: Path, check: Callable[[], None]) -> None:
    """Remove what crashes left behind in `directory`; `check` raises once it is not ours.

    It is asked after the look and before each removal, so that nothing of a newer owner, which
    writes only after its term has begun, is among what is removed.
    """
    for path in sorted(directory.glob("*" + TEMPORARY)):
        check()
        remove_tree(path)


def sync_directory(path: Path) -> None:
    """Make the names in the directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path) -> int | None:
    """Lock the file at `path` for this process's life; None when a living process holds it.

    Closing the returned descriptor unlocks. Raises `FileNotFoundError` when nothing is there.
    """
    with failures(path, FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NOT_NOW:
                return None
            raise
        return descriptor


def touch(descriptor: int, path: Path) -> None:
    """Note on the open file that its owner lives; nothing of it has to survive a power cut."""
    with failures(path):
        os.utime(descriptor)


def touched(path: Path) -> int | None:
    """Return a number that each `touch` of the file at `path` changes; None when there is none."""
    with failures(path):
        try:
            return os.stat(path).st_mtime_ns
        except FileNotFoundError:
            return None


def create(path: Path, content: bytes) -> None:
    """Create the file at `path`, whole or not at all.

    Raises `FileExistsError` when somebody else created it: of several callers one wins.
    """
    beside = _beside(path)
    with failures(path, FileExistsError):
        try:
            _create(beside, [content])
            os.link(beside, path)
            sync_directory(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def create_locked(path: Path, content: bytes) -> int:
    """Create the file at `path`, locked by us before anyone can see it; return its descriptor.

    Raises `FileExistsError` when somebody else created it: of several callers one wins.
    """
    beside = _beside(path)
    with failures(path, FileExistsError):
        descriptor = -1
        try:
            _create(beside, [content])
            descriptor = os.open(beside, os.O_RDWR)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.link(beside, path)
            sync_directory(path.parent)
        except BaseException:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        finally:
            beside.unlink(missing_ok=True)
        return descriptor


def write_all(descriptor: int, view: memoryview) -> None:
    """Write all of `view`, however often the system takes only a part of it."""
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def failures(path: Path, *expected: type[OSError]) -> Iterator[None]:
    """Turn what the system refuses, but for what the caller expects, into one line."""
    try:
        yield
    except expected:
        raise
    except OSError as error:
        if error.errno in _FULL:
            message = f"{str(path)!r}: no space left ({error.strerror}); free some on its disk"
            raise NoSpace(message) from error
        message = f"{str(path)!r}: {error.strerror}; check the path, its owner and permissions"
        raise StateError(message) from error


def _beside(path: Path) -> Path:
    # A paused owner and its successor may both be writing this file: no shared name.
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}{TEMPORARY}")


def _section_chunks(section: Section) -> list[Buffer]:
    # Wide types first, as safetensors does: every array is then aligned to its type.
    named = sorted(section.arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    values = json.dumps(section.values, allow_nan=False, ensure_ascii=False)
    header: dict[str, object] = {"__metadata__": {"values": values}}
    chunks: list[Buffer] = []
    end = 0
    for name, array in named:
        if array.dtype.str not in _TYPES:
            message = (
                f"array {name!r}: expected one of {', '.join(_TYPES)}, found {array.dtype.str}"
            )
            raise ValueError(message)
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _TYPES[array.dtype.str],
            "shape": array.shape,
            "data_offsets": (start, end),
        }
        chunks.append(np.asarray(array, order="C").data)
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *chunks]


def _write_part(path: Path, chunks: Iterable[Buffer]) -> Part:
    with failures(path):
        try:
            return _create(path, chunks)
        except FileExistsError:
            raise
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _create(path: Path, chunks: Iterable[Buffer]) -> Part:
    # Checksum and write let go of the interpreter: the stream goes on beside them.
    digest = hashlib.blake2b(digest_size=16)
    size = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for chunk in _pieces(chunks):
            digest.update(chunk)
            write_all(descriptor, chunk)
            size += len(chunk)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Part(path.name, size, digest.hexdigest())


def _pieces(chunks: Iterable[Buffer]) -> Iterator[memoryview]:
    for chunk in chunks:
        view = memoryview(chunk)
        if view.nbytes:  # a view of nothing cannot be cast
            plain = view.cast("B")
            for start in range(0, len(plain), _CHUNK_BYTES):
                yield plain[start : start + _CHUNK_BYTES]
