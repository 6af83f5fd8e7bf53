"""The lines of a file one by one, with their numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from streamer.sources.clicks import MAX_RAW_BYTES, TOO_LONG
from streamer.sources.lines import Lines


class Line(NamedTuple):
    """A line that is not blank; `number` is its offset, as a source over files counts."""

    number: int
    raw: bytes
    is_whole: bool  # a line that is too long to hold is only its head


def lines_of(path: Path, first: int, skip: int) -> Iterator[Line]:
    """Yield the lines from number `skip` on; a header has number -1, and then `first` is -1.

    Raises `ConfigError` where the file cannot be read.
    """
    lines = Lines(path, first, is_growing=False)
    try:
        while (records := lines.read()) is not None:
            begin = int((records.offsets < skip).sum())
            rows = zip(records.starts[begin:], records.lengths[begin:], strict=True)
            for at, (start, length) in enumerate(rows, begin):
                is_whole = length != TOO_LONG
                end = start + (length if is_whole else MAX_RAW_BYTES)
                raw = records.buffer[start:end].tobytes().removesuffix(b"\r")
                yield Line(int(records.offsets[at]), raw, is_whole)
    finally:
        lines.close()


def count_lines(path: Path, first: int, skip: int) -> int:
    """Return how many lines there are from number `skip` on."""
    lines = Lines(path, first, is_growing=False)
    n = 0
    try:
        while (records := lines.read()) is not None:
            n += int((records.offsets >= skip).sum())
    finally:
        lines.close()
    return n
