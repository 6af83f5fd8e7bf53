"""Files opened as sources, and what is read of them."""

import gzip

import pytest
import zstandard

from streamer.errors import ConfigError
from streamer.settings import sources as config
from streamer.sources.files import FileSource

HEADER = "ts,user_id,session_id,item_id\n"
PACKERS = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


class SteppingClock:
    """A clock that moves only when somebody sleeps, and then lets `on_sleep` happen."""

    def __init__(self):
        self.seconds = 0.0
        self.on_sleep = lambda: None

    def now_ms(self):
        return int(self.seconds * 1000)

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        assert seconds > 0
        self.seconds += seconds
        self.on_sleep()


OPENED = []


def some_rows(n, first=0):
    return "".join(f"{i},u,s,i{i}\n" for i in range(first, first + n))


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(PACKERS[path.suffix if path.suffix in PACKERS else ""](data))
    return path


def opened(*paths, clock=None, clicks=None, **settings):
    files = config.FileSource(paths=paths, **settings)
    source = FileSource(files, clicks or config.Clicks(), clock or SteppingClock())
    OPENED.append(source)
    return source


def item_of(batch, i):
    start = batch.item_starts[i]
    return batch.buffer[start : start + batch.item_lengths[i]].tobytes().decode()


def polled(source, max_clicks=1_000_000):
    """Read to the end; return (file, offset, item or reason) of each record."""
    found = []
    while (batch := source.poll(0.0, max_clicks)) is not None:
        name = batch.partition.topic
        rows = [(name, int(at), item_of(batch, i)) for i, at in enumerate(batch.offsets)]
        rows += [(name, letter.offset, letter.reason) for letter in batch.dead_letters]
        found += sorted(rows)
    return found


def refused(*paths, **settings):
    with pytest.raises(ConfigError) as caught:
        opened(*paths, **settings)
    return caught.value.faults
