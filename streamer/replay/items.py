"""What a source holds, one by one: a record to publish, or why there is none."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from state.offsets import Partition
from streamer.config import Config
from streamer.errors import ConfigError, InvalidEvent
from streamer.replay.formats import Format, format_of_file, format_of_topic
from streamer.replay.letters import NO_LETTER, Letter
from streamer.replay.lines import Line, count_lines, lines_of
from streamer.replay.times import seconds_to_now
from streamer.settings.clicks import ClickMapping
from streamer.settings.sources import FileSource
from streamer.sources.clicks import POISON, DeadLetter
from streamer.sources.kafka_producer import Record
from streamer.sources.mapping import Click, Filtered

# Why a letter is left that could be read.
CUT, REPEATED, NOT_ASKED_FOR = "cut", "repeated", "not_asked_for"
# A click that killed the process would kill it again: it is put back only where it is asked for.
ONLY_IF_NAMED = (POISON,)


class Item(NamedTuple):
    """What stands at one place of a source; without a record it is left, for `reason`.

    `letter` is what it was, for whoever wants to keep it; a click that can be published has none.
    """

    at: int
    record: Record | None
    time_ms: int = 0
    reason: str = ""
    letter: Letter | None = None


class Choice(NamedTuple):
    """Which letters are put back, where to, and with which times."""

    topic: str | None = None
    reasons: Sequence[str] = ()
    keep_times: bool = False

    def wants(self, reason: str) -> bool:
        """Tell whether letters with a reason are asked for."""
        return reason in self.reasons if self.reasons else reason not in ONLY_IF_NAMED


class MendedLetters:
    """Dead letters that can be read by now, as records to put back; the others are left."""

    def __init__(self, letters: Sequence[Letter], config: Config, choice: Choice) -> None:
        self._config = config
        self._choice = choice
        self._formats: dict[str, Format] = {}
        self._seen: set[tuple[Partition, int]] = set()
        self._found = [self._read(letter) for letter in letters]

    def items(self, now_ms: int) -> list[Item]:
        """Return an item for each letter; each session ends at `now_ms`, or times are kept."""
        clicks = [found for found in self._found if not isinstance(found, Item)]
        seconds = [0] * len(clicks)
        if not self._choice.keep_times:
            gap_ms = round(self._config.sessions.gap_seconds * 1000)
            seconds = seconds_to_now([click for _, click in clicks], now_ms, gap_ms)
        later = iter(seconds)
        return [
            found if isinstance(found, Item) else self._mended(*found, next(later))
            for found in self._found
        ]

    def _read(self, found: Letter) -> Item | tuple[Letter, Click]:
        letter = found.letter
        place = (letter.partition, letter.offset)
        if place in self._seen:
            return Item(found.at, None, reason=REPEATED)
        self._seen.add(place)
        if not self._choice.wants(letter.reason):
            return Item(found.at, None, reason=NOT_ASKED_FOR, letter=found)
        if not found.is_whole or letter.reason == NO_LETTER:
            reason = CUT if not found.is_whole else NO_LETTER
            return Item(found.at, None, reason=reason, letter=found)
        try:
            click = self._format(letter.partition.topic).read(letter.raw, letter.headers)
        except InvalidEvent as error:
            return _still_none(found, error)
        if isinstance(click, Filtered):
            return Item(found.at, None, reason=click.reason, letter=found)
        return found, click

    def _mended(self, found: Letter, click: Click, seconds: int) -> Item:
        letter = found.letter
        own = letter.partition.topic
        topic = self._choice.topic or own
        key = letter.key if letter.key is not None else key_of(click)
        try:
            written = self._format(own).written(letter.raw, seconds, letter.headers)
        except InvalidEvent as error:
            return _still_none(found, error)
        partition = letter.partition.number if topic == own else None
        record = Record(topic, written.value, key, written.headers, partition)
        return Item(found.at, record, click.time_ms + seconds * 1000, letter=found)

    def _format(self, topic: str) -> Format:
        """Return how the records of a topic are written, or of a file of that name."""
        if topic not in self._formats:
            self._formats[topic] = self._new_format(topic)
        return self._formats[topic]

    def _new_format(self, topic: str) -> Format:
        mapping = self._config.clicks.of_topic(topic)
        if self._choice.topic is not None:
            _check_target(self._config, topic, mapping, self._choice.topic)
        files = self._config.source.files
        for path in files.paths if files else ():
            if path.name == topic and files is not None:
                return format_of_file(path, files, mapping)
        return format_of_topic(topic, mapping)


class ClickFile:
    """The clicks of a file as records of a topic; lines that are no clicks are left."""

    def __init__(self, path: Path, config: Config, topic: str, skip: int) -> None:
        files = config.source.files or FileSource(paths=(path,))
        read = config.source.files.paths if config.source.files else ()
        is_read = path.name in {one.name for one in read}
        mapping = config.clicks.of_topic(path.name if is_read else topic)
        _check_target(config, path.name, mapping, topic)
        self._path = path
        self._topic = topic
        self._skip = skip
        self._format = format_of_file(path, files, mapping)

    def count(self) -> int:
        """Return how many items there are; reads the file once."""
        return count_lines(self._path, self._format.first_line, self._skip)

    def __iter__(self) -> Iterator[Item]:
        """Yield an item for each line."""
        for line in lines_of(self._path, self._format.first_line, self._skip):
            yield self._item(line)

    def _item(self, line: Line) -> Item:
        try:
            click = self._format.read(line.raw)
        except InvalidEvent as error:
            return self._left(line, error.reason, error.detail)
        if isinstance(click, Filtered):
            return self._left(line, click.reason, "left out by its mapping")
        record = Record(self._topic, self._format.written(line.raw, 0).value, key_of(click))
        return Item(line.number, record, click.time_ms)

    def _left(self, line: Line, reason: str, detail: str) -> Item:
        letter = DeadLetter(Partition(self._path.name, 0), line.number, reason, detail, line.raw)
        left = Letter(letter, len(line.raw) + (not line.is_whole), line.number)
        return Item(line.number, None, reason=reason, letter=left)


def key_of(click: Click) -> bytes:
    """Return what keeps the clicks of a session in one partition: its id, else the user's."""
    return click.session or click.user


def _still_none(found: Letter, error: InvalidEvent) -> Item:
    now = replace(found.letter, reason=error.reason, detail=error.detail)
    return Item(found.at, None, reason=error.reason, letter=found._replace(letter=now))


def _check_target(config: Config, own: str, mapping: ClickMapping, topic: str) -> None:
    """Raise `ConfigError` if clicks of `own` would be none where they are put."""
    kafka = config.source.kafka
    if kafka is None or topic not in kafka.topics:
        return
    there = config.clicks.of_topic(topic)
    if all(getattr(there, key) == getattr(mapping, key) for key in ClickMapping.model_fields):
        return
    msg = (
        f"replay: expected clicks of {own!r} in the mapping of topic {topic!r}, found another in"
        " clicks.topics; what is put there keeps its fields"
    )
    raise ConfigError(msg)
