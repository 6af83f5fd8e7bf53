"""The source over CSV or JSON lines, plain or compressed, with scripted faults for tests.

Each file is a partition; the offset of a record is its line number, from 0 and without the
header. Blank lines are no records, but have a number.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path

import numpy as np

from state.deaths import Deaths
from state.offsets import Offsets, Partition
from streamer.clock import Clock
from streamer.errors import ConfigError
from streamer.settings import sources as config
from streamer.settings.clicks import ClickMapping
from streamer.sources.clicks import ClickBatch
from streamer.sources.contract import Claim, Lag, LocalSource
from streamer.sources.csv_clicks import CsvDecoder
from streamer.sources.decoders import line_decoder
from streamer.sources.decoding import Decoder
from streamer.sources.lines import Lines, Records, is_compressed

STEP_SECONDS = 0.05  # between two looks at a followed file

_FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class FileSource(LocalSource):
    """Clicks from files, one file after the other; see `streamer.sources.contract.Source`.

    Raises `ConfigError` with every fault of every file: that it cannot be read, or that its
    columns are not those of `clicks`.
    """

    def __init__(self, settings: config.FileSource, clicks: config.Clicks, clock: Clock) -> None:
        self._settings = settings
        self._clicks = clicks
        self._clock = clock
        faults = list(_faults(settings, clicks))
        if faults:
            raise ConfigError(*faults)
        self._partitions = tuple(Partition(path.name, 0) for path in settings.paths)
        self._next = dict.fromkeys(self._partitions, 0)
        self._marks: dict[Partition, str] = {}
        self._at = 0  # the file that is being read
        self._reader: _Reader | None = None
        self._records: Records | None = None  # read, and not yet polled
        self._is_paused = False
        self._is_waiting = False
        self._deaths = Deaths()

    def partitions(self) -> tuple[Partition, ...]:
        """Return one partition for each file, in the order in which they are read."""
        return self._partitions

    def claim(self, claim: Claim) -> None:
        """Note what is decoded where the state of `claim` says."""
        self._deaths = claim.deaths

    def seek(self, offsets: Offsets, marks: Mapping[Partition, str]) -> None:
        """Go to where `offsets` points; reads every line before it. See `Source.seek`."""
        self._let_go()
        self._at = 0
        self._marks = {p: marks[p] for p in self._partitions if offsets.get(p) and p in marks}
        self._next = {partition: offsets.get(partition, 0) for partition in self._partitions}
        self._has_records()

    def poll(self, timeout_seconds: float, max_clicks: int) -> ClickBatch | None:
        """Return the next clicks of one file. See `Source.poll`.

        Raises `ConfigError` where a file is damaged, after what came before has been polled.
        """
        assert max_clicks > 0
        deadline = self._clock.monotonic() + timeout_seconds
        while self._is_paused or not self._has_records():
            left = deadline - self._clock.monotonic()
            if left <= 0 or self.is_exhausted():
                return None
            self._clock.sleep(min(left, STEP_SECONDS))
        assert self._records is not None
        assert self._reader is not None
        partition = self._partitions[self._at]
        first, rest = self._records.split(max_clicks)
        batch = self._reader.decode(partition, first, self._deaths)
        self._records = rest
        self._next[partition] = batch.next_offset
        self._marks[partition] = self._reader.mark(batch.next_offset)
        return batch

    def ended(self) -> Iterable[Partition]:
        """Return the files that have been read to their end."""
        return self._partitions[: self._at]

    def is_exhausted(self) -> bool:
        """Tell whether every file has been read to its end, and none is followed."""
        return self._at == len(self._partitions)

    def caught_up(self) -> Iterable[Partition]:
        """Return the files that had nothing more to read at the last poll."""
        return self._partitions[: self._at + self._is_waiting]

    def pause(self) -> None:
        """Read nothing until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        """Read again."""
        self._is_paused = False

    def position(self) -> Offsets:
        """Return the next line of each file."""
        return Offsets(self._next)

    def marks(self) -> Mapping[Partition, str]:
        """Return the sum of the lines before each position, to the end of the last of them."""
        return dict(self._marks)

    def lag(self) -> Lag:
        """Return 0 at the end; before it, nobody has counted the lines."""
        return Lag(0 if self.is_exhausted() or self._is_waiting else None)

    def close(self) -> None:
        """Release the open file; polls return None from now on."""
        self._let_go()
        self._is_paused = True

    def _has_records(self) -> bool:
        """Read until there are records or nothing more can be had now."""
        self._is_waiting = False
        while self._records is None and not self.is_exhausted():
            path = self._settings.paths[self._at]
            if self._reader is None:
                partition = self._partitions[self._at]
                self._reader = _Reader(
                    path,
                    self._settings,
                    self._clicks,
                    self._next[partition],
                    self._marks.get(partition),
                )
            self._records = self._reader.read()
            if self._records is None and _is_followed(path, self._settings):
                self._is_waiting = True
                return False
            if self._records is None:
                self._let_go()
                self._at += 1
        return self._records is not None

    def _let_go(self) -> None:
        self._records = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def read_header(
    path: Path, settings: config.FileSource, mapping: ClickMapping
) -> tuple[list[str], str] | None:
    """Return the columns of a CSV and what is between them, or None for other lines.

    Raises `ConfigError` when the file cannot be read, or its name says nothing.
    """
    if _format(path, settings) is None:
        raise ConfigError(_unnamed(path))
    if not _is_csv(path, settings, mapping):
        return None
    lines = Lines(path, -1, is_growing=False)
    try:
        records = lines.read()
    finally:
        lines.close()
    return ([], settings.delimiter) if records is None else _header(path, settings, records)


class Fault(Enum):
    """What a script can do to a source."""

    ABORT = "raise `Aborted`, as a crash would"
    PAUSE = "return None once, as a slow broker would"
    END = "end, as a truncated stream would"


class Aborted(Exception):
    """Raised by `ScriptedSource` where its script says so."""


class ScriptedSource(FileSource):
    """Files with faults: `script` says what happens once that many records have been read."""

    def __init__(
        self,
        settings: config.FileSource,
        clicks: config.Clicks,
        clock: Clock,
        script: Mapping[int, Fault],
    ) -> None:
        super().__init__(settings, clicks, clock)
        self._script = dict(script)
        self._n_read = 0

    def poll(self, timeout_seconds: float, max_clicks: int) -> ClickBatch | None:
        """Return the next clicks before the next fault, or the fault itself."""
        fault = self._script.pop(self._n_read, None)
        if fault is Fault.ABORT:
            raise Aborted
        if fault is Fault.PAUSE:
            return None
        if fault is Fault.END:
            self._let_go()
            self._at = len(self._partitions)
        left = [at - self._n_read for at in self._script if at > self._n_read]
        batch = super().poll(timeout_seconds, min([max_clicks, *left]))
        self._n_read += batch.n_read if batch is not None else 0
        return batch


class _Reader:
    """One open file, from one of its offsets on; `mark` is that of the lines before it, if any."""

    def __init__(
        self,
        path: Path,
        settings: config.FileSource,
        clicks: config.Clicks,
        start: int = 0,
        mark: str | None = None,
    ) -> None:
        self._path = path
        self._settings = settings
        self._mapping = clicks.of_topic(path.name)
        self._start = start
        self._mark = mark
        is_csv = _is_csv(path, settings, self._mapping)
        self._decoder: Decoder | None = None if is_csv else line_decoder(self._mapping)
        self._lines = Lines(path, -1 if is_csv else 0, _is_followed(path, settings), start)

    def read(self) -> Records | None:
        """Return the next records, or None if there are none, or none yet.

        Raises `ConfigError` where the file is damaged, ends before the offset to start from, or
        has other lines before it.
        """
        while (records := self._lines.read()) is not None:
            self._check_mark()
            if self._decoder is None:
                self._decoder = self._csv_decoder(records)
            found = records.since(int(np.searchsorted(records.offsets, max(self._start, 0))))
            if found is not None:
                return found
        n_seen = max(self._lines.n_seen(), 0)  # a CSV of no bytes has not even a header
        if n_seen < self._start:
            msg = (
                f"{self._path}: expected at least {self._start} lines, as many as have been read,"
                f" found {n_seen}; put the file back or use a new state directory"
            )
            raise ConfigError(msg)
        self._check_mark()
        return None

    def mark(self, offset: int) -> str:
        """Return the mark of the lines before `offset`, the last of which was read last."""
        return _mark(self._lines.sum_of(offset))

    def decode(self, partition: Partition, records: Records, deaths: Deaths) -> ClickBatch:
        """Return the clicks among `records`, which `deaths` is told of."""
        assert self._decoder is not None
        self._decoder.watch(deaths)
        return self._decoder.decode(partition, *records, int(records.offsets[-1]) + 1)

    def close(self) -> None:
        """Release the file."""
        self._lines.close()

    def _check_mark(self) -> None:
        """Compare the lines before the offset to start from, once they have been read."""
        if self._mark is None or self._lines.sum_at_start is None:
            return
        found = _mark(self._lines.sum_at_start)
        if found != self._mark:
            msg = (
                f"{self._path}: expected the file whose first {self._start} lines have been read"
                f" ({self._mark}), found other lines ({found}): another file, or an unfinished"
                " last line that has grown; put that file back, give the new one another name, go"
                " back to a generation before that line (--generation), or"
                " use a new state directory"
            )
            raise ConfigError(msg)

    def _csv_decoder(self, records: Records) -> CsvDecoder:
        """Read the header: the line before offset 0."""
        header, delimiter = _header(self._path, self._settings, records)
        return CsvDecoder(self._mapping, header, delimiter, str(self._path))


def _header(path: Path, settings: config.FileSource, records: Records) -> tuple[list[str], str]:
    """Return the columns in the line before offset 0, and what is between them."""
    raw = records.split(1)[0]
    start, length = int(raw.starts[0]), int(raw.lengths[0])
    line = raw.buffer[start : start + length].tobytes() if raw.offsets[0] < 0 else b""
    delimiter = _delimiter(path, settings)
    try:
        header = next(csv.reader([line.decode()], delimiter=delimiter, strict=True), [])
    except (UnicodeDecodeError, csv.Error, TypeError, ValueError) as error:
        msg = f"{path}: expected a header of CSV columns, found: {error}"
        raise ConfigError(msg) from error
    return header, delimiter


def _format(path: Path, settings: config.FileSource) -> str | None:
    name = path.with_suffix("") if is_compressed(path) else path
    return _FORMATS.get(name.suffix.lower()) if settings.format == "auto" else settings.format


def _is_csv(path: Path, settings: config.FileSource, mapping: ClickMapping) -> bool:
    # A format of events says more than the name of a file: those have no header.
    return _format(path, settings) == "csv" and mapping.format in {"json", "avro"}


def _mark(crc: int) -> str:
    return f"crc32:{crc:08x}"


def _delimiter(path: Path, settings: config.FileSource) -> str:
    is_tsv = "tsv" in path.name.lower().split(".") and "delimiter" not in settings.model_fields_set
    return "\t" if is_tsv and settings.format == "auto" else settings.delimiter


def _is_followed(path: Path, settings: config.FileSource) -> bool:
    return settings.follow and path == settings.paths[-1]


def _faults(settings: config.FileSource, clicks: config.Clicks) -> Iterator[str]:
    names = Counter(path.name for path in settings.paths)
    for name in sorted(name for name, n in names.items() if n > 1):
        yield f"source.files.paths: expected different file names, found {name!r} twice; rename one"
    for path in settings.paths:
        if _format(path, settings) is None:
            yield _unnamed(path)
        elif _is_followed(path, settings) and is_compressed(path):
            yield f"{path}: expected a plain file to follow, found a compressed one; unpack it"
        else:
            yield from _content_faults(path, settings, clicks)


def _unnamed(path: Path) -> str:
    return (
        f"{path}: expected a name with {', '.join(_FORMATS)} in it, found {path.name!r};"
        " set source.files.format"
    )


def _content_faults(
    path: Path, settings: config.FileSource, clicks: config.Clicks
) -> Iterator[str]:
    """Read the first block, and a header with it."""
    try:
        reader = _Reader(path, settings, clicks)
    except ConfigError as error:
        yield from error.faults
        return
    try:
        reader.read()
    except ConfigError as error:
        yield from error.faults
    finally:
        reader.close()
